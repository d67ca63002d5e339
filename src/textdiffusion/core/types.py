"""Shapes of tensors by name: `b` rows, `l` positions, `v` tokens, `d` coordinates of a state, `w` features."""

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
NoiseTimes = Float[Tensor, "b *l"]
"""Times t in [0, 1], one per row or one per position."""
Values = Float[Tensor, "*b"]
"""Numbers of any shape, such as times, noise levels or fractions, on which a function acts one by one."""
Sigma = Float[Tensor, "b #l 1"]
"""Noise levels, one per row or per position, shaped to multiply `Vectors`."""
Table = Float[Tensor, "v d"]
"""The clean state of every token."""
Hidden = Float[Tensor, "b l w"]
"""Features of a network."""
PositionIds = Int[Tensor, "#b l"]
"""Numbers of positions in their example, or of their blocks."""
AttentionMask = Bool[Tensor, "#b 1 l n"]
"""True where a query may see a key."""
RowIndex = Int[Tensor, " b"]
"""One integer per row, such as its number or its label."""
Scalar = Float[Tensor, ""]
"""A single number."""
