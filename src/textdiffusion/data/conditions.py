"""Conditions of a text: a source before it and a label beside it, and how to hide them from the model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Integer
from torch import Tensor

from ..core.batch import Batch
from ..core.errors import UserError
from ..core.randomness import Rng
from .config import TextConfig
from .labels import label_id
from .normalisers import normalise
from .tokenizers.base import Tokenizer

Tokens = Integer[np.ndarray, " _"]


def encode_source(source: str | None, text: TextConfig, tokenizer: Tokenizer) -> Tokens:
    """The tokens of a source and its end token, which precede the text; empty for a run without sources.

    Raises UserError if the run takes no source, if it needs one, or if the source fills a window.
    """
    if source is None and text.source:
        raise UserError("This run needs a source (source=..., --source).")
    if source is None:
        return np.zeros(0, dtype=np.int64)
    if not text.source:
        raise UserError(f"This run takes no source; {_conditions(text)}.")
    assert tokenizer.end_id is not None
    tokens = np.append(tokenizer.encode(normalise(text.normaliser, source)), tokenizer.end_id)
    if len(tokens) >= text.length:
        raise UserError(f"A source of {len(tokens)} tokens leaves no room for text in a window of {text.length}.")
    return tokens


def strip_source(tokens: Tokens, text: TextConfig, tokenizer: Tokenizer) -> Tokens:
    """The tokens after the source and its end token: the text itself."""
    return tokens[int((tokens == tokenizer.end_id).argmax()) + 1 :] if text.source else tokens


def with_label(batch: Batch, text: TextConfig, label: str | None) -> Batch:
    """The batch with this label in every row (None: unlabelled, as training with text.condition_dropout shows some).

    Raises UserError for an unknown label, and if the run takes no label or needs one.
    """
    if not text.label:
        if label is not None:
            hint = "" if text.source else " To steer it by labels, train a guide: `textdiffusion train-classifier`."
            raise UserError(f"This run takes no label; {_conditions(text)}.{hint}")
        return batch
    if not label and not text.condition_dropout:
        raise UserError(f"This run needs a label (label=..., --label): {', '.join(text.labels)}.")
    return replace(batch, labels=torch.full((len(batch.tokens),), label_id(text, label or "")))


def _conditions(text: TextConfig) -> str:
    conditions = [f"a label ({', '.join(text.labels)})"] * bool(text.label) + ["a source"] * bool(text.source)
    if not conditions:
        return "it was trained on text alone (see text.source and text.label)"
    return f"it takes {' and '.join(conditions)}"


def drop_condition(batch: Batch, pad_id: int) -> Batch:
    """The batch without labels, and with padding in place of the conditioning tokens."""
    labels = None if batch.labels is None else torch.zeros_like(batch.labels)
    if batch.condition_mask is None:
        return replace(batch, labels=labels)
    return replace(batch, tokens=batch.tokens.masked_fill(batch.condition_mask, pad_id), labels=labels)


def condition_dropout(batch: Batch, probability: float, pad_id: int, rng: Rng) -> Batch:
    """The batch after `drop_condition` of each row with this probability."""
    dropped: Bool[Tensor, " b"] = rng.uniform() < probability
    unconditional = drop_condition(batch, pad_id)
    labels = None if batch.labels is None else torch.where(dropped, 0, batch.labels)
    return replace(batch, tokens=torch.where(dropped[:, None], unconditional.tokens, batch.tokens), labels=labels)
