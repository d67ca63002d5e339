"""What commands print."""

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
    """Something to know, on standard error, so that output can be piped."""
    print(text, file=sys.stderr)


def print_json(data: Any) -> None:
    """Data as JSON, the same bytes for the same data."""
    print(json.dumps(data, indent=2, ensure_ascii=False))


def print_texts(texts: Sequence[str], bits: Sequence[float] | None = None) -> None:
    """Texts one after the other: a line each, or under a heading where any has several lines; `bits`, if any, are
    before a tab or in the heading."""
    out = console()
    headed = len(texts) > 1 and any("\n" in text for text in texts)
    for number, text in enumerate(texts, 1):
        if headed:
            told = f", {bits[number - 1]:.3f} bits per character" if bits else ""
            out.print(f"--- {number}{told}", style="dim", markup=False)
        if bits and not headed:
            sys.stdout.write(f"{bits[number - 1]:.3f}\t")
        if out.is_terminal:
            out.print(text, markup=False, soft_wrap=True)
        else:
            print(text)  # as it is: rich writes spaces for tabs


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table in a terminal; elsewhere a tab between columns, one row a line."""
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
    """A changing line on standard error while something runs; nothing where that is no terminal. Yields its setter."""
    error = Console(stderr=True, highlight=False)
    if not error.is_terminal:
        yield lambda text: None
        return
    with error.status(text) as line:
        yield line.update
