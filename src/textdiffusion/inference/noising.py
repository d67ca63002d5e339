"""The forward process, shown on a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core.errors import UserError
from ..core.randomness import Rng
from ..data.tokenizers.base import Tokenizer
from ..diffusion.codecs import Codec
from ..samplers.base import Step

_CANDIDATES = 1 << 24  # elements of the states compared at once


@runtime_checkable
class Process(Protocol):
    """As much of a process as is shown here."""

    def add_noise(self, x0: Tensor, t: Float[Tensor, " b"], *, rng: Rng) -> Tensor: ...

    def log_likelihood(self, xt: Tensor, x0: Tensor, t: Float[Tensor, " b"]) -> Float[Tensor, "b l"]: ...


@torch.no_grad()
def noising(
    text: str, levels: Sequence[float], tokenizer: Tokenizer, codec: Codec, process: Process, *, seed: int = 0
) -> Iterator[Step]:
    """One step per noise level t in [0, 1]; the draws are the same at every level, so noise only grows.

    A position shows the token that its noisy state alone makes most likely, by Bayes' rule over the vocabulary with a
    uniform prior, and `confidence` is that probability; it is undecided where the state says nothing. Raises UserError
    for an empty text, characters the tokenizer lacks, and levels outside [0, 1].
    """
    for t in levels:
        if not 0.0 <= t <= 1.0:
            raise UserError(f"t is {t}; it must lie between 0 (clean) and 1 (noise).")
    ids = torch.from_numpy(tokenizer.encode(text))[None]
    if not ids.numel():
        raise UserError("There is no text to put noise on.")
    clean = codec.encode(ids)
    for number, t in enumerate(levels):
        noisy = process.add_noise(clean, torch.tensor([t]), rng=Rng.of(seed, 1).fork("noise"))
        law = _evidence(noisy, t, codec, process)
        confidence, read = law.max(-1)
        undecided = confidence <= 1.001 / codec.vocab_size
        shown = torch.where(undecided, codec.vocab_size, read)
        yield Step(number, len(levels) - 1, t, shown, torch.where(undecided, 0.0, confidence), noisy)


def _evidence(noisy: Tensor, t: float, codec: Codec, process: Process) -> Float[Tensor, "1 l v"]:
    """p(token | its noisy state) under a uniform prior."""
    length = noisy.shape[1]
    size = max(1, _CANDIDATES // (length * (noisy.shape[2] if noisy.ndim == 3 else 1)))
    parts: list[Tensor] = []
    for tokens in torch.arange(codec.vocab_size).split(size):
        every: Int[Tensor, "c l"] = tokens[:, None].expand(-1, length)
        repeated = noisy.expand(len(tokens), *noisy.shape[1:])
        parts.append(process.log_likelihood(repeated, codec.encode(every), torch.full((len(tokens),), t)))
    return torch.cat(parts).T[None].softmax(-1)
