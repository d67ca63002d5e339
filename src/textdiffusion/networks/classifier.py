"""The network of a classifier that sees noisy states."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.batch import Batch, position_ids
from ..diffusion.codecs import TableCodec
from .attention import attention_mask
from .embedding_denoiser import Decoded
from .transformer import Linear, Transformer


class NoisyClassifier(nn.Module):
    """log p(label | x_t) of texts, from the states of a run's process and t: a transformer, then a mean over positions.

    States of token ids come as ids or as weights over them, which may be soft and have gradients.
    """

    def __init__(self, process: Any, codec: Any, *, labels: int, width: int, depth: int) -> None:
        super().__init__()
        # In a tuple, so that what belongs to the run is not saved with the classifier.
        self._run = process, codec
        self.decoded = Decoded(codec.vocab_size, width) if isinstance(codec, TableCodec) else None
        self.states = codec.dim if isinstance(codec, TableCodec) else codec.vocab_size + 1  # a mask is one more
        self.input = Linear(self.states, width, bias=False)
        # Squared ReLUs have no slope where they are off, and guidance asks for slopes.
        self.backbone = Transformer(
            width, depth, cond_dim=128, modulation="film", activation="gelu", absolute_positions=True
        )
        self.out = nn.Linear(width, labels)

    def forward(
        self, xt: Tensor, t: Float[Tensor, " b"], batch: Batch, mixed: tuple[Tensor, Tensor] | None = None
    ) -> Float[Tensor, "b k"]:
        """Log probabilities of the labels. `mixed`: ids [b, l], and their share [b, l] in the place of the ids x_t."""
        if self.decoded is None:
            features = self.input.weight.T[xt] if xt.ndim == 2 else self.input(xt)
            if mixed is not None:
                features = torch.lerp(features, self.input.weight.T[mixed[0]], mixed[1][..., None])
            return self._read(features, t, batch)
        process, codec = self._run
        sigma = process.sigma_over(t, xt)
        features = self.input(xt / torch.sqrt(sigma**2 + codec.scale**2))
        return self._read(features + self.decoded(codec.evidence(xt, sigma)), t, batch)

    def soft(self, probs: Float[Tensor, "b l v"], batch: Batch) -> Float[Tensor, "b k"]:
        """The same of clean texts whose tokens are mixtures."""
        clean = probs.new_zeros(len(probs))
        if self.decoded is None:
            return self(nn.functional.pad(probs, (0, 1)), clean, batch)
        codec = self._run[1]
        features = self.input(codec.mean(probs) / codec.scale) + probs @ self.decoded.tokens
        return self._read(features, clean, batch)

    def _read(self, features: Float[Tensor, "b l w"], t: Float[Tensor, " b"], batch: Batch) -> Float[Tensor, "b k"]:
        hidden = self.backbone(features, t, position_ids(batch), attention_mask("full", batch))
        real = hidden.new_ones(hidden.shape[:2]) if batch.valid_mask is None else batch.valid_mask.to(hidden.dtype)
        pooled = (hidden * real[..., None]).sum(1) / real.sum(1, keepdim=True)
        return self.out(pooled).float().log_softmax(-1)
