"""From words to a command's options: tyro's parsing, with errors of one or two sentences."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar, runtime_checkable

import tyro

from ..core.errors import UserError
from ..core.files import check_target

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
        raise UserError(_sentence(printed.getvalue(), prog)) from None


def check_folders(**paths: str) -> None:
    """Raises UserError for an option whose path, if any, cannot be a new file: no such folder, a link, a device."""
    for option, path in paths.items():
        if path:
            check_target(path)
        if path and not (folder := Path(path).absolute().parent).is_dir():
            raise UserError(f"--{option} is {path}, but there is no folder {folder}.")


def _check_options(command: type[Any], words: Sequence[str], prog: str) -> None:
    """Refuses unknown options: tyro's message is a page, and names no close match where other options are missing."""
    options = [f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(command)] + ["--help", "-h"]
    for word in words:
        if word == "--":
            return
        option = word.partition("=")[0].replace("_", "-")
        if word.startswith("--") and option not in options:
            close = get_close_matches(option, options, 1)
            hint = f"did you mean {close[0]}?" if close else f"{prog} --help lists the options."
            raise UserError(f"There is no option {word.partition('=')[0]}; {hint}")


def _sentence(box: str, prog: str) -> str:
    """The first statement of tyro's framed message, as a sentence of ours."""
    # A title, perhaps a rule, the statement, a rule, advice; the frame is of Unicode lines or of ASCII.
    rows = [re.sub(r"[│╰╯]", " ", line).rstrip() for line in box.splitlines()[1:]]
    is_rule = [not row.strip(" ─-") for row in rows]
    start = is_rule.index(False)
    end = is_rule.index(True, start) if True in is_rule[start:] else len(rows)
    statement = rows[start:end]
    if statement[0].strip().startswith("Missing from"):
        return f"{_missing(statement)} missing. {prog} --help lists the options."
    text = " ".join(row.strip() for row in statement).rstrip(".")
    if match := re.fullmatch(
        r"Error parsing (\S+): (?:invalid literal|could not convert|Could not find).*?: (.*)", text
    ):
        number = "a whole number" if re.search(r"\bINT\b", box) else "a number"
        value, several = (match[2], "") if match[2][0] != "[" else (match[2].strip("[]"), "each ")
        return f"{match[1]} is {value}; {several or 'it '}must be {number}."
    if match := re.fullmatch(
        r"Error parsing (\S+): no type matching (?:\{None\}\|)?(INT|FLOAT) .* from \[(.*)\]", text
    ):
        number = "a whole number" if match[2] == "INT" else "a number"
        return f"{match[1]} is {match[3]}; it must be {number}."
    if match := re.fullmatch(r"invalid choice (.*) for argument '(.*)'\. Expected one of \((.*)\)", text):
        *choices, last = re.findall(r"'(.*?)'", match[3])
        return f"{match[2]} is {match[1]}; it can be {', '.join(choices)} or {last}."
    if match := re.fullmatch(r"Missing value for argument '(.*)'\..*", text):
        return f"{match[1]} needs a value."
    if match := re.fullmatch(r"Unrecognized options: (.*)", text):
        return f"Unexpected argument: {match[1]}. {prog} --help lists the options."
    return f"{text}. {prog} --help lists the options."


def _missing(statement: Sequence[str]) -> str:
    """The names of required options that are missing, and the verb."""
    margin = len(statement[0]) - len(statement[0].lstrip()) + 4  # of names; their help is indented by more
    names = [row.split()[0] for row in statement[1:] if len(row) - len(row.lstrip()) == margin]
    if len(names) == 1:
        return f"{names[0]} is"
    return f"{', '.join(names[:-1])} and {names[-1]} are"
