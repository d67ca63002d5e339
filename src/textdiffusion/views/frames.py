"""Steps as plain data: what every view draws."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, lru_cache
from typing import NamedTuple

from jaxtyping import Bool
from torch import Tensor

from ..data.tokenizers.base import Tokenizer
from ..samplers.base import Step

_WIDEST = 4  # tokens that may share one character: UTF-8 has at most four bytes


_BROKEN = "\N{REPLACEMENT CHARACTER}"


class State(StrEnum):
    """What became of a position at this step."""

    UNDECIDED = "undecided"
    DECIDED = "decided"
    GIVEN = "given"
    CHANGED = "changed"  # decided, to another token than in the frame before


class Cell(NamedTuple):
    """One position. Where several tokens make up one character, the first has its text and the others have none."""

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
        """Where this frame stands, in one line: the step, the noise in the state (1 - t is gone), the network calls."""
        calls = f", {self.calls:.4g} network calls" if self.calls else ""
        return f"step {self.index}/{self.total}, noise {self.t:.0%}{calls}"


_NOTHING = Cell("", 0.0, State.UNDECIDED)


class Framer:
    """Turns steps into frames; a position is `CHANGED` against the last step it was shown, so steps may be skipped.

    `given` marks the positions that the user fixed. An id `>= tokenizer.vocab_size` is an undecided position.
    """

    def __init__(self, tokenizer: Tokenizer, given: Bool[Tensor, "b l"] | None = None) -> None:
        self._spelling = Spelling(tokenizer)
        self._given: list[list[bool]] = [] if given is None else given.tolist()
        self._before: list[tuple[list[int], list[str], tuple[Cell, ...]]] = []

    def frame(self, step: Step, most: int | None = None) -> Frame:
        """The frame of `step`, of its first `most` rows only (None: all)."""
        pairs = zip(step.tokens[:most].tolist(), step.confidence[:most].float().tolist(), strict=True)
        shown = [self._row(number, ids, confidence) for number, (ids, confidence) in enumerate(pairs)]
        self._before = shown
        return Frame(step.index, step.total, float(step.t), float(step.nfe), tuple(cells for _, _, cells in shown))

    def _row(
        self, number: int, ids: list[int], confidence: list[float]
    ) -> tuple[list[int], list[str], tuple[Cell, ...]]:
        old = number < len(self._before)
        old_ids, old_texts, old_cells = self._before[number] if old else ([], [], ())
        given = self._given[number] if number < len(self._given) else []
        texts = old_texts if ids == old_ids else self._spelling.texts(ids)
        cells: list[Cell] = []
        for i, (id, text, probability) in enumerate(zip(ids, texts, confidence, strict=True)):
            if id >= self._spelling.vocab_size:
                cells.append(_NOTHING)
                continue
            if i < len(given) and given[i]:
                state = State.GIVEN
            elif old and (i >= len(old_ids) or old_ids[i] != id):
                state = State.CHANGED
            else:
                state = State.DECIDED
            cell = Cell(text, round(probability, 2), state)
            # Long runs of frames share the cells that did not change: less memory by an order of magnitude.
            cells.append(old_cells[i] if i < len(old_cells) and old_cells[i] == cell else cell)
        return ids, texts, tuple(cells)


def frames(steps: Iterable[Step], tokenizer: Tokenizer, given: Bool[Tensor, "b l"] | None = None) -> Iterator[Frame]:
    """One frame a step."""
    framer = Framer(tokenizer, given)
    return (framer.frame(step) for step in steps)


class Spelling:
    """Splits the text of a row over its tokens, so that the pieces read as the tokenizer decodes the whole.

    A token's piece is what it adds to the text of the token before it: spaces between words, `##` joins and the bytes
    of one character come out right.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.vocab_size = tokenizer.vocab_size
        self._end = tokenizer.end_id
        self._decode = tokenizer.decode
        self._added = lru_cache(maxsize=1 << 17)(self._add)  # decoding is slow, and pairs of tokens recur

    def texts(self, ids: Sequence[int]) -> list[str]:
        """One piece a position: "" where undecided, at and after the end token, and inside a character."""
        texts = [""] * len(ids)
        before: tuple[int, ...] | None = ()  # the tokens of the last piece; None: an undecided position is in between
        i = 0
        while i < len(ids) and ids[i] != self._end:
            if ids[i] >= self.vocab_size:
                before, width = None, 1
            else:
                width, texts[i] = self._piece(ids, i, before)
                if texts[i] and _BROKEN not in texts[i]:
                    before = tuple(ids[i : i + width])
            i += width
        return texts

    def _piece(self, ids: Sequence[int], start: int, before: tuple[int, ...] | None) -> tuple[int, str]:
        """How many tokens from `start` make up whole characters, and their text."""
        for width in range(1, _WIDEST + 1):
            group = tuple(ids[start : start + width])
            if len(group) < width or group[-1] >= self.vocab_size or group[-1] == self._end:
                break
            text = self._added(before, group)
            if _BROKEN not in text:
                return width, text
        return 1, self._added(before, (ids[start],))

    def _add(self, before: tuple[int, ...] | None, group: tuple[int, ...]) -> str:
        # After a gap the group stands after itself: a word keeps the space before it, a `##` piece has none.
        head = self._decode(group if before is None else before) if before != () else ""
        text = self._decode((group if before is None else before) + group)
        return text[len(head) :] if text.startswith(head) else self._decode(group)


def visible(text: str, keep: str = "") -> str:
    """`text` with a sign for each character that has no glyph or would steer the screen, but for those in `keep`."""
    return text if text.isprintable() else "".join(c if c in keep else _sign(c) for c in text)


@cache
def _sign(character: str) -> str:
    if character == "\n":
        return "⏎"
    if character == "\t":
        return "⇥"
    if character < " ":
        return chr(0x2400 + ord(character))  # the control pictures
    category = unicodedata.category(character)
    if category == "Cs":
        return _BROKEN
    joiner = character in "\u200c\u200d"  # emoji and several scripts need them
    return "·" if category in ("Cc", "Zl", "Zp") or (category == "Cf" and not joiner) else character


def evenly(total: int, count: int) -> list[int]:
    """At most `count` (>= 2) of the numbers 0..total, evenly spaced, first and last among them."""
    return sorted({round(i * total / (count - 1)) for i in range(count)})


LEVELS = 10


def level(confidence: float) -> int:
    """The step of the ramp, 0 to LEVELS - 1, for a confidence of 0 to 1."""
    return max(0, min(int(confidence * LEVELS), LEVELS - 1))


def _ramp(*anchors: int) -> tuple[str, ...]:
    """LEVELS colours "#rrggbb", interpolated between `anchors` (0xrrggbb)."""
    colours = []
    for i in range(LEVELS):
        place = i * (len(anchors) - 1) / (LEVELS - 1)
        left = min(int(place), len(anchors) - 2)
        mixed = [
            round(
                (anchors[left] >> shift & 255) * (1 - place + left)
                + (anchors[left + 1] >> shift & 255) * (place - left)
            )
            for shift in (16, 8, 0)
        ]
        colours.append("#{:02x}{:02x}{:02x}".format(*mixed))
    return tuple(colours)


# Blue to amber by way of violet can be told apart with any kind of colour vision.
ON_DARK = _ramp(0x5C9DFF, 0xA98BF5, 0xEE86B7, 0xFF9A62, 0xFFC24D)


ON_LIGHT = _ramp(0x1A5FC4, 0x6A43B8, 0xA02F7B, 0xA93C1C, 0x945000)


ON_ANY = _ramp(0x2F7BE0, 0x8A63D8, 0xC2529B, 0xCE5A36, 0xB26B00)  # a terminal does not tell its background


DARK, LIGHT = "#14161b", "#ffffff"  # the backgrounds
