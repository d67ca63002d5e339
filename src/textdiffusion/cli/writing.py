"""`textdiffusion sample RUN` and `textdiffusion infill RUN TEMPLATE`"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, UseAppendAction, arg

from ..core.errors import UserError
from .output import console, note, print_json, print_line, print_texts, status
from .parsing import RunName, check_folders

if TYPE_CHECKING:
    from ..core.batch import Batch
    from ..inference.api import TextDiffusion
    from ..inference.options import SamplingKwargs
    from ..samplers.base import Sampler, Step
    from ..views.frames import Frame


FRAME_BYTES = 8  # of a position in a recorded step: frames share what does not change


@dataclass(frozen=True, kw_only=True)
class Writing:
    """The options of both commands, and the ways to show what they write."""

    run: RunName
    """The run's folder, a name from `textdiffusion models`, or a repository id on the hub."""
    num: int = 4
    """Number of texts."""
    steps: int = 0
    """Denoising steps (0 = the sampler's default)."""
    sampler: str = ""
    """A name from `textdiffusion samplers RUN`, with settings as in ddim:eta=1 (empty = the run's default)."""
    guide: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME:KEY=VALUE")] = ()
    """Steer the text: a name from `textdiffusion guides` with settings, as in without:text=pear. Repeat for several."""
    source: Annotated[str | None, arg(metavar="STR")] = None
    """The prompt (for runs trained with text.source); "" is an empty one."""
    label: str = ""
    """The label of the texts (for runs trained with text.label)."""
    temperature: float | None = None
    """Below 1 gives safer and less diverse text (0 = always the likeliest token), above 1 the reverse (default: the
    run's own, 1 unless it says otherwise)."""
    top_k: int = 0
    """Keep only the k most likely tokens at each position (0 = all)."""
    top_p: float | None = None
    """Keep only the fewest most likely tokens that together have this probability (default: the run's own)."""
    seed: int | Literal["random"] = 0
    """The same seed gives the same texts; --num 8 starts with the texts of --num 4. `random` chooses one, and says
    which."""
    best_of: int = 1
    """Write N candidates per text and keep the one the model finds most likely."""
    mbr: int = 1
    """Write N candidates per text and keep the one most similar to the others (minimum Bayes risk)."""
    distinct: bool = False
    """Print each distinct text once, so possibly fewer texts."""
    rank: bool = False
    """Print the most likely text first, each with its bits per character under the run."""
    watch: bool = False
    """Show the text emerging from noise."""
    html: str = ""
    """Save an HTML page that plays the denoising."""
    gif: str = ""
    """Save a GIF of the denoising (needs the extra `plot`)."""
    json: bool = False
    """Print JSON."""
    weights: Literal["ema", "raw"] = "ema"
    """Use the averaged weights (ema) or the optimizer's own (raw)."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Run on this device."""

    @property
    def candidates(self) -> int:
        """Candidates per text."""
        return self.best_of * self.mbr

    @property
    def stops(self) -> tuple[str, ...]:
        """Where texts end."""
        return ()

    @cached_property
    def number(self) -> int:
        """The seed as a number."""
        return secrets.randbits(32) if self.seed == "random" else self.seed

    def load(self) -> TextDiffusion:
        """The run. Raises UserError for options that exclude each other, before anything slow."""
        if self.watch and self.json:
            raise UserError("--watch and --json exclude each other: both write to standard output.")
        check_folders(html=self.html, gif=self.gif)
        if self.steps < 0:
            raise UserError(f"--steps is {self.steps}; it must be at least 1, or 0 for the sampler's default.")
        if self.num < 1:
            raise UserError("--num must be at least 1.")
        if min(self.best_of, self.mbr) < 1:
            raise UserError("--best-of and --mbr must be at least 1.")
        if min(self.best_of, self.mbr) > 1:
            raise UserError("--best-of and --mbr exclude each other.")
        if self.seed == "random":
            note(f"The seed is {self.number}.")
        from ..inference.api import TextDiffusion

        return TextDiffusion.from_pretrained(self.run, weights=self.weights, device=self.device)

    def write(self, run: TextDiffusion, batch: Batch, facts: dict[str, Any]) -> None:
        """Writes the rows of a batch and shows them: all at once where they are watched or recorded, else in chunks.

        `facts` describe the request in JSON and on pages.
        """
        length, window = batch.tokens.shape[1], run.config.text.length
        if length > window and run.model.process.bidirectional:  # others condition on the last part of what they wrote
            note(f"{length} tokens are more than the {window} of a training window; expect worse text.")
        from ..inference.options import truncate

        if self.watch or self.html or self.gif:
            self._check_frames(run, batch)
        frames: list[Frame] = []
        texts: list[str] = []
        steps, nfe = 0, 0.0
        for chunk in [batch] if self.watch or self.html or self.gif else run.chunks(batch):
            stream = run.stream(batch=chunk, **self._sampling())
            last = self._show(run, chunk, stream, frames, f"{len(texts)} of {len(batch.tokens)} texts")
            texts += [truncate(text, self.stops) for text in run.decode(last, chunk)]
            steps, nfe = last.total, nfe + last.nfe * len(chunk.tokens) / len(batch.tokens)
        bits = self._bits(run, texts) if self.best_of > 1 else {}
        texts = self._select(texts, bits)
        if self.rank:
            bits = bits or self._bits(run, texts)
            texts = sorted(texts, key=bits.__getitem__)
        facts = {
            "run": self.run,
            "recipe": run.config.recipe,
            "weights": self.weights,
            **facts,
            "steps": steps,
            "calls": round(nfe, 2),
            "sampler": self.sampler or run.config.sampler.kind,
            "source": self.source,
            "label": self.label or None,
            "guides": list(self.guide) or None,
            "temperature": self._sampler(run).temperature if self.temperature is None else self.temperature,
            "top_k": self.top_k or None,
            "top_p": top_p if (top_p := self._top_p(run)) < 1.0 else None,
            "seed": self.number,
            "best_of": self.best_of if self.best_of > 1 else None,
            "mbr": self.mbr if self.mbr > 1 else None,
            "stop": list(self.stops) or None,
        }
        facts = {name: value for name, value in facts.items() if value is not None}
        self._save(frames, facts)
        if self.json:
            ranks = [round(bits[text], 4) if text else None for text in texts] if self.rank else []
            more = {"bits_per_character": ranks} if self.rank else {}
            print_json({**facts, "texts": texts, **more, **self._answers(run, texts)})
        else:
            self._print(run, texts, [bits[text] for text in texts] if self.rank else None)

    def _sampler(self, run: TextDiffusion) -> Sampler:
        from ..config.overrides import sampler

        return sampler(self.sampler, run.config.sampler) if self.sampler else run.config.sampler

    def _top_p(self, run: TextDiffusion) -> float:
        return self._sampler(run).top_p if self.top_p is None else self.top_p

    def _answers(self, run: TextDiffusion, texts: list[str]) -> dict[str, Any]:
        """Facts about texts that are answers."""
        return {}

    def _print(self, run: TextDiffusion, texts: list[str], bits: list[float] | None) -> None:
        print_texts(texts, bits)

    def _check_frames(self, run: TextDiffusion, batch: Batch) -> None:
        """Raises UserError where a recording does not fit into the free memory."""
        from ..core.memory import check_memory

        rows, length = batch.tokens.shape
        run.check_size(rows, length, at_once=True)
        if self.html or self.gif:
            steps = self.steps or run.config.sampler.steps or length
            check_memory(
                steps * rows * length * FRAME_BYTES,
                f"Recording {steps:,} steps of {rows:,} texts of {length:,} tokens",
                "lower --steps, --num or --length",
            )

    def _sampling(self) -> SamplingKwargs:
        """These options as those of the package; `inference.options.SamplingOptions` describes them."""
        return {
            "steps": self.steps or None,
            "seed": self.number,
            "temperature": self.temperature,
            "sampler": self.sampler or None,
            "guides": self.guide,
            "top_k": self.top_k,
            "top_p": self.top_p,
        }

    def _select(self, candidates: list[str], bits: dict[str, float]) -> list[str]:
        """The best candidate per text."""
        from ..inference.selection import best_of, distinct, mbr

        size, texts = self.candidates, candidates
        groups = [candidates[start : start + size] for start in range(0, len(candidates), size)]
        if self.mbr > 1:
            texts = [mbr(group) for group in groups]
        elif size > 1:
            texts = [best_of(group, lambda group: [-bits[text] for text in group]) for group in groups]
        if not self.distinct:
            return texts
        unique = distinct(texts)
        if len(unique) < len(texts):
            note(f"{len(texts) - len(unique)} of {len(texts)} texts were duplicates.")
        return unique

    def _bits(self, run: TextDiffusion, texts: list[str]) -> dict[str, float]:
        """Bits per character of each distinct text under the run; inf for an empty one."""
        from ..inference.selection import distinct, fluency

        score = fluency(run, source=self.source, label=self.label or None)
        unique, bits = distinct(texts), dict[str, float]()
        with status("Scoring ...") as show:
            for text in unique:
                show(f"Scoring: {len(bits)} of {len(unique)} distinct texts")
                bits[text] = -score([text])[0]
        return bits

    def _show(
        self, run: TextDiffusion, batch: Batch, stream: Iterator[Step], frames: list[Frame], progress: str
    ) -> Step:
        """The last step of a stream, which is watched, recorded in `frames`, or counted in a status line."""
        from ..views.frames import Framer, given_texts
        from ..views.grid import grid_of
        from ..views.terminal import watch

        grid = grid_of(run.task)
        framer = Framer(run.tokenizer, batch.condition_mask, given_texts(batch))

        def recorded() -> Iterator[Step]:
            for step in stream:
                if self.html or self.gif:
                    frame = framer.frame(step)
                    frames.append(frame if grid is None else grid.broken(frame))
                yield step

        if self.watch:
            texts = given_texts(batch)
            last = watch(recorded(), run.tokenizer, batch.condition_mask, console(), grid=grid, texts=texts)
            print_line()
            return last
        with status("Writing ...") as show:
            for last in recorded():
                show(f"Writing: {progress}, step {last.index} of {last.total}")
        return last

    def _save(self, frames: list[Frame], facts: dict[str, Any]) -> None:
        if self.html:
            from ..views.html import write_html

            page_facts = facts | {"run": Path(self.run).name}  # not where it is on this machine
            write_html(frames, self.html, f"textdiffusion: {facts['recipe']}", page_facts)
            note(f"Saved {self.html}; open it in a browser.")
        if self.gif:
            from ..views.gif import write_gif

            write_gif(frames, self.gif)
            note(f"Saved {self.gif}.")


@dataclass(frozen=True, kw_only=True)
class Sample(Writing):
    """Write text with a run."""

    length: int = 0
    """Tokens per text (0 = the length of a training window)."""
    stop: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="TEXT")] = ()
    """End each text before this text. Repeat for several."""

    @property
    def stops(self) -> tuple[str, ...]:
        return self.stop

    def execute(self) -> None:
        if not all(self.stop):
            raise UserError("--stop is empty; give at least one character.")
        run = self.load()
        batch = run.empty_batch(
            self.num * self.candidates, self.length or None, source=self.source, label=self.label or None
        )
        self.write(run, batch, {"num": self.num, "length": batch.tokens.shape[1]})


@dataclass(frozen=True, kw_only=True)
class Infill(Writing):
    """Fill the gaps of a template, or answer a question. The text around the gaps is preserved exactly.

    [MASK:5] is a gap of five tokens of the run's tokenizer, [MASK] one as long as the model proposes; \\[MASK is the
    literal text. At the end of a template, [MASK] continues until the model ends the text. A run that was trained on a
    task takes a bare question: for `sudoku`, the 81 cells row by row with a dot for each blank.
    """

    template: Annotated[str, Positional, arg(metavar="TEMPLATE")]
    """Text with gaps, in quotes: "The [MASK:5] pear is [MASK:8]."; or a question."""

    def execute(self) -> None:
        run = self.load()
        batch = run.infill_batch(
            self.template,
            self.num * self.candidates,
            source=self.source,
            label=self.label or None,
            seed=self.number,
        )
        for warning in (run.infill_warning, run.reading_note(run.as_template(self.template))):
            if warning:
                note(warning)
        self.write(run, batch, {"num": self.num, "template": self.template})

    def _answers(self, run: TextDiffusion, texts: list[str]) -> dict[str, Any]:
        """The answers of a run that was trained on a task, and which are correct."""
        if run.task is None:
            return {}
        answers = [run.task.task.read_row(text)[1] for text in texts]
        return {"answers": answers, "correct": [run.task.is_correct(text) for text in texts]}

    def _print(self, run: TextDiffusion, texts: list[str], bits: list[float] | None) -> None:
        """Of a task, each distinct answer once, correct ones first: as grids in a terminal where rows are grids."""
        if run.task is None or bits:
            super()._print(run, texts, bits)
            return
        from ..views.grid import grid_of

        correct = sum(map(run.task.is_correct, texts))
        rows = sorted(dict.fromkeys(texts), key=run.task.is_correct, reverse=True)
        grid, out = grid_of(run.task), console()
        if grid is None or not out.is_terminal:
            print_texts([run.task.task.display(row) for row in rows])
        else:
            for row in rows:
                out.print(grid.final(row, run.task.task.is_given(row), out), end="\n\n")
        note(
            f"{correct} of {len(texts)} answers are correct"
            + (f", {len(rows)} are different." if len(rows) > 1 else ".")
        )
