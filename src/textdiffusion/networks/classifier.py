"""A classifier of noisy states."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.batch import Batch, position_ids
from ..core.types import Hidden, Probs, Times
from ..diffusion.table_codecs import TableCodec
from .attention import attention_mask
from .embedding_denoiser import DecodedEmbedding
from .layers import Linear
from .transformer import Transformer, TransformerConfig


class NoisyClassifier(nn.Module):
    """log p(label | x_t) of texts, from the noisy states of a run and t: a transformer, then a mean over positions.

    States of token processes are token ids, or weights over ids, which may be soft and have gradients.
    """

    def __init__(self, process: Any, codec: Any, *, labels: int, width: int, depth: int) -> None:
        super().__init__()
        # In a tuple, so that the modules of the run are not saved with the classifier.
        self._run = process, codec
        self.decoded = DecodedEmbedding(codec.vocab_size, width) if isinstance(codec, TableCodec) else None
        state_dim = codec.dim if isinstance(codec, TableCodec) else codec.vocab_size + 1  # one more for the mask
        self.input = Linear(state_dim, width, bias=False)
        # Squared ReLUs have zero gradient where they are off, and guidance needs gradients.
        self.backbone = Transformer(TransformerConfig(width, depth, modulation="film", activation="gelu"))
        self.out = nn.Linear(width, labels)

    def forward(
        self, xt: Tensor, t: Times, batch: Batch, mixture: tuple[Tensor, Tensor] | None = None
    ) -> Float[Tensor, "b k"]:
        """Log probabilities of the labels. `mixture`: ids [b, l] to mix into x_t, and their fractions [b, l]."""
        if self.decoded is None:
            features = self.input.weight.T[xt] if xt.ndim == 2 else self.input(xt)
            if mixture is not None:
                ids, fraction = mixture
                features = torch.lerp(features, self.input.weight.T[ids], fraction[..., None])
            return self._log_probs(features, t, batch)
        process, codec = self._run
        sigma = process.sigma_over(t, xt)
        features = self.input(xt / torch.sqrt(sigma**2 + codec.scale**2))
        return self._log_probs(features + self.decoded(codec.evidence(xt, sigma)), t, batch)

    def soft(self, probs: Probs, batch: Batch) -> Float[Tensor, "b k"]:
        """Log probabilities of the labels of clean texts whose tokens are mixtures."""
        t = probs.new_zeros(len(probs))
        if self.decoded is None:
            return self(nn.functional.pad(probs, (0, 1)), t, batch)
        codec = self._run[1]
        features = self.input(codec.mean(probs) / codec.scale) + probs @ self.decoded.tokens
        return self._log_probs(features, t, batch)

    def _log_probs(self, features: Hidden, t: Times, batch: Batch) -> Float[Tensor, "b k"]:
        hidden = self.backbone(features, t, position_ids(batch), attention_mask("full", batch))
        valid = hidden.new_ones(hidden.shape[:2]) if batch.valid_mask is None else batch.valid_mask.to(hidden.dtype)
        pooled = (hidden * valid[..., None]).sum(1) / valid.sum(1, keepdim=True)
        return self.out(pooled).float().log_softmax(-1)
