"""Printing: texts, tables, JSON, notes and status lines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table


def console() -> Console:
    """Standard output: colours only in a terminal, and none under NO_COLOR."""
    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def note(text: str) -> None:
    """Prints a remark on standard error, so that the output can be piped."""
    print(text, file=sys.stderr)


def print_json(data: Any) -> None:
    """Prints JSON, the same bytes for the same data."""
    print(json.dumps(data, indent=2, ensure_ascii=False))


def print_texts(texts: Sequence[str], bits: Sequence[float] | None = None) -> None:
    """Prints texts one after the other: one per line, or under headings where any has several lines.

    `bits` per character, if any, come before a tab or in the heading.
    """
    out = console()
    has_headings = len(texts) > 1 and any("\n" in text for text in texts)
    for number, text in enumerate(texts, 1):
        if has_headings:
            suffix = f", {bits[number - 1]:.3f} bits per character" if bits else ""
            out.print(f"--- {number}{suffix}", style="dim", markup=False)
        if bits and not has_headings:
            sys.stdout.write(f"{bits[number - 1]:.3f}\t")
        if out.is_terminal:
            out.print(text, markup=False, soft_wrap=True)
        else:
            print(text)  # rich would replace tabs by spaces


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table in a terminal; elsewhere one line per row, with tabs between columns."""
    out = console()
    if not out.is_terminal:
        for row in [columns, *rows]:
            print("\t".join(row))
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
    error = Console(stderr=True, highlight=False)
    if not error.is_terminal:
        yield lambda text: None
        return
    with error.status(text) as line:
        yield line.update
