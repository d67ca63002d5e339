"""Cells, keys and tables of a page, as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from . import palette


def colour(number: int, of: int) -> str:
    """Of a run by its rank: a step of the one scale of colours."""
    return f"var(--c{round(number * (palette.LEVELS - 1) / max(1, of - 1))})"


def key(number: int, of: int) -> str:
    """The rank of a run in its colour."""
    return f'<span class="key" style="--at:{colour(number, of)}">{number + 1}</span>'


def table(name: str, columns: Sequence[tuple[str, str]], rows: Sequence[str], references: Sequence[str]) -> str:
    """A table in a box of its own width. Columns are a title and a unit (empty: words); rows are cells in HTML."""
    head = "".join(
        f'<th scope="col" aria-sort="none"{"" if unit else " class=word"}>'
        f'<button type="button">{escape(title)}</button><small>{escape(unit)}</small></th>'
        for title, unit in columns
    )
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    apart = "".join(f"<tr>{row}</tr>" for row in references)
    return (
        f'<div class="box" tabindex="0" role="region" aria-label="{escape(name)}"><table>'
        f"<caption>{escape(name)}</caption>"
        f'<thead><tr>{head}</tr></thead><tbody>{body}</tbody><tbody class="apart">{apart}</tbody></table></div>'
    )


def word(text: str) -> str:
    """A cell of text."""
    return f'<td class="word">{escape(text)}</td>'


def cell(value: float | int | None, form: str = ".4g", sign: str = "", flag: str = "") -> str:
    """A number in the format `form`; what cannot be sorted comes last."""
    text = "–" if value is None else f"{sign}{value:{form}}"
    mark = f' <abbr title="{escape(flag, quote=True)}">!</abbr>' if flag else ""
    return f'<td data-v="{"" if value is None else value}">{text}{mark}</td>'
