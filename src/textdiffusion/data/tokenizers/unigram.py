"""Sampled segmentations under a unigram language model, for subword regularisation (Kudo 2018)."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping


def sample_segmentation(
    text: str, log_probs: Mapping[str, float], unknown: float, alpha: float, rng: random.Random
) -> list[str]:
    """Pieces of `text`, sampled with probability proportional to p(segmentation)^alpha.

    Forward filtering and backward sampling over the lattice of all segmentations, in time proportional to the length of
    the text and of the longest piece. A character without a piece has the log-probability `unknown`.
    """
    longest = max(map(len, log_probs), default=1)
    log_sums = [0.0]  # of the weights of all segmentations of text[:end]
    lattice: list[dict[int, float]] = [{}]  # for each end of a piece: log weights by the start of the piece
    for end in range(1, len(text) + 1):
        log_weights = {
            start: log_sums[start] + alpha * log_probs[text[start:end]]
            for start in range(max(end - longest, 0), end)
            if text[start:end] in log_probs
        }
        log_weights.setdefault(end - 1, log_sums[-1] + alpha * unknown)
        largest = max(log_weights.values())
        log_sums.append(largest + math.log(sum(math.exp(weight - largest) for weight in log_weights.values())))
        lattice.append(log_weights)
    pieces, end = [], len(text)
    while end:
        weights = [math.exp(weight - log_sums[end]) for weight in lattice[end].values()]
        (start,) = rng.choices([*lattice[end]], weights)
        pieces.append(text[start:end])
        end = start
    return pieces[::-1]
