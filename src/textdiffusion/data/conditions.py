"""What a text may depend on: a source that stands before it, and a label; and how a model is kept from seeing them."""

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
from .labels import number
from .normalisers import normalise
from .tokenizers.base import Tokenizer

Ids = Integer[np.ndarray, " _"]


def encode_source(source: str | None, text: TextConfig, tokenizer: Tokenizer) -> Ids:
    """The tokens of a source with its end, which stand before a text; none for a run that takes no source.

    Raises UserError for a source where the run takes none, none where it needs one, and one that fills a window.
    """
    if (source is not None) != bool(text.source):
        asked = "needs a source (source=..., --source)" if text.source else f"takes no source; {_takes(text)}"
        raise UserError(f"This run {asked}.")
    if source is None:
        return np.zeros(0, dtype=np.int64)
    assert tokenizer.end_id is not None
    ids = np.append(tokenizer.encode(normalise(text.normaliser, source)), tokenizer.end_id)
    if len(ids) >= text.length:
        raise UserError(f"A source of {len(ids)} tokens leaves no room for text in a window of {text.length}.")
    return ids


def strip_source(ids: Ids, text: TextConfig, tokenizer: Tokenizer) -> Ids:
    """What follows a source and its end: the text itself."""
    return ids[int((ids == tokenizer.end_id).argmax()) + 1 :] if text.source else ids


def with_label(batch: Batch, text: TextConfig, label: str | None) -> Batch:
    """Rows with a label (None: without, as training with text.drop shows some).

    Raises UserError for an unknown label, and where a run takes none or cannot do without.
    """
    if not text.label:
        if label is not None:
            steer = "" if text.source else "; a guide towards labels is what `textdiffusion train-classifier` makes"
            raise UserError(f"This run takes no label; {_takes(text)}{steer}.")
        return batch
    if not label and not text.drop:
        raise UserError(f"This run needs a label (label=..., --label): {', '.join(text.labels)}.")
    return replace(batch, labels=torch.full((len(batch.tokens),), number(text, label or "")))


def _takes(text: TextConfig) -> str:
    own = [f"a label ({', '.join(text.labels)})"] * bool(text.label) + ["a source"] * bool(text.source)
    return f"it takes {' and '.join(own)}" if own else "it was trained on text alone (see text.source and text.label)"


def drop_condition(batch: Batch, pad: int) -> Batch:
    """The same rows without their labels, and with padding in the place of what is given."""
    given = torch.zeros_like(batch.target_mask) if batch.condition_mask is None else batch.condition_mask
    labels = None if batch.labels is None else torch.zeros_like(batch.labels)
    return replace(batch, tokens=torch.where(given, pad, batch.tokens), labels=labels)


def condition_dropout(batch: Batch, share: float, pad: int, rng: Rng) -> Batch:
    """The batch with that share of its rows `hidden`."""
    rows: Bool[Tensor, " b"] = rng.uniform() < share
    bare = drop_condition(batch, pad)
    labels = None if batch.labels is None else torch.where(rows, 0, batch.labels)
    return replace(batch, tokens=torch.where(rows[:, None], bare.tokens, batch.tokens), labels=labels)
