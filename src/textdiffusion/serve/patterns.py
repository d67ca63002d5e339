"""Patterns of requests: as guides, with room for what is left of a canvas, and cut to their match afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ..guidance import patterns, regex
from ..guidance.constraints import Regex
from ..inference.run import Run
from .errors import APIError
from .limits import Limits, check_chars
from .schemas import json_pattern

PADDING = r"[ \n]*"


@dataclass(frozen=True)
class Pattern:
    """A pattern that a text must match.

    `padded`: white space may follow, because the run cannot end a text itself. `spaced`: the row has the space that
    ends the prompt before the text (see `prompts.encode_prompt`).
    """

    source: str
    padded: bool
    spaced: bool = False

    @property
    def guide(self) -> Regex:
        """The guide that makes every text match."""
        return Regex(f"{' ' if self.spaced else ''}(?:{self.source}){PADDING if self.padded else ''}")

    def between(self, prompt: str, suffix: str) -> Pattern:
        """The pattern of whole texts, where this one is that of what fills the gap between a prompt and a suffix."""
        return Pattern(f"{regex.escape(prompt)}(?:{self.source}){regex.escape(suffix)}", padded=False)

    def cut(self, text: str) -> str:
        """The text without the white space that fills the canvas: its longest start that matches."""
        if not self.padded:
            return text
        transitions, accepting = _automaton(self.source)
        raw, state, end = text.encode(), 0, 0
        for i, byte in enumerate(raw, 1):
            state = transitions[state, byte]
            if accepting[state]:
                end = i
        return raw[:end].decode("utf-8", "ignore")


@lru_cache(maxsize=16)
def _automaton(source: str) -> tuple[np.ndarray, np.ndarray]:
    return patterns.automaton(regex.parse(source))


def requested(run: Run, pattern: str | None, response_format: dict[str, Any] | None, limits: Limits) -> Pattern | None:
    """The pattern of a request: its `regex`, or that of its `response_format` (None: the text is free)."""
    check_chars("regex", pattern, limits.pattern_chars)
    if response_format is not None:
        check_chars("response_format", repr(response_format), 4 * limits.pattern_chars)
        of_schema = json_pattern(response_format)
        if of_schema is not None and pattern is not None:
            raise APIError("regex and response_format exclude each other.", param="regex")
        pattern = of_schema if pattern is None else pattern
    ends = run.tokenizer.end_id is not None and run.config.text.layout != "stream"
    return None if pattern is None else Pattern(pattern, padded=not ends)
