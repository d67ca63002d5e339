r"""Templates: text with gaps, such as "The [MASK:5] pear is [MASK:8]."

`[MASK:5]` is a gap of five tokens of the run's tokenizer, `[MASK]` of one; `\[MASK` is the literal text `[MASK`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch

from .batch import Batch
from .errors import UserError
from .text.tokenizers import Tokenizer

LONGEST = 100_000  # tokens in one gap

_GAP = re.compile(r"\\\[MASK|\[MASK([^\[\]]*)(\]?)")


def parse(template: str) -> list[str | int]:
    """The pieces of a template: given text, and gaps as their number of tokens.

    Raises UserError at a gap without a closing bracket or with a count that is no whole number of at least 1, and at a
    template without a gap.
    """
    pieces: list[str | int] = []
    text, end = "", 0
    for found in _GAP.finditer(template):
        text += template[end : found.start()]
        end = found.end()
        if found[0].startswith("\\"):
            text += "[MASK"
            continue
        pieces += [text] if text else []
        pieces.append(_count(found[0], found[1], bool(found[2])))
        text = ""
    text += template[end:]
    if not pieces:
        raise UserError(f"The template {template!r} has no gap; write one as [MASK] or [MASK:5].")
    return pieces + ([text] if text else [])


def _count(gap: str, inside: str, closed: bool) -> int:
    if not closed:
        raise UserError(f"{gap!r} in the template has no closing bracket; \\[MASK is the literal text.")
    if not inside:
        return 1
    if not re.fullmatch(r":[0-9]+", inside) or not 1 <= int(inside[1:]) <= LONGEST:
        raise UserError(
            f"{gap!r} in the template is no gap: write [MASK] or [MASK:N] with N from 1 to {LONGEST}; "
            "\\[MASK is the literal text."
        )
    return int(inside[1:])


def encode(template: str, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Ids (0 in gaps) and which of them are given. Raises UserError as `parse`, and for text the tokenizer lacks."""
    ids, given = [], []
    for piece in parse(template):
        part = np.zeros(piece, dtype=np.int64) if isinstance(piece, int) else tokenizer.encode(piece)
        ids.append(part)
        given.append(np.full(len(part), not isinstance(piece, int)))
    return np.concatenate(ids), np.concatenate(given)


def batch(
    templates: Sequence[str],
    tokenizer: Tokenizer,
    before: np.ndarray | None = None,
    *,
    num: int = 1,
    ended: bool = False,
    padded_to: int = 0,
) -> Batch:
    """`num` rows of each template in turn, as `laid_out` lays them out, after the given tokens `before`.

    Raises UserError as `encode` does.
    """
    first = np.zeros(0, dtype=np.int64) if before is None else before
    rows = [
        (np.append(first, ids), np.append(np.ones_like(first, dtype=bool), given))
        for ids, given in (encode(template, tokenizer) for template in templates)
    ]
    return laid_out(rows, tokenizer, num=num, ended=ended, padded_to=padded_to)


def laid_out(
    rows: Sequence[tuple[np.ndarray, np.ndarray]],
    tokenizer: Tokenizer,
    *,
    num: int = 1,
    ended: bool = False,
    padded_to: int = 0,
) -> Batch:
    """`num` copies of each row of ids (with which of them are given) in turn, numbered from 0 for each, so that a row's
    draws depend on nothing else.

    `ended`: an end token is given after the text, as in runs whose examples end. `padded_to`: rows are filled up to so
    many tokens with given padding, as in runs that model it; else shorter rows are padded with positions that are not
    `real`.
    """
    if ended:
        assert tokenizer.end_id is not None
        rows = [(np.append(ids, tokenizer.end_id), np.append(given, True)) for ids, given in rows]
    length = max([padded_to, *(len(ids) for ids, _ in rows)])
    ids = np.full((len(rows), length), tokenizer.pad_id or 0, dtype=np.int64)
    given, real = np.ones(ids.shape, dtype=bool), np.zeros(ids.shape, dtype=bool)
    for row, (tokens, known) in enumerate(rows):
        ids[row, : len(tokens)], given[row, : len(tokens)], real[row, : len(tokens)] = tokens, known, True
    modelled = bool(padded_to) or bool(real.all())

    def repeated(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).repeat_interleave(num, dim=0)

    return Batch(
        ids=repeated(ids),
        real=None if modelled else repeated(real),
        given=repeated(given),
        rows=torch.arange(num).repeat(len(rows)),
    )
