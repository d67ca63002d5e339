"""Distances between two sets of texts in the features of an encoder: MAUVE's area and the Frechet distance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Num

from ..ngram_statistics import Grams
from .base import Encoder, Features, ReferenceTexts, TextSet, metric

_BUCKET_BITS, _LENGTHS = 13, (1, 2, 3)  # of the hash table of n-grams; of the n-grams


class HashedNgrams:
    """The default encoder, without weights: hashed tf-idf of character n-grams in the main directions of real text.

    Rows are ln(1 + count) * ln(texts / texts with the n-gram) of 8,192 buckets, normalised to length 1 and projected
    onto the `width` largest singular vectors of `texts` (latent semantic analysis, Deerwester et al. 1990). The encoder
    sees spelling and the choice of words, not their order. Texts that it was fitted on lie farther out than others of
    their kind.
    """

    def __init__(self, texts: Sequence[str], width: int = 32) -> None:
        counts = _counts(texts)
        self._weight = np.log((2 + len(texts)) / (1 + (counts > 0).sum(0))).astype(np.float32)
        rows = self._weighted(counts)
        values, vectors = np.linalg.eigh((rows @ rows.T).astype(np.float64))
        largest = np.flatnonzero(values > 1e-6 * values.max())[-width:]
        self._basis = (rows.T @ vectors[:, largest] / np.sqrt(values[largest])).astype(np.float32)

    def __call__(self, texts: Sequence[str]) -> Features:
        return (self._weighted(_counts(texts)) @ self._basis).astype(np.float64)

    def _weighted(self, counts: Float[np.ndarray, "n buckets"]) -> Float[np.ndarray, "n buckets"]:
        rows = np.log1p(counts) * self._weight
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


def _counts(texts: Sequence[str]) -> Float[np.ndarray, "n buckets"]:
    grams, counts = Grams.characters(texts), np.zeros((len(texts) << _BUCKET_BITS,), dtype=np.float32)
    for length in _LENGTHS:
        hashes, owner = grams.hashes(length)
        buckets = (owner << _BUCKET_BITS) + (hashes >> np.uint64(64 - _BUCKET_BITS)).astype(np.int64)
        counts += np.bincount(buckets, minlength=len(counts))
    return counts.reshape(len(texts), -1)


def mauve(p: Features, q: Features, *, clusters: int = 0, seed: int = 0) -> float:
    """MAUVE's area (Pillutla et al. 2021) of two sets of features: `mauve_area` of their histograms over k-means cells.

    Published figures are computed in the features of GPT-2; figures in other features, such as those of
    `HashedNgrams`, do not compare with them. `clusters` is the number of cells (0: a tenth of the smaller
    set, at least 2). The area falls with the size of the sets even for two samples of one distribution, so only sets of
    equal sizes compare.
    """
    cells = kmeans(np.concatenate((p, q)), clusters or max(2, min(len(p), len(q)) // 10), seed=seed)
    size = int(cells.max()) + 1
    return mauve_area(np.bincount(cells[: len(p)], minlength=size), np.bincount(cells[len(p) :], minlength=size))


def mauve_area(p: Num[np.ndarray, " k"], q: Num[np.ndarray, " k"]) -> float:
    """Area under the divergence frontier of two histograms, with the scaling c = 5 of Pillutla et al. (2021).

    The frontier is (exp(-c KL(q | r)), exp(-c KL(p | r))) for r = a p + (1 - a) q, a from 0 to 1. The area is 1 for
    equal histograms and 5 B(6, 5) = 0.004 for disjoint ones. The histograms need not sum to one.
    """
    p, q = p / p.sum(), q / q.sum()
    weight = np.linspace(0, 1, 401)[1:-1, None]
    mixture = weight * p + (1 - weight) * q
    x, y = (np.exp(-5 * _kl(side, mixture)) for side in (q, p))
    x, y = np.concatenate(([0.0], x[::-1], [1.0])), np.concatenate(([1.0], y[::-1], [0.0]))
    order = np.lexsort((-y, x))
    return float(np.trapezoid(y[order], x[order]))


def _kl(p: Float[np.ndarray, " k"], r: Float[np.ndarray, "m k"]) -> Float[np.ndarray, " m"]:
    support = p > 0
    return (p[support] * np.log(p[support] / r[:, support])).sum(1)


def kmeans(points: Features, clusters: int, *, seed: int = 0, rounds: int = 50) -> Int[np.ndarray, " n"]:
    """The cluster of each point by Lloyd's algorithm, from random distinct points."""
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
        means = members.T @ points / np.maximum(sizes, 1)
        centres = np.where(sizes > 0, means, centres)  # an empty cell keeps its centre
    return cells


def frechet_distance(p: Features, q: Features) -> float:
    """Squared Frechet distance of fitted Gaussians (Heusel et al. 2017), with means m and covariances C:

        |m_p - m_q|^2 + tr(C_p + C_q - 2 (C_p^1/2 C_q C_p^1/2)^1/2)

    It grows as sets get smaller, so only sets of equal sizes compare.
    """
    a, b = (np.atleast_2d(np.cov(side, rowvar=False)) for side in (p, q))
    values, vectors = np.linalg.eigh(a)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ b @ root), 0)).sum()
    return max(0.0, float(((p.mean(0) - q.mean(0)) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * cross))


def _encoder(real: ReferenceTexts) -> Encoder:
    return real.encoder or HashedNgrams(real.train_sample)


def _unseen_features(real: ReferenceTexts) -> Features:
    return real.once(_encoder)(real.unseen)


def _features(texts: TextSet, encoder: Encoder) -> Features:
    return encoder(texts.texts)


@metric(
    "MAUVE (own features)",
    unit="0.004 to 1",
    best="high",
    meaning="overlap with unseen real text in clusters of the encoder's features; not comparable with MAUVE of GPT-2",
)
def mauve_of_texts(texts: TextSet, real: ReferenceTexts) -> float:
    return mauve(texts.once(_features, real.once(_encoder)), real.once(_unseen_features))


@metric(
    "Frechet distance",
    unit="squared distance",
    best="low",
    meaning="to unseen real text, between Gaussians fitted to the encoder's features",
)
def frechet_distance_of_texts(texts: TextSet, real: ReferenceTexts) -> float:
    return frechet_distance(texts.once(_features, real.once(_encoder)), real.once(_unseen_features))
