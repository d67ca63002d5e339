"""From words to a command's options: tyro's parsing, with errors of one or two sentences."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Protocol, TypeVar, runtime_checkable

import tyro

from ..core.errors import UserError

RunName = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]


@runtime_checkable
class Command(Protocol):
    """A frozen dataclass: its fields are the options, `execute` does the work."""

    def execute(self) -> None: ...


C = TypeVar("C", bound=Command)


def parse(command: type[C], words: Sequence[str], prog: str) -> C:
    """The command with its options. Exits after printing `--help`; raises UserError for words that do not fit."""
    _check_options(command, words, prog)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return tyro.cli(
                command, args=list(words), prog=prog, config=(tyro.conf.FlagCreatePairsOff,), use_underscores=False
            )
    except SystemExit as end:
        if not end.code:
            raise
        raise UserError(_reduced(printed.getvalue(), prog)) from None


def _check_options(command: type[Any], words: Sequence[str], prog: str) -> None:
    """tyro's message for an unknown option is a page; and it stays silent about the nearest if others are missing."""
    known = [f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(command)] + ["--help", "-h"]
    for word in words:
        if word == "--":
            return
        option = word.partition("=")[0].replace("_", "-")
        if word.startswith("--") and option not in known:
            close = get_close_matches(option, known, 1)
            hint = f"did you mean {close[0]}?" if close else f"{prog} --help lists them."
            raise UserError(f"There is no option {word.partition('=')[0]}; {hint}")


def _reduced(box: str, prog: str) -> str:
    """The first statement of tyro's framed message, as a sentence."""
    # A title, perhaps a rule, the statement, a rule, advice; the frame is of Unicode lines or of ASCII.
    rows = [re.sub(r"[│╰╯]", " ", line).rstrip() for line in box.splitlines()[1:]]
    rules = [not row.strip(" ─-") for row in rows]
    start = rules.index(False)
    end = rules.index(True, start) if True in rules[start:] else len(rows)
    rows = rows[start:end]
    if rows[0].strip().startswith("Missing from"):
        # Names are indented by 4, their help by more.
        margin = len(rows[0]) - len(rows[0].lstrip()) + 4
        names = [row.strip() for row in rows[1:] if len(row) - len(row.lstrip()) == margin]
        said = f"{', '.join(names)} {'are' if len(names) > 1 else 'is'} missing"
    else:
        said = " ".join(row.strip() for row in rows).rstrip(".")
    return f"{said}. {prog} --help shows what is allowed."
