"""Distances between two sets of texts in the features of an encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int, Num

from .metrics import Grams

Features = Float[np.ndarray, "_ d"]
Encoder = Callable[[Sequence[str]], Features]
"""One row of numbers for each text."""

_BITS, _LENGTHS = 13, (1, 2, 3)


class HashedNgrams:
    """A default encoder without weights: hashed tf-idf of character n-grams in the main directions of real text.

    Rows are ln(1 + count) * ln(texts / texts that have it) of 8,192 buckets, of length 1, projected onto the `width`
    largest singular vectors of `texts` (latent semantic analysis, Deerwester et al. 1990). It sees spelling and the
    choice of words, not their order. Texts that it was fitted on lie farther out than others of their kind.
    """

    def __init__(self, texts: Sequence[str], width: int = 32) -> None:
        counts = _counts(texts)
        self._weight = np.log((2 + len(texts)) / (1 + (counts > 0).sum(0))).astype(np.float32)
        rows = self._weighted(counts)
        values, vectors = np.linalg.eigh((rows @ rows.T).astype(np.float64))
        kept = np.flatnonzero(values > 1e-6 * values.max())[-width:]
        self._basis = (rows.T @ vectors[:, kept] / np.sqrt(values[kept])).astype(np.float32)

    def __call__(self, texts: Sequence[str]) -> Features:
        return (self._weighted(_counts(texts)) @ self._basis).astype(np.float64)

    def _weighted(self, counts: Float[np.ndarray, "n buckets"]) -> Float[np.ndarray, "n buckets"]:
        rows = np.log1p(counts) * self._weight
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


def _counts(texts: Sequence[str]) -> Float[np.ndarray, "n buckets"]:
    grams, counts = Grams.characters(texts), np.zeros((len(texts) << _BITS,), dtype=np.float32)
    for length in _LENGTHS:
        hashes, owner = grams.hashes(length)
        places = (owner << _BITS) + (hashes >> np.uint64(64 - _BITS)).astype(np.int64)
        counts += np.bincount(places, minlength=len(counts))
    return counts.reshape(len(texts), -1)


def mauve(p: Features, q: Features, *, clusters: int = 0, seed: int = 0) -> float:
    """MAUVE (Pillutla et al. 2021): `histogram_frontier` of both sets in joint k-means cells.

    `clusters` is their number (0: a tenth of the smaller set, at least 2). Falls with the size of the sets even for two
    samples of one law, so only sets of equal sizes compare.
    """
    cells = kmeans(np.concatenate((p, q)), clusters or max(2, min(len(p), len(q)) // 10), seed=seed)
    size = int(cells.max()) + 1
    return histogram_frontier(
        np.bincount(cells[: len(p)], minlength=size), np.bincount(cells[len(p) :], minlength=size)
    )


def histogram_frontier(p: Num[np.ndarray, " k"], q: Num[np.ndarray, " k"]) -> float:
    """Area under the points (exp(-5 KL(q | r)), exp(-5 KL(p | r))), r = a p + (1 - a) q, a from 0 to 1.

    1 for equal histograms; 5 B(6, 5) = 0.004 for disjoint ones. They need not sum to one.
    """
    p, q = p / p.sum(), q / q.sum()
    share = np.linspace(0, 1, 401)[1:-1, None]
    mixed = share * p + (1 - share) * q
    x, y = (np.exp(-5 * _kl(side, mixed)) for side in (q, p))
    x, y = np.concatenate(([0.0], x[::-1], [1.0])), np.concatenate(([1.0], y[::-1], [0.0]))
    order = np.lexsort((-y, x))
    return float(np.trapezoid(y[order], x[order]))


def _kl(p: Float[np.ndarray, " k"], r: Float[np.ndarray, "m k"]) -> Float[np.ndarray, " m"]:
    held = p > 0
    return (p[held] * np.log(p[held] / r[:, held])).sum(1)


def kmeans(points: Features, clusters: int, *, seed: int = 0, rounds: int = 50) -> Int[np.ndarray, " n"]:
    """The cluster of each point by Lloyd's algorithm, begun at random distinct points."""
    rng = np.random.default_rng(seed)
    centres = points[rng.choice(len(points), min(clusters, len(points)), replace=False)]
    cells = np.full(len(points), -1)
    for _ in range(rounds):
        nearest = ((centres**2).sum(1) - 2 * points @ centres.T).argmin(1)
        if (nearest == cells).all():
            break
        cells = nearest
        members = np.eye(len(centres))[cells]
        sizes = members.sum(0)[:, None]
        centres = np.where(sizes > 0, members.T @ points / np.maximum(sizes, 1), centres)  # an empty cell stays
    return cells


def frechet_distance(p: Features, q: Features) -> float:
    """|mean_p - mean_q|^2 + tr(C_p + C_q - 2 (C_p^1/2 C_q C_p^1/2)^1/2): Frechet distance of fitted Gaussians, squared.

    (Heusel et al. 2017.) Grows as sets get smaller, so only sets of equal sizes compare.
    """
    a, b = (np.atleast_2d(np.cov(side, rowvar=False)) for side in (p, q))
    values, vectors = np.linalg.eigh(a)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ b @ root), 0)).sum()
    return max(0.0, float(((p.mean(0) - q.mean(0)) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * cross))
