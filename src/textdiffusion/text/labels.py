"""Labelled texts from a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from ..errors import UserError


def labelled(path: str | Path) -> list[tuple[str, str]]:
    """Texts with their labels: lines `text TAB label`; of JSON with `text` and `label` where the name ends in .jsonl.

    Raises UserError for a file that cannot be read, a line that is neither, and fewer than two labels.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from None
    found = list(_rows(path, lines))
    labels = {label for _, label in found}
    if len(labels) < 2:
        raise UserError(f"{path} has {len(labels)} labels; a classifier needs at least two.")
    return found


def _rows(path: Path, lines: list[str]) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if path.suffix == ".jsonl":
            try:
                row = json.loads(line)
                text, label = row["text"], str(row["label"])
            except (ValueError, KeyError, TypeError):
                raise UserError(f'Line {number} of {path} is not of the form {{"text": ..., "label": ...}}.') from None
        else:
            text, tab, label = line.rpartition("\t")
            if not tab:
                raise UserError(f"Line {number} of {path} has no tab; it must be a text, a tab and its label.")
        if not text or not label:
            raise UserError(f"Line {number} of {path} has an empty text or label.")
        yield text, label
