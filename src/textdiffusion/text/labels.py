"""Labelled texts from a file."""

from __future__ import annotations

from pathlib import Path

from ..errors import UserError
from .sources import decoded
from .tables import lines

COLUMNS = "text", "label"


def read_labelled(path: str | Path) -> list[tuple[str, str]]:
    """Texts with their labels: the fields `text` and `label` of .csv and .jsonl; of other files lines `text TAB
    label`, whose texts have no tabs.

    Raises UserError for a file that cannot be read, a record without one of the two, and fewer than two labels.
    """
    path = Path(path)
    kind = ends if (ends := path.suffix.lower()) in (".csv", ".jsonl") else ".tsv"
    columns = COLUMNS if kind == ".tsv" else None
    try:
        with path.open("rb") as file:
            records = lines(path, kind, decoded(path, file, "utf-8"), ("text", "", "label"), columns)
            found = [(text, label) for text, _, label in records]
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None
    for number, record in enumerate(found, 1):
        if "" in record:
            raise UserError(f"Record {number} of {path} has an empty text or label.")
    if columns and found[:1] == [COLUMNS]:
        found = found[1:]  # a line that names the columns
    labels = {label for _, label in found}
    if len(labels) < 2:
        raise UserError(f"{path} has {len(labels)} labels; a classifier needs at least two.")
    return found
