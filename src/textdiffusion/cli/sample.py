"""`textdiffusion sample RUN`: texts, continuations of prompts, answers to messages, and whole files of them."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import UseAppendAction, arg

from ..core.errors import UserError
from .output import console, note, print_line, status
from .parsing import check_folders
from .writing import Writing

if TYPE_CHECKING:
    from ..core.batch import Batch
    from ..inference.api import Conversation, TextDiffusion

SECONDS = 20.0  # between lines of progress where standard error is not a terminal


@dataclass(frozen=True, kw_only=True)
class Sample(Writing):
    """Write text with a run: freely, after a prompt, in answer to a message, or for each line of a file."""

    length: int = 0
    """Tokens per text (0 = the length of a training window, or what a prompt leaves of it, at most 512)."""
    prompt: Annotated[str | None, arg(metavar="TEXT")] = None
    """Continue this text; what is written is the continuation alone."""
    chat: Annotated[str, arg(metavar="MESSAGE")] = ""
    """Answer this message with the run's chat template; or a file with one message a line (.jsonl, role and
    content)."""
    input: Annotated[str, arg(metavar="FILE.jsonl")] = ""
    """Answer each line: {"id": ..., "prompt": ...}, or "messages" or "template" instead of a prompt."""
    output: Annotated[str, arg(metavar="FILE.jsonl")] = ""
    """With --input: append the results to this file, one a line. The same command continues a file that was begun."""
    stop: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="TEXT")] = ()
    """End each text before this text. Repeat for several."""

    @property
    def stops(self) -> tuple[str, ...]:
        return self.stop

    @property
    def prefix(self) -> str:
        return self.prompt or ""

    @property
    def count(self) -> int:
        return super().count if self.num is not None or not (self.chat or self.input) else 1

    def execute(self) -> None:
        if not all(self.stop):
            raise UserError("--stop is empty; give at least one character.")
        given = [("--prompt", self.prompt is not None), ("--chat", self.chat), ("--input", self.input)]
        if len(names := [name for name, value in given if value]) > 1:
            raise UserError(f"{' and '.join(names)} exclude each other.")
        if bool(self.input) != bool(self.output):
            raise UserError("--input and --output go together: give both or neither.")
        if self.chat and (self.best_of > 1 or self.rank):
            raise UserError("--best-of and --rank measure texts and continuations, not answers; use --mbr.")
        if self.input:
            self._write_file()
            return
        run = self.load()
        num, length, label = self.count * self.candidates, self.length or None, self.label or None
        if self.prompt is not None:
            batch = run.prompt_batch(self.prompt, num, length, source=self.source, label=label)
        elif self.chat:
            batch = run.chat_batch(_conversation(self.chat), num, length, label=label)
        else:
            batch = run.empty_batch(num, length, source=self.source, label=label)
        self.write(run, batch, self._facts(batch))

    def _facts(self, batch: Batch) -> dict[str, Any]:
        facts: dict[str, Any] = {"num": self.count, "length": batch.tokens.shape[1]}
        if batch.text_starts is not None:
            facts["length"] = int(batch.target_mask[0].sum())
        given = {"prompt": self.prompt, "chat": self.chat or None}
        return facts | {name: value for name, value in given.items() if value is not None}

    def _print(self, run: TextDiffusion, texts: list[str], bits: list[float] | None) -> None:
        """In a terminal, continuations after their prompt, which is dimmed."""
        out = console()
        if not (self.prompt and out.is_terminal) or bits:
            super()._print(run, texts, bits)
            return
        for text in texts:
            out.print(self.prompt, style="dim", end="", markup=False, highlight=False, soft_wrap=True)
            out.print(text, markup=False, soft_wrap=True)
            if "\n" in self.prompt + text and len(texts) > 1:
                print_line()

    def _write_file(self) -> None:
        views = ("watch", "html", "gif", "json", "rank", "distinct")
        if used := [name for name in views if getattr(self, name)] + ["best-of"] * (self.candidates > 1):
            raise UserError(f"--{used[0]} shows or chooses texts, which --input does not; leave it out.")
        if self.source is not None:
            raise UserError('--source has no effect with --input; give each line its own "source".')
        check_folders(output=self.output)
        from ..inference.options import SamplingOptions
        from ..inference.requests import read_requests
        from ..inference.results import ResultOptions, write_results

        requests = read_requests(Path(self.input))
        run = self.load()
        options = ResultOptions(
            SamplingOptions(**self._sampling()), self.count, self.length or None, self.stop, self.label or None
        )
        with status("Writing ...") as show:
            progress = _Progress(show)
            done = write_results(run, requests, Path(self.output), options, progress)
        already = f", {done:,} of them before" if done else ""
        print_line(f"{self.output} has {len(requests):,} results{already}.")


class _Progress:
    """Shows how far the results are: in the status line of a terminal, else in a line now and then."""

    def __init__(self, show: Any) -> None:
        self.show, self.last = show, time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        text = f"Writing: {done:,} of {total:,} results"
        self.show(text)
        if time.monotonic() - self.last > SECONDS and not sys.stderr.isatty():
            self.last = time.monotonic()
            note(text)


def _conversation(chat: str) -> str | Conversation:
    """The message, or the messages of a file that it names."""
    if not chat.endswith(".jsonl"):
        return chat
    from ..core.reading import parse_json, read_text

    lines = read_text(chat).splitlines()
    records = [parse_json(line, f"{chat}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if len(records) == 1 and isinstance(records[0], dict) and "messages" in records[0]:
        return records[0]["messages"]
    if any(isinstance(record, dict) and "messages" in record for record in records):
        raise UserError(f"{chat} has {len(records)} conversations; answer them with --input {chat} --output FILE.")
    return records
