r"""Templates: text with gaps, such as "The [MASK:5] pear is [MASK:8]."

`[MASK:5]` is a gap of five tokens of the run's tokenizer, `[MASK]` an open gap, whose length the model proposes;
`\[MASK` is the literal text `[MASK`. Of several backslashes right before `[MASK` two stand for one: `\\[MASK]` is a
backslash and a gap. Elsewhere a backslash is itself.

The model sees the tokens of the given text, normalised as in training. The result has the given text itself: only the
gaps are decoded (`paste`).

If words of the tokenizer include the space before them, a space before a gap belongs to the gap, whose first token must
begin with one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool

from ..core.batch import Batch, GivenText
from ..core.errors import UserError
from .normalisers import normalise
from .tokenizers.base import Tokenizer

MAX_GAP = 100_000  # tokens
OPEN = 0  # in place of a number of tokens: the model proposes it

# Ids of the allowed sets: any text; text, the end and padding after it; text that begins with a space.
TEXT, ENDING, SPACED = range(3)

_EMPTY = np.zeros(0, dtype=np.int64)
_GAP = re.compile(r"(?P<backslashes>(?:\\\\)*)(?:(?P<literal>\\\[MASK)|\[MASK(?P<inside>[^\[\]]*)(?P<closed>\]?))")


class Row(NamedTuple):
    """Tokens (0 in gaps), which of them are given, and which must begin with the space before a gap.

    `given` is the given text of a template, in order (None: the row is of no template).
    """

    tokens: np.ndarray
    condition_mask: np.ndarray
    spaced: np.ndarray
    given: tuple[GivenText, ...] | None = None


def parse(template: str) -> list[str | int]:
    """The pieces of a template: given text, and gaps as their number of tokens or `OPEN`.

    Raises UserError for a gap without a closing bracket or with an invalid count, and for a template without a gap.
    """
    if any("\ud800" <= character <= "\udfff" for character in template):
        raise UserError("The template has half a character (a lone surrogate), which no text in UTF-8 has; remove it.")
    pieces: list[str | int] = []
    text, end = "", 0
    for match in _GAP.finditer(template):
        text += template[end : match.start()]
        end = match.end()
        text += match["backslashes"][::2]
        if match["literal"]:
            text += "[MASK"
        else:
            pieces += [text] if text else []
            pieces.append(_count(match[0].lstrip("\\"), match["inside"], bool(match["closed"])))
            text = ""
    if not pieces:
        raise UserError(f"The template {template!r} has no gap; write one as [MASK] or [MASK:5].")
    text += template[end:]
    return [*pieces, text] if text else pieces


def has_gap(text: str) -> bool:
    """Whether a text has a gap, so that it is a template."""
    return any(not match["literal"] for match in _GAP.finditer(text))


def escaped(text: str, *, before_gap: bool = False) -> str:
    """A text as part of a template, which is read as the text itself. `before_gap`: a gap follows it."""
    text = re.sub(r"(\\*)\[MASK", r"\1\1\\[MASK", text)
    return text + "\\" * (len(text) - len(text.rstrip("\\"))) if before_gap else text


def gap_tokens(template: str) -> int:
    """The number of tokens in the gaps of a template; an open gap counts as one."""
    return sum(piece or 1 for piece in parse(template) if not isinstance(piece, str))


def _count(gap: str, inside: str, closed: bool) -> int:
    if not closed:
        raise UserError(f"{gap!r} in the template has no closing bracket; for the literal text write \\[MASK.")
    if inside and not (re.fullmatch(r":0*[0-9]{1,9}", inside) and 1 <= int(inside[1:]) <= MAX_GAP):
        raise UserError(
            f"{gap!r} in the template is not a valid gap. Write [MASK] or [MASK:N] with N from 1 to {MAX_GAP}, or "
            "\\[MASK for the literal text."
        )
    return int(inside[1:] or OPEN)


def with_lengths(template: str, counts: Sequence[int]) -> str:
    """The template with these numbers of tokens for its open gaps, in order."""
    remaining = iter(counts)

    def gap(match: re.Match[str]) -> str:
        is_open = not match["literal"] and match["inside"] == "" and match["closed"]
        count = next(remaining, OPEN) if is_open else OPEN
        return f"{match['backslashes']}[MASK:{count}]" if count else match[0]

    return _GAP.sub(gap, template)


def encode(template: str, tokenizer: Tokenizer, max_tokens: int = 0, normaliser: str = "none") -> Row:
    """The row of a template. An open gap at its end gets the rest of `max_tokens`, at least one token.

    Raises UserError as `parse` does, and for an open gap anywhere else.
    """
    pieces = parse(template)
    if OPEN in pieces[:-1]:
        raise UserError(f"Every gap of {template!r} except the last needs its number of tokens, as in [MASK:5].")
    rows: list[Row] = []
    spaced = False
    for i, piece in enumerate(pieces):
        if isinstance(piece, str):
            text = normalise(normaliser, piece)
            spaced = text.endswith(" ") and i + 1 < len(pieces) and bool(begins_with_space(tokenizer).any())
            text = text[:-1] if spaced else text
            row = make_row(tokenizer.encode_continuation(text) if i else tokenizer.encode(text), 0)
            given = GivenText(piece, 0, len(row.tokens), spaced and piece[-1:].isspace())
            rows.append(row._replace(given=(given,)))
        else:
            count = piece or max(max_tokens - sum(len(row.tokens) for row in rows), 1)
            rows.append(make_row(_EMPTY, count)._replace(spaced=(np.arange(count) == 0) & spaced, given=()))
            spaced = False
    return concatenate(rows)


def paste(tokens: Sequence[int], given: Sequence[GivenText], tokenizer: Tokenizer, start: int = 0) -> str:
    """The text of a filled template, from token `start` on: the given text as it is, and the decoded gaps.

    A gap is decoded after what precedes it, so the tokenizer decides on a space between them.
    """
    text, position, spaced = "", start, False
    for each in (*given, None):
        if filled := tokens[position : each.start if each else len(tokens)]:
            gap = tokenizer.added_text(tokens[start:position], filled)
            text += gap.removeprefix(" ") if spaced else gap
        if each is not None:
            text, position, spaced = text + each.text, each.stop, each.spaced
    return text


def allowed_sets(tokenizer: Tokenizer) -> Bool[np.ndarray, "3 v"]:
    """The tokens in the sets `TEXT`, `ENDING` and `SPACED`."""
    table = np.ones((3, tokenizer.vocab_size), dtype=bool)
    table[SPACED] = begins_with_space(tokenizer)
    for token in (tokenizer.end_id, tokenizer.pad_id):
        if token is not None:
            table[[TEXT, SPACED], token] = False
    if tokenizer.unk_id is not None:
        table[:, tokenizer.unk_id] = False
    return table


@lru_cache(maxsize=4)
def begins_with_space(tokenizer: Tokenizer) -> Bool[np.ndarray, " v"]:
    """Tokens that add a space and more text to the text before them."""
    before = tokenizer.encode("a").tolist()[-1:]
    texts = (tokenizer.added_text(before, [token]) for token in range(tokenizer.vocab_size))
    return np.array([text.startswith(" ") and len(text) > 1 for text in texts])


def batch(
    templates: Sequence[str],
    tokenizer: Tokenizer,
    source: np.ndarray | None = None,
    *,
    num: int = 1,
    ended: bool = False,
    padded_to: int = 0,
    max_tokens: int = 0,
    normaliser: str = "none",
) -> Batch:
    """`num` rows for each template, collated, after the given tokens of a `source`.

    With an open last gap a row has `max_tokens` tokens, within which the model ends the text. Raises UserError as
    `encode` does, and for such a gap if texts have no end (`ended` is False).
    """
    prompt = make_row(_EMPTY if source is None else source, 0)
    encoded = (encode(each, tokenizer, max_tokens - len(prompt.tokens), normaliser) for each in templates)
    rows = [concatenate([prompt, row]) for row in encoded]
    ends = [parse(template)[-1] != OPEN for template in templates]
    if not (ended or all(ends)):
        raise UserError(
            "This run was trained on a stream (text.layout=stream), so it cannot propose where a text ends. Give the "
            "last gap a number of tokens, as in [MASK:20]."
        )
    return collate(rows, tokenizer, num=num, ended=[ended and end for end in ends], padded_to=padded_to)


def make_row(given: np.ndarray, num_free: int) -> Row:
    """Given tokens followed by free positions."""
    count = len(given) + num_free
    tokens = np.append(given, np.zeros(num_free, np.int64))
    return Row(tokens, np.arange(count) < len(given), np.zeros(count, dtype=bool))


def concatenate(rows: Sequence[Row]) -> Row:
    """The rows one after the other."""
    starts = np.cumsum([0, *(len(row.tokens) for row in rows)]).tolist()
    given = [
        text._replace(start=text.start + start, stop=text.stop + start)
        for row, start in zip(rows, starts, strict=False)
        for text in row.given or ()
    ]
    is_template = any(row.given is not None for row in rows)
    arrays = (np.concatenate([getattr(row, name) for row in rows]) for name in ("tokens", "condition_mask", "spaced"))
    return Row(*arrays, given=tuple(given) if is_template else None)


def collate(
    rows: Sequence[Row], tokenizer: Tokenizer, *, num: int = 1, ended: Sequence[bool] = (), padded_to: int = 0
) -> Batch:
    """`num` copies of each row in turn, numbered from 0 for each, so that a row's samples depend on nothing else.

    `ended` says for each row whether a given end token follows it, as in runs whose examples end. `padded_to` fills the
    rows up to this length with given padding, as in runs that model it; otherwise the padding of shorter rows is
    outside `valid_mask`. Free positions with nothing given after them may hold the end and padding.
    """
    if tokenizer.end_id is not None:
        end = make_row(np.array([tokenizer.end_id]), 0)
        has_end = ended or [False] * len(rows)
        rows = [concatenate([row, end]) if ends else row for row, ends in zip(rows, has_end, strict=True)]
    length = max([padded_to, *(len(row.tokens) for row in rows)])
    tokens = np.full((len(rows), length), tokenizer.pad_id or 0, dtype=np.int64)
    condition_mask, valid_mask = np.ones(tokens.shape, dtype=bool), np.zeros(tokens.shape, dtype=bool)
    allowed_set_ids = np.full(tokens.shape, TEXT)
    for i, row in enumerate(rows):
        count = len(row.tokens)
        tokens[i, :count], condition_mask[i, :count], valid_mask[i, :count] = row.tokens, row.condition_mask, True
        last_given = np.flatnonzero(row.condition_mask).max(initial=-1)
        allowed_set_ids[i, last_given + 1 : count] = ENDING
        allowed_set_ids[i, :count][row.spaced] = SPACED
    given = tuple(row.given for row in rows if row.given is not None)
    models_padding = bool(padded_to) or bool(valid_mask.all())

    def copies(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).repeat_interleave(num, dim=0)

    return Batch(
        tokens=copies(tokens),
        valid_mask=None if models_padding else copies(valid_mask),
        condition_mask=copies(condition_mask),
        allowed_set_ids=copies(allowed_set_ids),
        row_ids=torch.arange(num).repeat(len(rows)),
        given_texts=given,
        template_ids=copies(np.arange(len(rows))) if given else None,
    )
