"""Distances between sets of features, on cases with known values."""

import math
from itertools import pairwise

import numpy as np
import pytest

from textdiffusion.evaluation.metrics.features import HashedNgrams, frechet_distance, kmeans, mauve, mauve_area


def test_the_frontier_of_equal_and_of_disjoint_histograms():
    p = np.array([3, 1, 6])
    assert mauve_area(p, 10 * p) == pytest.approx(1)
    disjoint = 5 * math.gamma(6) * math.gamma(5) / math.gamma(11)  # the integral of a^5 d(1 - a)^5
    assert mauve_area(np.array([1, 2, 0, 0]), np.array([0, 0, 3, 1])) == pytest.approx(disjoint, abs=2e-5)


def test_the_frontier_of_two_coins():
    """x and y straight from the definition, on another grid of mixtures."""
    p, q, c = (0.8, 0.2), (0.4, 0.6), 5
    points = [(0.0, 1.0)]
    for a in np.arange(9999, 0, -1) / 10_000:
        r = [a * i + (1 - a) * j for i, j in zip(p, q, strict=True)]
        x, y = (sum(i * math.log(i / k) for i, k in zip(side, r, strict=True)) for side in (q, p))
        points.append((math.exp(-c * x), math.exp(-c * y)))
    points.append((1.0, 0.0))
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(points))
    assert mauve_area(np.array(p), np.array(q)) == pytest.approx(area, abs=1e-3)
    assert mauve_area(np.array(q), np.array(p)) == pytest.approx(area, abs=1e-3)


def test_kmeans_finds_clusters_and_the_area_knows_what_is_shared():
    rng = np.random.default_rng(0)
    centres = 20 * np.eye(4)
    points = np.concatenate([centre + rng.normal(size=(50, 4)) for centre in centres])
    cells = kmeans(points, 20).reshape(4, 50)
    assert len({frozenset(row) for row in cells}) == 4
    assert not any(set(a) & set(b) for i, a in enumerate(cells) for b in cells[:i])
    again = np.concatenate([centre + rng.normal(size=(50, 4)) for centre in centres])
    alike, lacking = mauve(points, again), mauve(points[:100], again)
    assert 0.9 < alike <= 1
    assert 0.1 < lacking < 0.8 * alike
    assert mauve(points[:100], points[100:]) < 0.01


def test_the_frechet_distance_of_gaussians():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(400, 3))
    z -= z.mean(0)
    z = z @ np.linalg.inv(np.linalg.cholesky(np.cov(z, rowvar=False))).T  # covariance exactly one
    assert frechet_distance(z, z) == pytest.approx(0, abs=1e-9)
    shifted = z * np.array([2.0, 1.0, 0.5]) + np.array([3.0, 0.0, 4.0])
    assert frechet_distance(z, shifted) == pytest.approx(25 + 1 + 0.25)
    a, b = rng.normal(size=(2, 3, 3))
    left, right = a @ a.T, b @ b.T
    roots = np.sqrt(np.linalg.eigvals(left @ right).real).sum()
    assert frechet_distance(z @ a.T, z @ b.T) == pytest.approx(np.trace(left) + np.trace(right) - 2 * roots)
    assert frechet_distance(z[:, :1], 2 * z[:, :1]) == pytest.approx(1)


def test_hashed_n_grams_are_features_of_single_texts():
    fit = [f"the {a} king of {b} says {c}" for a in ("old", "young") for b in ("rome", "troy") for c in ("yes", "no")]
    encode = HashedNgrams(fit, width=5)
    texts = ["the old king", "qqqqqqqq", ""]
    found = encode(texts)
    assert found.shape == (3, 5)
    np.testing.assert_allclose(found[1], encode(texts[1:2])[0], atol=1e-6)
    assert (found[2] == 0).all()
    assert np.linalg.norm(found[0]) > np.linalg.norm(found[1])
    assert np.linalg.norm(encode(fit), axis=1).max() <= 1 + 1e-5
