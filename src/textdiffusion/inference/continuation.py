"""What continues a prompt: where it ends, and its text."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from ..core.batch import Batch
from ..core.types import RowIndex
from ..data.tokenizers.base import Ids, Tokenizer
from ..samplers.base import Step

Finish = Literal["end", "stop", "length"]
"""Why a text ends: the model ended it, it came to a stop text, or there was no room for more."""


@dataclass(frozen=True)
class Continuation:
    """A text that continues a prompt, how many tokens it has without its end, and why it ends."""

    text: str
    num_tokens: int
    finish: Finish

    def truncated(self, stops: Collection[str]) -> Continuation:
        """The text before the first of the `stops` in it. `num_tokens` stays: the model wrote that many."""
        end = min((found for stop in stops if (found := self.text.find(stop)) >= 0), default=-1)
        return self if end < 0 else replace(self, text=self.text[:end], finish="stop")


def read_continuation(
    ids: Ids, start: int, tokenizer: Tokenizer, end_ids: Collection[int], end_text: str = ""
) -> Continuation:
    """What the tokens from `start` on add to the text of those before them.

    The text ends before the first of `end_ids`, and before an `end_text` in it.
    """
    prompt, text = ids[:start], ids[start:]
    ends = np.flatnonzero(np.isin(text, list(end_ids)))
    text = text[: ends[0]] if ends.size else text
    # A prompt of several turns has ends of its own, which decoding would stop at.
    hidden = [id for id in (*end_ids, tokenizer.pad_id) if id is not None]
    before = prompt[np.flatnonzero(np.isin(prompt, hidden)).max(initial=-1) + 1 :]
    added = tokenizer.added_text(before.tolist(), text.tolist())
    if end_text and end_text in added:
        return Continuation(added[: added.index(end_text)], len(text), "end")
    return Continuation(added, len(text), "end" if ends.size else "length")


def ended_rows(step: Step, batch: Batch, end_ids: Collection[int], vocab_size: int) -> Bool[Tensor, " b"]:
    """The rows that have ended: all their tokens are decided, or all those before their first end."""
    first_end, first_open = _first_end_and_open(step, batch, end_ids, vocab_size)
    return first_end.clamp(max=step.tokens.shape[1] - 1) < first_open


def ended_step(step: Step, batch: Batch, end_ids: Collection[int], vocab_size: int) -> Step | None:
    """The last step, with every position after a text's end given the end, once all rows have ended; else None."""
    if step.index == step.total or not bool(ended_rows(step, batch, end_ids, vocab_size).all()):
        return None
    length = step.tokens.shape[1]
    first_end, _ = _first_end_and_open(step, batch, end_ids, vocab_size)
    after = batch.target_mask & (torch.arange(length, device=step.tokens.device) > first_end[:, None])
    end = step.tokens.gather(-1, first_end.clamp(max=length - 1)[:, None])
    tokens = torch.where(after, end, step.tokens)
    return replace(step, index=step.total, t=0.0, tokens=tokens, state=tokens)


def _first_end_and_open(
    step: Step, batch: Batch, end_ids: Collection[int], vocab_size: int
) -> tuple[RowIndex, RowIndex]:
    """The position of each row's first end, and of its first undecided token (the length: there is none)."""
    target, length = batch.target_mask, step.tokens.shape[1]
    ends = torch.isin(step.tokens, torch.tensor(sorted(end_ids), device=step.tokens.device, dtype=torch.long))
    position = torch.arange(length, device=step.tokens.device)
    first_end = torch.where(ends & target, position, length).amin(-1)
    return first_end, torch.where((step.tokens >= vocab_size) & target, position, length).amin(-1)
