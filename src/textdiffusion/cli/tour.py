"""What `textdiffusion demo` shows: the models of the package at work, one section after another."""

from __future__ import annotations

import shlex
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ..core.errors import UserError
from .output import print_table, status

if TYPE_CHECKING:
    from ..inference.api import TextDiffusion
    from ..samplers.base import Step
    from ..views.frames import Frame

PLAYS, RESTAURANTS, SUDOKU = "shakespeare", "restaurants", "sudoku"
TEMPLATE = "My lord, the [MASK:6] is dead."
WORD, LABEL, SOURCE = "crown", "Italian", "riverside, cheap"
PATTERN = r"The [A-Z][a-z]+ is an? [a-z]+ [A-Z][a-z]+ (pub|restaurant|coffee shop) in the [a-z ]+\."
PUZZLE = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
LENGTH, STEPS = 96, 64  # of the text that emerges
TEMPERATURE = 0.7  # at which small models write best
COOLER = ("--temperature", str(TEMPERATURE))
SECONDS = 6.0  # that an animation takes at least, in a terminal
WINDOWS, DRAWS = 16, 2  # of the measurement


@dataclass
class Tour:
    """The sections; one whose model is not installed is skipped with a sentence."""

    console: Console
    template: str = TEMPLATE
    page: str = ""
    """Where to save the page (empty: in the folder for temporary files)."""
    _count: int = 0
    _models: dict[str, TextDiffusion] = field(default_factory=dict)

    def show(self) -> None:
        """All sections. Raises UserError for a template that cannot be filled."""
        frames = self.emerging()
        self.infilling()
        self.steering()
        self.solving()
        self.saving(frames)
        self.measuring()
        self.own_text()

    def emerging(self) -> list[Frame]:
        """Text emerges from noise; returns its frames."""
        from ..views.frames import Framer
        from ..views.terminal import watch

        frames: list[Frame] = []
        self._heading("Text emerges from noise")
        if run := self._model(PLAYS):
            framer = Framer(run.tokenizer)

            def recorded() -> Iterator[Step]:
                for step in run.stream(length=LENGTH, seed=1, steps=STEPS, temperature=TEMPERATURE):
                    frames.append(framer.frame(step))
                    yield step

            watch(self._paced(recorded()), run.tokenizer, console=self.console)
            self._command("sample", PLAYS, *COOLER, "--watch")
        return frames

    def infilling(self) -> None:
        """A gap is filled."""
        self._heading(f"A gap is filled: {self.template}")
        if run := self._model(PLAYS):
            self._texts(run.infill(self.template, 3, seed=1, temperature=TEMPERATURE))
            self._command("infill", PLAYS, self.template, *COOLER)

    def steering(self) -> None:
        """A word, attributes and a pattern steer the text."""
        self._heading(f"A word steers the text: {WORD}")
        if run := self._model(PLAYS):
            guide = f"word:text={WORD}"
            self._texts(run.generate(length=48, seed=2, guides=[guide], temperature=TEMPERATURE))
            self._command("sample", PLAYS, "--length", "48", "--guide", guide, *COOLER)
        self._heading(f"Attributes steer the text: {LABEL}, {SOURCE}")
        if run := self._model(RESTAURANTS):
            self._texts(run.generate(2, label=LABEL, source=SOURCE, seed=1, temperature=TEMPERATURE))
            self._command("sample", RESTAURANTS, "--label", LABEL, "--source", SOURCE, *COOLER)
            self._heading(f"A pattern holds for the whole text: {PATTERN}")
            guide = f"regex:pattern={PATTERN}"
            self._texts(run.generate(2, label=LABEL, source=SOURCE, seed=1, guides=[guide], temperature=TEMPERATURE))
            self._command("sample", RESTAURANTS, "--label", LABEL, "--source", SOURCE, "--guide", guide, *COOLER)

    def solving(self) -> None:
        """A sudoku is solved."""
        from ..views.grid import grid_of
        from ..views.terminal import watch

        self._heading("A sudoku is solved, the surest cells first")
        run = self._model(SUDOKU)
        if run is None or run.task is None:
            return
        batch, grid = run.infill_batch(PUZZLE), grid_of(run.task)
        assert grid is not None
        steps = self._paced(run.stream(batch=batch))
        last = watch(steps, run.tokenizer, batch.condition_mask, self.console, grid=grid)
        (row,) = run.decode(last, batch)
        if not self.console.is_terminal:
            self._say(grid.final(row, run.task.task.is_given(row), self.console).plain)
        if run.task.is_correct(row):
            self._say("Correct: every row, column and box has each digit once.")
        else:
            self._say("Not correct this time: some row, column or box has a digit twice.")
        self._command("infill", SUDOKU, PUZZLE, "--watch")

    def saving(self, frames: list[Frame]) -> None:
        """The first text, as a page."""
        from ..views.html import write_html

        if not frames:
            return
        self._heading("The same text as a page that plays it")
        path = Path(self.page or Path(tempfile.gettempdir()) / "textdiffusion-demo.html")
        try:
            write_html(
                frames,
                path,
                f"textdiffusion: {PLAYS}",
                {"run": PLAYS, "steps": STEPS, "temperature": TEMPERATURE, "seed": 1},
            )
        except UserError as error:
            if self.page:
                raise
            self._say(str(error))
        else:
            self._say(f"Saved {path}; open it in a browser.")
        self._command("sample", PLAYS, "--html", "emerging.html")

    def measuring(self) -> None:
        """Bits per character beside an n-gram."""
        self._heading("How good is it? Bits per character on a play it has not seen; lower is better")
        if (run := self._model(PLAYS)) is None or run.folder is None:
            return
        from ..data.prepare import default_cache
        from ..evaluation.heldout import held_out
        from ..scoring.likelihood import bits_per_character
        from ..storage.packaged import excerpt_of, read_card

        card = read_card(run.folder)
        with status("Measuring ..."):
            text = held_out(run, default_cache(), excerpt_of(run.folder), card.excerpt.windows)
            score = bits_per_character(run.model, text, run.likelihood, draws=DRAWS)
        rows = [("this model" if score.exact else "this model (upper bound)", f"{score.bits:.2f}", card.training)]
        counted = card.excerpt.ngram_bits
        if counted is not None:
            rows.append(("Kneser-Ney n-gram of the same plays", f"{counted:.2f}", "a few seconds of counting"))
        print_table(("", "BITS PER CHARACTER", "COST"), rows)
        if counted is not None:
            self._say(_verdict(score.bits - counted))
        self._command("evaluate", PLAYS)

    def own_text(self) -> None:
        """What to do next."""
        from .. import recipes

        self._heading("Train on your own text")
        self._command("train", recipes.FIRST, "--data", "my.txt", "--out", "runs/mine", "--max-minutes", "5")
        self._say("textdiffusion models lists the models, textdiffusion demo --train trains one while you watch.")

    def _model(self, name: str) -> TextDiffusion | None:
        """The model called `name`; None, after a sentence, if this installation lacks it."""
        from ..inference.api import TextDiffusion
        from ..storage.packaged import checked_folder, names

        if name not in self._models:
            if name not in names():
                self._say(f"Skipped: this installation does not have the model {name}.")
                return None
            with status(f"Loading {name} ..."):
                self._models[name] = TextDiffusion.from_pretrained(checked_folder(name))
        return self._models[name]

    def _paced(self, steps: Iterator[Step]) -> Iterator[Step]:
        """The steps, in a terminal slow enough to be seen."""
        animated = self.console.is_terminal and not self.console.is_dumb_terminal
        before = time.monotonic()
        for step in steps:
            if animated and step.index:
                time.sleep(max(0.0, before + SECONDS / max(1, step.total) - time.monotonic()))
            before = time.monotonic()
            yield step

    def _heading(self, text: str) -> None:
        self._count += 1
        self.console.print(f"\n{self._count}. {text}", style="bold", markup=False)

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False)

    def _texts(self, texts: list[str]) -> None:
        for text in texts:
            self.console.print(text.strip(), markup=False)

    def _command(self, *words: str) -> None:
        """The command to do this oneself, in one line that can be copied."""
        line = " ".join(['""' if not word else shlex.quote(word) for word in words])
        self.console.print(f"$ textdiffusion {line}", style="dim", markup=False, soft_wrap=True)


def _verdict(gap: float) -> str:
    if gap > 0:
        return f"The n-gram is ahead by {gap:.2f} bits. On running text a masked model of this size is behind counting."
    return f"The model is ahead of the n-gram by {-gap:.2f} bits."
