"""`textdiffusion evaluate RUN`"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Literal

from ..errors import UserError
from .output import note, print_json, status
from .parsing import RunName


@dataclass(frozen=True, kw_only=True)
class Command:
    """Bits per character of a text under a run, with standard errors, beside an n-gram of the training text."""

    run: RunName
    """The run's folder, or its repository id on the hub."""
    data: str = ""
    """The text to measure on (empty: what the run kept back from its own)."""
    target_error: float = 0.01
    """Draw until the standard error of the draws is below this, in bits."""
    draws: int = 0
    """Passes over the text (0: as many as the target needs)."""
    windows: int = 0
    """Measure on so many windows, evenly spread (0: all)."""
    batch_size: int = 64
    """Windows at once; it does not change the result."""
    seed: int = 0
    calibrate: int = 0
    """Fit a temperature for each of so many ranges of noise levels on the training text (0: none)."""
    weights: Literal["ema", "raw"] = "ema"
    """The averaged weights, or the optimizer's own."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "float32"
    """The precision of the network's features."""
    json: bool = False
    """Print JSON."""

    def execute(self) -> None:
        if self.draws == 1 or self.draws < 0:
            raise UserError(f"--draws is {self.draws}; an error can be told from 2 on, and 0 means as many as needed.")
        if self.target_error <= 0 or self.batch_size < 1 or self.windows < 0:
            raise UserError("--target-error and --batch-size must be above 0, and --windows not below.")
        if self.calibrate < 0:
            raise UserError(f"--calibrate is {self.calibrate}; it must be a number of ranges, or 0 for none.")
        from ..api import TextDiffusion
        from ..evaluation.baseline import kneser_ney
        from ..evaluation.calibration import calibrate
        from ..evaluation.heldout import held_out, training_corpus
        from ..evaluation.likelihood import bits_per_character
        from ..text.preparation import default_cache

        model = TextDiffusion.from_pretrained(self.run, weights=self.weights, device=self.device, dtype=self.dtype)
        text = held_out(model, default_cache(), self.data, self.windows)
        if text.seen:
            note(f"{self.data} is what this run was trained on: these are no figures of unseen text.")
        with status("Measuring ...") as say, ExitStack() as stack:
            if self.calibrate:
                say("Calibrating ...")
                train = training_corpus(model, default_cache()).train
                fitted = calibrate(model.model, train, buckets=self.calibrate, batch_size=self.batch_size)
                stack.enter_context(fitted.applied(model.model))
            found = bits_per_character(
                model.model,
                text,
                seed=self.seed,
                target_error=self.target_error,
                draws=self.draws or None,
                batch_size=self.batch_size,
                about={**text.about, "calibration": self.calibrate},
                progress=lambda number, share, error: say(
                    f"Measuring: pass {number}, {share:.0%}" + (f", error {error:.4f}" if number > 2 else "")
                ),
            )
            say("Counting n-grams ...")
            try:
                train = training_corpus(model, default_cache()).train.shard
                ngram = kneser_ney(train, text, model.tokenizer.vocab_size)
            except UserError as error:
                ngram = None
                note(f"The training text is not at hand, so there is no n-gram beside the run. {error}")
        if self.json:
            beside = asdict(ngram) if ngram else None
            print_json(
                {
                    "run": self.run,
                    "recipe": model.config.recipe,
                    **asdict(found),
                    "digest": found.digest,
                    "ngram": beside,
                }
            )
            return
        averaged = "averaged" if self.weights == "ema" else "raw"
        print(f"{model.config.recipe}, {averaged} weights, on {text.name}: {found.characters:,} characters")
        sign = "=" if found.exact else "<="
        print(f"{sign:>3} {found.bits:.4f} bits per character" + ("" if found.exact else " (an upper bound)"))
        if not found.exact:
            print(f" +- {found.monte_carlo_error:.4f} from the draws ({found.draws} per window), this text fixed")
        if found.window_error is not None:
            print(f" +- {found.window_error:.4f} between the {found.windows} windows, for more text of this kind")
        print(f"    protocol {found.digest}: figures beside each other must share it")
        if ngram:
            counted = f"{ngram.counted:,} tokens of the training text"
            print(f"    {ngram.bits:.4f} a Kneser-Ney {ngram.order}-gram of {counted}")
