"""The forward process, shown on a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ..core.errors import UserError
from ..core.randomness import Rng, check_seed
from ..core.types import PerPosition, Probs, Times
from ..data.tokenizers.base import Tokenizer
from ..diffusion.codecs import Codec
from ..samplers.base import Step

_CANDIDATES = 1 << 24  # elements of the states compared at once


@runtime_checkable
class Process(Protocol):
    """The methods of a process that are used here."""

    def add_noise(self, x0: Tensor, t: Times, *, rng: Rng) -> Tensor: ...

    def log_likelihood(self, xt: Tensor, x0: Tensor, t: Times) -> PerPosition: ...


@torch.no_grad()
def noising(
    text: str, levels: Sequence[float], tokenizer: Tokenizer, codec: Codec, process: Process, *, seed: int = 0
) -> Iterator[Step]:
    """One step per noise level t in [0, 1], from the same random draws at each, so noise only grows with t.

    A position shows its most likely token given its noisy state alone, by Bayes' rule with a uniform prior over the
    vocabulary, and `confidence` is the probability of that token; it is undecided where no token is more likely. Raises
    UserError for an empty text, and for levels outside [0, 1].
    """
    for t in levels:
        if not 0.0 <= t <= 1.0:
            raise UserError(f"t is {t}; it must be between 0 (clean) and 1 (noise).")
    ids = torch.from_numpy(tokenizer.encode(text))[None]
    if not ids.numel():
        raise UserError("The text is empty.")
    clean = codec.encode(ids)
    for index, t in enumerate(levels):
        noisy = process.add_noise(clean, torch.tensor([t]), rng=Rng.of(check_seed(seed), 1).fork("noise"))
        confidence, likeliest = _posterior(noisy, t, codec, process).max(-1)
        undecided = confidence <= 1.001 / codec.vocab_size
        shown = torch.where(undecided, codec.vocab_size, likeliest)
        yield Step(index, len(levels) - 1, t, shown, torch.where(undecided, 0.0, confidence), noisy)


def _posterior(noisy: Tensor, t: float, codec: Codec, process: Process) -> Probs:
    """p(token | its noisy state) under a uniform prior, for one row."""
    length = noisy.shape[1]
    size = max(1, _CANDIDATES // (length * (noisy.shape[2] if noisy.ndim == 3 else 1)))
    log_likelihoods: list[Tensor] = []
    for candidates in torch.arange(codec.vocab_size).split(size):
        clean = codec.encode(candidates[:, None].expand(-1, length))
        states = noisy.expand(len(candidates), *noisy.shape[1:])
        log_likelihoods.append(process.log_likelihood(states, clean, torch.full((len(candidates),), t)))
    return torch.cat(log_likelihoods).T[None].softmax(-1)
