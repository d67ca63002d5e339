"""Steps as plain data, which every view draws."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from ..core.batch import Batch, GivenText
from ..core.terminal import BROKEN
from ..core.types import Mask
from ..data.tokenizers.base import Tokenizer
from ..samplers.base import Step

_MAX_WIDTH = 4  # tokens of one character: UTF-8 has at most four bytes


class State(StrEnum):
    """The state of a position at a step."""

    UNDECIDED = "undecided"
    DECIDED = "decided"
    GIVEN = "given"
    CHANGED = "changed"  # decided, and not the token of the frame before


class Cell(NamedTuple):
    """One position. If several tokens make up one character, the first has its text and the others have none."""

    text: str
    confidence: float  # 0 to 1, two decimals
    state: State


@dataclass(frozen=True)
class Frame:
    """A `Step` without tensors: numbers and strings only, so `json.dumps(dataclasses.asdict(frame))` works."""

    index: int
    total: int
    t: float
    calls: float
    rows: tuple[tuple[Cell, ...], ...]

    @property
    def status(self) -> str:
        """The step, the noise level t and the network calls so far, in one line."""
        calls = f", {self.calls:.4g} network calls" if self.calls else ""
        return f"step {self.index}/{self.total}, noise {self.t:.0%}{calls}"


Row = tuple[list[int], list[str], tuple[Cell, ...]]
"""The token ids of a row, their texts and their cells."""

_UNDECIDED = Cell("", 0.0, State.UNDECIDED)


GivenTexts = Sequence[Sequence[GivenText]]
"""For each row the text that the user gave."""


def given_texts(batch: Batch) -> GivenTexts:
    """The given text of each row of a batch; empty where there is none."""
    return [] if batch.template_ids is None else [batch.given_texts[i] for i in batch.template_ids.tolist()]


class Framer:
    """Turns steps into frames. A position is `CHANGED` relative to the last frame, so steps may be skipped.

    `given` marks the positions that the user fixed, and `texts` are what was given, which tokens may spell differently.
    An id >= `tokenizer.vocab_size` means undecided.
    """

    def __init__(self, tokenizer: Tokenizer, given: Mask | None = None, texts: GivenTexts = ()) -> None:
        self._spelling, self._given_texts = Spelling(tokenizer), texts
        self._given: list[list[bool]] = [] if given is None else given.tolist()
        self._previous: list[Row] = []

    def frame(self, step: Step, max_rows: int | None = None) -> Frame:
        """The frame of `step`, or of its first `max_rows` rows."""
        pairs = zip(step.tokens[:max_rows].tolist(), step.confidence[:max_rows].float().tolist(), strict=True)
        rows = [self._row(number, ids, confidence) for number, (ids, confidence) in enumerate(pairs)]
        self._previous = rows
        return Frame(step.index, step.total, float(step.t), float(step.nfe), tuple(cells for _, _, cells in rows))

    def _row(self, number: int, ids: list[int], confidence: list[float]) -> Row:
        is_known = number < len(self._previous)
        old_ids, old_texts, old_cells = self._previous[number] if is_known else ([], [], ())
        given = self._given[number] if number < len(self._given) else []
        texts = old_texts if ids == old_ids else self._texts(number, ids)
        cells: list[Cell] = []
        for i, (id, text, probability) in enumerate(zip(ids, texts, confidence, strict=True)):
            if id >= self._spelling.vocab_size:
                cells.append(_UNDECIDED)
                continue
            if i < len(given) and given[i]:
                state = State.GIVEN
            elif is_known and (i >= len(old_ids) or old_ids[i] != id):
                state = State.CHANGED
            else:
                state = State.DECIDED
            cell = Cell(text, round(probability, 2), state)
            # Frames share the cells that did not change, which takes a tenth of the memory.
            cells.append(old_cells[i] if i < len(old_cells) and old_cells[i] == cell else cell)
        return ids, texts, tuple(cells)

    def _texts(self, number: int, ids: list[int]) -> list[str]:
        start = self._after_source(number, ids)
        texts = self._spelling.texts(ids[:start]) + self._spelling.texts(ids[start:])
        for part in self._given_texts[number] if number < len(self._given_texts) else ():
            if part.stop > part.start:
                texts[part.start : part.stop] = [part.text, *[""] * (part.stop - part.start - 1)]
            if part.spaced and part.stop < len(texts):
                texts[part.stop] = texts[part.stop].removeprefix(" ")
        return texts

    def _after_source(self, number: int, ids: list[int]) -> int:
        """Where the text begins: after the end token of a source, which is among the tokens given at the start."""
        given = self._given[number] if number < len(self._given) else []
        first_free = given.index(False) if False in given else 0
        end = self._spelling.end_id
        return ids.index(end) + 1 if end is not None and end in ids[:first_free] else 0


def frames(steps: Iterable[Step], tokenizer: Tokenizer, given: Mask | None = None) -> Iterator[Frame]:
    """One frame per step."""
    framer = Framer(tokenizer, given)
    return (framer.frame(step) for step in steps)


class Spelling:
    """Splits the decoded text of a row into one piece per token.

    A token's piece is what it adds to the text of the token before it, so spaces between words, `##` joins and the
    bytes of one character come out right.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.vocab_size = tokenizer.vocab_size
        self.end_id = tokenizer.end_id
        self._decode = tokenizer.decode
        self._added = lru_cache(maxsize=1 << 17)(self._add)  # decoding is slow, and pairs of tokens repeat

    def texts(self, ids: Sequence[int]) -> list[str]:
        """One piece per position: "" where undecided, at and after the end token, and inside a character."""
        texts = [""] * len(ids)
        before: tuple[int, ...] | None = ()  # tokens of the last piece; None: an undecided position lies between
        i = 0
        while i < len(ids) and ids[i] != self.end_id:
            if ids[i] >= self.vocab_size:
                before, width = None, 1
            else:
                width, texts[i] = self._piece(ids, i, before)
                if texts[i] and BROKEN not in texts[i]:
                    before = tuple(ids[i : i + width])
            i += width
        return texts

    def _piece(self, ids: Sequence[int], start: int, before: tuple[int, ...] | None) -> tuple[int, str]:
        """The number of tokens from `start` that make up complete characters, and their text."""
        for width in range(1, _MAX_WIDTH + 1):
            group = tuple(ids[start : start + width])
            if len(group) < width or group[-1] >= self.vocab_size or group[-1] == self.end_id:
                break
            text = self._added(before, group)
            if BROKEN not in text:
                return width, text
        return 1, self._added(before, (ids[start],))

    def _add(self, before: tuple[int, ...] | None, group: tuple[int, ...]) -> str:
        # After a gap the group follows a copy of itself: a word keeps the space before it, a `##` piece has none.
        head = self._decode(group if before is None else before) if before != () else ""
        text = self._decode((group if before is None else before) + group)
        return text[len(head) :] if text.startswith(head) else self._decode(group)


def evenly(total: int, count: int) -> list[int]:
    """At most `count` (>= 2) of the numbers 0..total, evenly spaced, including the first and the last."""
    return sorted({round(i * total / (count - 1)) for i in range(count)})
