"""Tables and keys of a page, as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ...views.palette import LEVELS


def colour(number: int, of: int) -> str:
    """The colour of series `number` of `of`, from the scale of confidence."""
    return f"var(--c{round(number * (LEVELS - 1) / max(1, of - 1))})"


def key(number: int, of: int) -> str:
    """The number of a run, from 1, in its colour."""
    return f'<span class="key" style="--colour:{colour(number, of)}">{number + 1}</span>'


def run_cell(number: int, of: int, name: str) -> str:
    """The head of a run's row: its key and its name."""
    return f'<th scope="row">{key(number, of)} {escape(name)}</th>'


def details(summary: str, content: str) -> str:
    """Content that a click on the summary unfolds."""
    return f"<details><summary>{summary}</summary>{content}</details>"


def table(name: str, columns: Sequence[tuple[str, str]], rows: Sequence[str], references: Sequence[str] = ()) -> str:
    """A table that scrolls in its box. Columns are a title and a unit (empty: text); rows are cells in HTML."""
    head = "".join(
        f'<th scope="col" aria-sort="none"{"" if unit else " class=word"}>'
        f'<button type="button">{escape(title)}</button>'
        + f"<small>{'<br/>'.join(map(escape, unit.split('; ')))}</small></th>"
        for title, unit in columns
    )
    body, apart = ("".join(f"<tr>{row}</tr>" for row in part) for part in (rows, references))
    return (
        f'<div class="box" tabindex="0" role="region" aria-label="{escape(name)}"><table>'
        f"<caption>{escape(name)}</caption>"
        f'<thead><tr>{head}</tr></thead><tbody>{body}</tbody><tbody class="apart">{apart}</tbody></table></div>'
    )


def text_cell(text: str) -> str:
    """A cell of text."""
    return f'<td class="word">{escape(text)}</td>'


def number_cell(value: float | int | None, spec: str = ".4g", sign: str = "", warning: str = "") -> str:
    """A number with a format, and a mark `!` that explains itself. A missing value sorts last."""
    text = "–" if value is None else f"{sign}{value:{spec}}"
    mark = f' <abbr title="{escape(warning, quote=True)}">!</abbr>' if warning else ""
    return f'<td data-v="{"" if value is None else value}">{text}{mark}</td>'
