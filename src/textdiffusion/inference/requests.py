"""Requests in a file of JSON lines: prompts, conversations and templates, one a line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.batch import Batch
from ..core.errors import UserError
from ..core.reading import parse_json, read_text
from ..data.chat import parse_messages
from .api import TextDiffusion

KINDS = ("prompt", "messages", "template")
MAX_INPUT = 2 << 30  # bytes


@dataclass(frozen=True)
class Request:
    """What a line asks for: a prompt, messages or a template, after the source of a conditional run if it has one."""

    id: str | int
    prompt: str = ""
    messages: tuple[Mapping[str, str], ...] = ()
    template: str = ""
    source: str | None = None

    def batch(self, run: TextDiffusion, num: int, length: int | None, label: str | None, seed: int) -> Batch:
        """Its `num` rows. Raises UserError that names its id."""
        try:
            if self.template:
                return run.infill_batch(self.template, num, source=self.source, label=label, seed=seed)
            if self.messages:
                return run.chat_batch(self.messages, num, length, label=label)
            return run.prompt_batch(self.prompt, num, length, source=self.source, label=label)
        except UserError as error:
            raise UserError(f"Request {self.id!r}: {error}") from None


def read_requests(path: Path) -> list[Request]:
    """The requests of a file; blank lines are left out. A line without an id has its number.

    Raises UserError for a file that is not JSON lines, and for a line that does not ask for exactly one thing.
    """
    return list(_requests(path))


def _requests(path: Path) -> Iterator[Request]:
    for number, line in enumerate(read_text(path, limit=MAX_INPUT).splitlines(), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            yield _request(parse_json(line, where), number, where)


def _request(record: Any, number: int, where: str) -> Request:
    if not isinstance(record, dict):
        raise UserError(f'{where} is not a JSON object such as {{"prompt": "Once upon"}}.')
    if not isinstance(id := record.get("id", number), str | int):
        raise UserError(f"{where}: the id must be a text or a number.")
    kinds = [kind for kind in KINDS if kind in record]
    if len(kinds) > 1 or not (kinds or "source" in record):
        raise UserError(f"{where} must have one of {', '.join(KINDS)}; it has {' and '.join(kinds) or 'none'}.")
    texts = {name: record[name] for name in ("prompt", "template", "source") if name in record}
    if wrong := next((name for name, value in texts.items() if not isinstance(value, str)), None):
        raise UserError(f"{where}: {wrong} must be a text.")
    if "template" in texts and not texts["template"]:
        raise UserError(f"{where}: the template is empty.")
    messages = parse_messages(record["messages"], f"{where}: messages") if "messages" in record else ()
    if messages and "source" in texts:
        raise UserError(f"{where}: messages take no source.")
    return Request(id, messages=tuple(message._asdict() for message in messages), **texts)
