"""What `sample` and `infill` share: their options, and the ways to show what is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import UseAppendAction, arg

from ..core.errors import UserError
from .output import console, note, print_json, print_texts, status
from .parsing import RunName

if TYPE_CHECKING:
    from ..core.batch import Batch
    from ..inference.api import TextDiffusion
    from ..samplers.base import Step
    from ..views.frames import Frame


@dataclass(frozen=True, kw_only=True)
class Writing:
    """Options of everything that writes text."""

    run: RunName
    """The run's folder, or its repository id on the hub."""
    steps: int = 0
    """Denoising steps (0: what the run is meant for)."""
    sampler: str = ""
    """A name from `textdiffusion samplers RUN`, with settings as in ddim:eta=1 (empty: the run's own)."""
    guide: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME:KEY=VALUE")] = ()
    """Something that steers what is written, as in without:text=pear. Repeat it for several."""
    source: str = ""
    """What a run that was trained with text.source is to answer to."""
    label: str = ""
    """The label of the texts, for a run that was trained with text.label."""
    temperature: float = 1.0
    """Below 1: safer and less diverse text; above 1 the reverse."""
    top_k: int = 0
    """Only so many of the likeliest tokens at each place (0: all)."""
    top_p: float = 1.0
    """Only the fewest likely tokens that together reach this probability."""
    seed: int = 0
    """The same seed writes the same texts; more texts begin with those of fewer."""
    best_of: int = 1
    """Write so many candidates for each text and keep the one of the fewest bits per character under the run."""
    mbr: int = 1
    """Write so many candidates for each text and keep the one most like the others (minimum Bayes risk)."""
    distinct: bool = False
    """Print no text twice, so perhaps fewer."""
    rank: bool = False
    """Print the likeliest text first, each after its bits per character under the run."""
    watch: bool = False
    """Show the text emerging from noise."""
    html: str = ""
    """Save a page that plays the denoising."""
    gif: str = ""
    """Save an animation of the denoising (extra `plot`)."""
    json: bool = False
    """Print JSON."""
    weights: Literal["ema", "raw"] = "ema"
    """The averaged weights, or the optimizer's own."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"

    @property
    def candidates(self) -> int:
        """Texts written for each that is kept."""
        return self.best_of * self.mbr

    def load(self) -> TextDiffusion:
        """The run. Raises UserError for options that exclude each other, before anything slow."""
        if self.watch and self.json:
            raise UserError("--watch and --json exclude each other: both write to standard output.")
        for option, path in (("html", self.html), ("gif", self.gif)):
            if path and not Path(path).absolute().parent.is_dir():
                raise UserError(f"--{option} {path}: there is no folder {Path(path).absolute().parent}.")
        if self.steps < 0:
            raise UserError(f"--steps is {self.steps}; it must be at least 1, or 0 for what the run is meant for.")
        if min(self.best_of, self.mbr) < 1 or min(self.best_of, self.mbr) > 1:
            raise UserError("--best-of and --mbr need a number of at least 1, and exclude each other.")
        from ..inference.api import TextDiffusion

        return TextDiffusion.from_pretrained(self.run, weights=self.weights, device=self.device)

    def write(self, model: TextDiffusion, batch: Batch, about: dict[str, Any]) -> None:
        """Writes the rows of a batch and shows them as asked: all at once where they are seen, else in parts."""
        seen = self.watch or self.html or self.gif
        from ..config.overrides import sampler_name

        recorded: list[Frame] = []
        texts: list[str] = []
        length, window = batch.tokens.shape[1], model.config.text.length
        if length > window and model.model.process.bidirectional:  # others write on from a part of what they wrote
            note(f"{length} tokens are more than a window of this run's training ({window}); expect worse text.")
        total, calls = 0, 0.0
        for part in [batch] if seen else model.chunks(batch):
            steps = model.stream(
                steps=self.steps or None,
                seed=self.seed,
                temperature=self.temperature,
                sampler=self.sampler or None,
                guides=self.guide,
                top_k=self.top_k,
                top_p=self.top_p,
                batch=part,
            )
            last = self._watched(model, part, steps, recorded, f"{len(texts)} of {len(batch.tokens)} texts")
            texts += model.decode(last, part)
            total, calls = last.total, calls + last.nfe * len(part.tokens) / len(batch.tokens)
        bits = self._bits(model, texts) if self.best_of > 1 else {}
        texts = self._chosen(texts, bits)
        if self.rank:
            bits = bits or self._bits(model, texts)
            texts = sorted(texts, key=bits.__getitem__)
        facts = {
            "run": self.run,
            "recipe": model.config.recipe,
            "weights": self.weights,
            **about,
            "steps": total,
            "calls": round(calls, 2),
            "sampler": self.sampler or sampler_name(model.config.sampler),
            **({"source": self.source} if self.source else {}),
            **({"label": self.label} if self.label else {}),
            **({"guides": list(self.guide)} if self.guide else {}),
            "temperature": self.temperature,
            **({"top_k": self.top_k} if self.top_k else {}),
            **({"top_p": self.top_p} if self.top_p < 1.0 else {}),
            "seed": self.seed,
            **({"best_of": self.best_of} if self.best_of > 1 else {}),
            **({"mbr": self.mbr} if self.mbr > 1 else {}),
        }
        self._save(recorded, facts)
        if self.json:
            ranks = [round(bits[text], 4) if text else None for text in texts] if self.rank else []
            print_json({**facts, "texts": texts, **({"bits_per_character": ranks} if self.rank else {})})
        else:
            print_texts(texts, [bits[text] for text in texts] if self.rank else None)

    def _chosen(self, texts: list[str], bits: dict[str, float]) -> list[str]:
        """Of the candidates for each text the best."""
        from ..inference.selection import best_of, distinct, mbr

        size = self.candidates
        groups = [texts[start : start + size] for start in range(0, len(texts), size)]
        if self.mbr > 1:
            texts = [mbr(group) for group in groups]
        elif size > 1:
            texts = [best_of(group, lambda group: [-bits[text] for text in group]) for group in groups]
        if self.distinct:
            found = distinct(texts)
            if len(found) < len(texts):
                note(f"{len(texts) - len(found)} of {len(texts)} texts were the same as others.")
            return found
        return texts

    def _bits(self, model: TextDiffusion, texts: list[str]) -> dict[str, float]:
        """Bits per character of each different text under the run; inf of an empty one."""
        from ..inference.selection import distinct, fluency

        score = fluency(model, source=self.source or None, label=self.label or None)
        different, bits = distinct(texts), dict[str, float]()
        with status("Scoring ...") as say:
            for text in different:
                say(f"Scoring: {len(bits)} of {len(different)} different texts")
                bits[text] = -score([text])[0]
        return bits

    def _watched(
        self, model: TextDiffusion, batch: Batch, steps: Iterator[Step], recorded: list[Frame], done: str
    ) -> Step:
        from ..views.frames import Framer
        from ..views.terminal import watch

        framer = Framer(model.tokenizer, batch.condition_mask)

        def tapped() -> Iterator[Step]:
            for step in steps:
                if self.html or self.gif:
                    recorded.append(framer.frame(step))
                yield step

        if self.watch:
            last = watch(tapped(), model.tokenizer, batch.condition_mask, console())
            print()
            return last
        with status("Writing ...") as say:
            for last in tapped():
                say(f"Writing: {done}, step {last.index} of {last.total}")
        return last

    def _save(self, recorded: list[Frame], facts: dict[str, Any]) -> None:
        if self.html:
            from ..views.html import write_html

            write_html(recorded, self.html, f"textdiffusion: {facts['recipe']}", facts)
            note(f"Saved {self.html}; open it in a browser.")
        if self.gif:
            from ..views.gif import write_gif

            write_gif(recorded, self.gif)
            note(f"Saved {self.gif}.")
