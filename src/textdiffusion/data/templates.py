r"""Templates: text with gaps, such as "The [MASK:5] pear is [MASK:8]."

`[MASK:5]` is a gap of five tokens of the run's tokenizer, `[MASK]` one whose length the model proposes; `\[MASK` is the
literal text `[MASK`.

Where words carry the space before them, a space before a gap is left to the gap, whose first token must begin with one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool

from ..core.batch import Batch
from ..core.errors import UserError
from .tokenizers.base import Tokenizer

LONGEST = 100_000  # tokens in one gap
OPEN = 0  # instead of a number of tokens: the model proposes it

# What a gap may hold at a position: any text, also the end and padding after it, text that begins with a space.
TEXT, ENDING, SPACED = range(3)

Row = tuple[np.ndarray, np.ndarray, np.ndarray]  # ids (0 in gaps), which are given, which begin with the space before

_GAP = re.compile(r"\\\[MASK|\[MASK([^\[\]]*)(\]?)")


def parse(template: str) -> list[str | int]:
    """The pieces of a template: given text, and gaps as their number of tokens or `OPEN`.

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
        return OPEN
    if not re.fullmatch(r":[0-9]+", inside) or not 1 <= int(inside[1:]) <= LONGEST:
        raise UserError(
            f"{gap!r} in the template is no gap: write [MASK] or [MASK:N] with N from 1 to {LONGEST}; "
            "\\[MASK is the literal text."
        )
    return int(inside[1:])


def numbered(template: str, counts: Sequence[int]) -> str:
    """The template with these numbers of tokens in the gaps that have none, in turn."""
    left = iter(counts)

    def gap(found: re.Match[str]) -> str:
        return f"[MASK:{next(left, 0) or ''}]".replace(":]", "]") if found[0] == "[MASK]" else found[0]

    return _GAP.sub(gap, template)


def encode(template: str, tokenizer: Tokenizer, room: int = 0) -> Row:
    """The row of a template; an open gap at its end takes what is left of `room` tokens, at least one.

    Raises UserError as `parse`, for text the tokenizer lacks, and for an open gap anywhere else.
    """
    parts: list[Row] = []
    pieces, spaced = parse(template), False
    for piece, then in zip(pieces, [*pieces[1:], None], strict=True):
        if isinstance(piece, str):
            spaced = piece.endswith(" ") and isinstance(then, int) and bool(_spaced_tokens(tokenizer).any())
            ids = tokenizer.encode(piece[:-1] if spaced else piece)
            parts.append((ids, np.ones(len(ids), dtype=bool), np.zeros(len(ids), dtype=bool)))
            continue
        if piece == OPEN and then is not None:
            raise UserError(f"Not every gap of {template!r} says how many tokens it has; write [MASK:5].")
        count = piece or max(room - sum(len(ids) for ids, _, _ in parts), 1)
        parts.append((np.zeros(count, dtype=np.int64), np.zeros(count, dtype=bool), (np.arange(count) == 0) & spaced))
        spaced = False
    ids, given, begins = map(np.concatenate, zip(*parts, strict=True))
    return ids, given, begins


def allowed(tokenizer: Tokenizer) -> Bool[np.ndarray, "3 v"]:
    """The tokens that `TEXT`, `ENDING` and `SPACED` allow."""
    table = np.ones((3, tokenizer.vocab_size), dtype=bool)
    table[SPACED] = _spaced_tokens(tokenizer)
    for token in (tokenizer.end_id, tokenizer.pad_id):
        if token is not None:
            table[[TEXT, SPACED], token] = False
    if tokenizer.unk_id is not None:
        table[:, tokenizer.unk_id] = False
    return table


def _spaced_tokens(tokenizer: Tokenizer) -> Bool[np.ndarray, " v"]:
    """Tokens of a space and more."""
    texts = map(tokenizer.token_text, range(tokenizer.vocab_size))
    return np.array([text.startswith(" ") and len(text) > 1 for text in texts])


def batch(
    templates: Sequence[str],
    tokenizer: Tokenizer,
    before: np.ndarray | None = None,
    *,
    num: int = 1,
    ended: bool = False,
    padded_to: int = 0,
    room: int = 0,
) -> Batch:
    """`num` rows of each template in turn, as `laid_out` lays them out, after the given tokens `before`; a row whose
    last gap is open has `room` tokens, among which the model ends the text.

    Raises UserError as `encode` does, and for such a gap where texts have no end.
    """
    first = np.zeros(0, dtype=np.int64) if before is None else before
    given, spaced = np.ones(len(first), dtype=bool), np.zeros(len(first), dtype=bool)
    encoded = [encode(template, tokenizer, room - len(first)) for template in templates]
    rows = [(np.append(first, i), np.append(given, g), np.append(spaced, s)) for i, g, s in encoded]
    opened = [parse(template)[-1] == OPEN for template in templates]
    if any(opened) and not ended:
        raise UserError(
            "This run was trained on a running stream (text.layout=stream), whose texts have no end to propose; say "
            "how many tokens the last gap has, as in [MASK:20]."
        )
    ends = [ended and not each for each in opened]
    return collate(rows, tokenizer, num=num, ended=ends, padded_to=padded_to)


def make_row(before: np.ndarray, free: int) -> Row:
    """Given tokens, and so many free positions after them."""
    count = len(before) + free
    return np.append(before, np.zeros(free, np.int64)), np.arange(count) < len(before), np.zeros(count, dtype=bool)


def collate(
    rows: Sequence[Row], tokenizer: Tokenizer, *, num: int = 1, ended: Sequence[bool] = (), padded_to: int = 0
) -> Batch:
    """`num` copies of each row in turn, numbered from 0 for each, so that a row's draws depend on nothing else.

    `ended` says of each row whether an end token is given after it, as in runs whose examples end. `padded_to`: rows
    are filled up to so many tokens with given padding, as in runs that model it; else shorter rows are padded with
    positions that are not `real`. Free positions with nothing given after them may hold the end and padding.
    """
    marks = [tokenizer.end_id] if tokenizer.end_id is not None else []
    ends = [np.array(marks if end else [], dtype=np.int64) for end in ended] or [np.zeros(0, dtype=np.int64)] * len(
        rows
    )
    length = max([padded_to, *(len(ids) + len(end) for (ids, _, _), end in zip(rows, ends, strict=True))])
    ids = np.full((len(rows), length), tokenizer.pad_id or 0, dtype=np.int64)
    given, real = np.ones(ids.shape, dtype=bool), np.zeros(ids.shape, dtype=bool)
    holds = np.full(ids.shape, TEXT)
    for row, ((tokens, known, spaced), end) in enumerate(zip(rows, ends, strict=True)):
        here = row, slice(len(tokens))
        ids[here], given[here], real[row, : len(tokens) + len(end)] = tokens, known, True
        ids[row, len(tokens) : len(tokens) + len(end)] = end
        last = len(tokens) if len(end) else np.flatnonzero(known).max(initial=-1) + 1
        holds[row, last : len(tokens)] = ENDING
        holds[here][spaced] = SPACED
    modelled = bool(padded_to) or bool(real.all())

    def repeated(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).repeat_interleave(num, dim=0)

    return Batch(
        tokens=repeated(ids),
        valid_mask=None if modelled else repeated(real),
        condition_mask=repeated(given),
        allowed_set_ids=repeated(holds),
        row_ids=torch.arange(num).repeat(len(rows)),
    )
