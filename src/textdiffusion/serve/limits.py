"""What a client may ask for, and how much the server takes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..core.memory import GIB
from .errors import APIError


@dataclass(frozen=True)
class Limits:
    """Bounds that are checked before any work begins."""

    body_bytes: int = 1 << 20
    text_chars: int = 20_000
    """Characters of a prompt, a template, a source, or of all texts to score."""
    length: int = 2048
    """Tokens of a canvas."""
    steps: int = 4096
    n: int = 64
    """Texts of one request."""
    stop: int = 16
    pattern_chars: int = 4000
    """Characters of a pattern, a quarter of those of a schema."""
    part_chars: int = 500
    """Characters of the settings of a sampler or guide."""
    guides: int = 8
    alternatives: int = 10
    """Most likely tokens to report for each position."""
    score_texts: int = 64
    score_draws: int = 64
    requests: int = 64
    """Requests that wait or run; more are refused with 429."""
    deadline: float = 120.0
    """Seconds from a request's arrival to its answer; then it gets 408."""
    write_timeout: float = 30.0
    """Seconds in which a client must take the next piece of its answer, or send the next of its body."""
    drafts: int = 64
    """Drafts that wait for a slow client; more are dropped, results never."""
    memory_bytes: int = 4 * GIB
    """Weights of all loaded runs; the least recently used one makes room."""


def check_range(name: str, value: int | float | None, low: int | float, high: int | float) -> None:
    """Refuses a value outside [low, high]; None is the default and allowed."""
    if value is not None and not low <= value <= high:
        raise APIError(f"{name} is {_shown(value)}; it must be from {_shown(low)} to {_shown(high)}.", param=name)


def _shown(value: int | float) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if abs(value) < 10**30 else "a number of more than 30 digits"


def check_chars(name: str, text: str | None, limit: int) -> None:
    """Refuses a text that is too long, or has half a character."""
    if text is None:
        return
    if len(text) > limit:
        raise APIError(f"{name} has {len(text):,} characters; this server takes at most {limit:,}.", param=name)
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise APIError(f"{name} has half a character (a lone surrogate), which no text in UTF-8 has.", param=name)


def check_stops(stop: Sequence[str], limits: Limits) -> None:
    """Refuses too many stop texts, empty and long ones."""
    if len(stop) > limits.stop:
        raise APIError(f"There are {len(stop)} stop texts; this server takes at most {limits.stop}.", param="stop")
    for each in stop:
        if not each:
            raise APIError("A stop text is empty; give at least one character.", param="stop")
        check_chars("stop", each, limits.pattern_chars)
