"""Printing: texts, tables, JSON, notes and status lines.

Every command prints with these functions, so that no text, name or error steers the terminal (`core.terminal`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.table import Table

from ..core.terminal import LAYOUT, TextConsole, encodable, visible


def console() -> TextConsole:
    """Standard output: colours only in a terminal, and none under NO_COLOR."""
    return TextConsole(soft_wrap=not sys.stdout.isatty())


def print_line(text: str = "", end: str = "\n") -> None:
    """Prints a line, or several."""
    sys.stdout.write(_shown(text, sys.stdout) + end)


def note(text: str) -> None:
    """Prints a remark on standard error, so that the output can be piped."""
    sys.stderr.write(_shown(text, sys.stderr) + "\n")


def _shown(text: str, stream: Any) -> str:
    return encodable(visible(text, LAYOUT), stream.encoding)


def print_json(data: Any) -> None:
    """Prints JSON in ASCII, the same bytes for the same data."""
    print(json.dumps(data, indent=2))


def print_texts(texts: Sequence[str], bits: Sequence[float] | None = None) -> None:
    """Prints texts one after the other: one per line, or under headings where any has several lines.

    `bits` per character, if any, come before a tab or in the heading. In a pipe the texts are data: only what its
    encoding lacks is replaced.
    """
    out = console()
    has_headings = len(texts) > 1 and any("\n" in text for text in texts)
    for number, text in enumerate(texts, 1):
        if has_headings:
            suffix = f", {bits[number - 1]:.3f} bits per character" if bits else ""
            out.print(f"--- {number}{suffix}", style="dim", markup=False)
        if bits and not has_headings:
            print_line(f"{bits[number - 1]:.3f}", end="\t")
        if out.is_terminal:
            out.print(text, markup=False, soft_wrap=True)
        else:
            print(encodable(text, sys.stdout.encoding))  # rich would replace tabs by spaces


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table in a terminal; elsewhere one line per row, with tabs between columns."""
    out = console()
    if not out.is_terminal:
        for row in [columns, *rows]:
            print_line("\t".join(row))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    out.print(table)


@contextmanager
def status(text: str) -> Iterator[Any]:
    """A status line on standard error while the block runs, only in a terminal. Yields the function that changes it."""
    error = TextConsole(stderr=True)
    if not error.is_terminal:
        yield lambda text: None
        return
    with error.status(text) as line:
        yield line.update
