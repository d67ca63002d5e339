"""Conditions of a text: a source before it and a label beside it, and how to hide them from the model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ..core.batch import Batch
from ..core.errors import UserError
from ..core.randomness import Rng
from .config import TextConfig
from .labels import label_id
from .normalisers import normalise
from .tokenizers.base import Ids, Tokenizer


def encode_source(source: str | None, text: TextConfig, tokenizer: Tokenizer) -> Ids:
    """The tokens of a source and its end token, which precede the text; empty for a run without sources.

    No source is an empty one where training hid some (`condition_dropout`). Raises UserError if the run takes no
    source, if it needs one, or if the source fills a window.
    """
    if source is None:
        if not text.has_source:
            return np.zeros(0, dtype=np.int64)
        if not text.condition_dropout:
            raise UserError('This run needs a source (source=..., --source); "" is an empty one.')
        source = ""
    if not text.has_source:
        raise UserError(f"This run takes no source; {_conditions(text)}.")
    assert tokenizer.end_id is not None
    tokens = np.append(tokenizer.encode(normalise(text.normaliser, source)), tokenizer.end_id)
    if len(tokens) >= text.length:
        raise UserError(f"A source of {len(tokens)} tokens leaves no room for text in a window of {text.length}.")
    return tokens


def strip_source(tokens: Ids, text: TextConfig, tokenizer: Tokenizer) -> Ids:
    """The tokens after the source and its end token: the text itself."""
    return tokens[int((tokens == tokenizer.end_id).argmax()) + 1 :] if text.has_source else tokens


def with_label(batch: Batch, text: TextConfig, label: str | int | None) -> Batch:
    """The batch with this label in every row (None: unlabelled, as training with text.condition_dropout shows some).

    Raises UserError for an unknown label, and if the run takes no label or needs one.
    """
    label = label if label is None else str(label)  # labels that look like numbers may be given as numbers
    if not text.label:
        if label is not None:
            if text.has_source:
                raise UserError(f"This run takes no label; {_conditions(text)}.")
            raise UserError("This run has no labels. Train one with text.label, or make a guide with train-classifier.")
        return batch
    if not label and not text.condition_dropout:
        raise UserError(f"This run needs a label (label=..., --label): {', '.join(text.labels)}.")
    return replace(batch, labels=torch.full((len(batch.tokens),), label_id(text, label or "")))


def _conditions(text: TextConfig) -> str:
    conditions = [f"a label ({', '.join(text.labels)})"] * bool(text.label) + ["a source"] * text.has_source
    takes = f"it takes {' and '.join(conditions)}"
    return takes if conditions else "it was trained on text alone (see text.source and text.label)"


def drop_condition(batch: Batch, pad_id: int) -> Batch:
    """The batch without labels, and with padding in place of the conditioning tokens."""
    labels = None if batch.labels is None else torch.zeros_like(batch.labels)
    tokens = batch.tokens if batch.condition_mask is None else batch.tokens.masked_fill(batch.condition_mask, pad_id)
    return replace(batch, tokens=tokens, labels=labels)


def condition_dropout(batch: Batch, probability: float, pad_id: int, rng: Rng) -> Batch:
    """The batch after `drop_condition` of each row with this probability."""
    dropped = rng.uniform() < probability
    unconditional = drop_condition(batch, pad_id)
    labels = None if batch.labels is None else torch.where(dropped, 0, batch.labels)
    return replace(batch, tokens=torch.where(dropped[:, None], unconditional.tokens, batch.tokens), labels=labels)
