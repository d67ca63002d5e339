"""Shapes of tensors by name: `b` rows, `l` positions, `v` tokens of the vocabulary, `d` coordinates."""

from __future__ import annotations

from jaxtyping import Bool, Float, Int
from torch import Tensor

Tokens = Int[Tensor, "b l"]
"""Token ids."""
Mask = Bool[Tensor, "b l"]
"""A choice of positions."""
Logits = Float[Tensor, "b l v"]
"""Unnormalised log-probabilities of tokens."""
Probs = Float[Tensor, "b l v"]
"""Probabilities of tokens, which sum to 1 over `v`."""
Vectors = Float[Tensor, "b l d"]
"""A vector per position, such as a noisy state of a Gaussian process."""
PerPosition = Float[Tensor, "b l"]
"""One number per position, such as a loss in nats or a confidence."""
PerRow = Float[Tensor, " b"]
"""One number per row."""
Times = Float[Tensor, " b"]
"""Noise levels t in [0, 1], one per row."""
AnyTimes = Float[Tensor, "b *l"]
"""Noise levels t in [0, 1], one per row or one per position."""
RowIndex = Int[Tensor, " b"]
"""One integer per row, such as its number or its label."""
Scalar = Float[Tensor, ""]
"""A single number."""
