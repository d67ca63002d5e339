"""Draws depend on (seed, stream, step, row, position) alone, and look like what they are called."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from textdiffusion.core import randomness
from textdiffusion.core.randomness import Rng


def _chi_square(counts, law=None):
    """The normal score of a chi-square statistic: within +-4.5 where the counts follow the law."""
    counts = counts.double()
    expected = counts.sum() * (torch.full_like(counts, 1 / len(counts)) if law is None else law.double())
    statistic = float(((counts - expected) ** 2 / expected).sum())
    free = len(counts) - 1
    return (statistic - free) / math.sqrt(2 * free)


def _kolmogorov(draws):
    """sqrt(n) times the largest gap between the empirical distribution of uniforms and theirs."""
    ordered = draws.double().flatten().sort().values
    n = len(ordered)
    return float((ordered - (torch.arange(n) + 0.5) / n).abs().max()) * math.sqrt(n)


@settings(max_examples=25)
@given(
    seed=st.integers(-(2**63), 2**64),
    rows=st.lists(st.integers(0, 2**40), min_size=1, max_size=6, unique=True),
    step=st.integers(0, 2**40),
)
def test_a_row_draws_the_same_in_any_batch(seed, rows, step):
    whole = Rng.of(seed, torch.tensor(rows)).fork("noise").fork(step)
    for i, row in enumerate(rows):
        alone = Rng.of(seed, torch.tensor([row])).fork("noise").fork(step)
        assert torch.equal(whole.random_uint32(3, 2)[i : i + 1], alone.random_uint32(3, 2))
        assert torch.equal(whole.normal(3)[i : i + 1], alone.normal(3))
        assert torch.equal(whole.select(torch.tensor([i])).uniform(4), alone.uniform(4))
        assert torch.equal(whole.shared_uniform(), alone.shared_uniform())


def test_categoricals_do_not_depend_on_the_batch():
    weights = torch.rand(8, 5, 7, generator=torch.Generator().manual_seed(0))
    whole = Rng.of(3, 8).categorical(weights)
    parts = [Rng.of(3, torch.arange(8)[p]).categorical(weights[p]) for p in (slice(0, 3), slice(3, 8))]
    assert torch.equal(whole, torch.cat(parts))


def test_a_longer_row_starts_like_a_shorter_one():
    rng = Rng.of(0, 4)
    assert torch.equal(rng.uniform(10)[:, :6], rng.uniform(6))
    assert torch.equal(rng.normal(9)[:, :5], rng.normal(5))


def test_known_values():
    """Runs of any version resume and reproduce: these numbers must never change."""
    rng = Rng.of(42, 2).fork("noise").fork(7)
    assert rng.random_uint32(2).tolist() == [[753019190, 688839671], [850362005, 1005240576]]


@pytest.mark.parametrize("stream", ["reveal", "token", 0, 1, 123456789])
def test_words_are_uniform(stream):
    words = Rng.of(1, 200).fork(stream).random_uint32(1000).flatten()
    assert bool(((words >= 0) & (words < 2**32)).all())
    for shift in (0, 8, 16, 24):
        assert abs(_chi_square(torch.bincount(words >> shift & 255, minlength=256))) < 4.5
    ones = torch.stack([(words >> bit & 1).double().mean() for bit in range(32)])
    assert float((ones - 0.5).abs().max()) < 4.5 * 0.5 / len(words) ** 0.5
    # Neighbouring words together, on a 16 x 16 grid.
    assert abs(_chi_square(torch.bincount((words[:-1] >> 28) * 16 + (words[1:] >> 28), minlength=256))) < 4.5


@pytest.mark.parametrize("shape", [(100_000, 1), (1, 100_000), (300, 300)], ids=str)
def test_uniforms_are_uniform_over_rows_and_over_positions(shape):
    draws = Rng.of(5, shape[0]).uniform(shape[1])
    assert bool(((draws > 0) & (draws < 1)).all())
    assert _kolmogorov(draws) < 2.0
    assert draws.dtype == torch.float32


@pytest.mark.parametrize("word", [0, 2**32 - 1])
def test_the_extremes_stay_inside(word, monkeypatch):
    """Every draw of the smallest or of the largest word alone."""
    monkeypatch.setattr(randomness, "mix", lambda x: torch.full_like(x, word))
    rng = Rng(torch.tensor(0), torch.arange(2))
    assert bool((rng.random_uint32(3) == word).all())
    for draw in (rng.uniform(3), rng.shared_uniform()):
        assert bool(((draw > 0) & (draw < 1)).all())
    assert bool(rng.normal(3).isfinite().all())
    for limit in (0.5, 2.0, 8.0):
        assert bool((rng.truncated_normal(limit, 3).abs() <= limit).all())
    weights = torch.tensor([0.0, 0.3, 0.6, 0.0])
    assert bool((rng.categorical(weights.expand(2, 3, 4)) == (2 if word else 1)).all())


def _correlation(a, b):
    a, b = (x.double().flatten() - x.double().mean() for x in (a, b))
    return float((a * b).mean() / (a.std() * b.std())) * len(a) ** 0.5


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (Rng.of(0, 200), Rng.of(1, 200)),
        (Rng.of(0, 200), Rng.of(2**32, 200)),
        (Rng.of(0, 200).fork("t"), Rng.of(0, 200).fork("noise")),
        (Rng.of(0, 200).fork(0), Rng.of(0, 200).fork(1)),
        (Rng.of(0, 200).fork(1).fork(2), Rng.of(0, 200).fork(2).fork(1)),
        (Rng.of(0, torch.arange(200)), Rng.of(0, torch.arange(1, 201))),
        (Rng.of(0, torch.arange(200)), Rng.of(0, torch.arange(200) + 2**31)),
        (Rng.of(0, 200), Rng.of(0, 200).fork(0)),
    ],
    ids=["seeds", "high seeds", "names", "steps", "order of forks", "next rows", "far rows", "fork"],
)
def test_streams_are_independent(a, b):
    x, y = a.uniform(500), b.uniform(500)
    assert abs(_correlation(x, y)) < 4.5
    assert abs(_correlation(x - 0.5, (y - 0.5).abs())) < 4.5
    joint = torch.bincount(((x * 8).long() * 8 + (y * 8).long()).flatten(), minlength=64)
    assert abs(_chi_square(joint)) < 4.5


def test_steps_do_not_repeat():
    keys = torch.stack([Rng.of(0, 1).fork(i).key for i in range(2000)])
    assert len(keys.unique()) == len(keys)


def test_positions_do_not_repeat_in_a_row():
    words = Rng.of(9, 4).random_uint32(50_000)
    for row in words:
        assert len(row.unique()) == 50_000  # a bijection of the position, given the row


def test_normals_have_their_moments_and_tails():
    z = Rng.of(2, 1000).normal(1000).double()
    n = z.numel()
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(float((z**power).mean()) - moment) < 4.5 * (variance / n) ** 0.5
    for edge in (1.0, 2.0, 3.0, 4.0):
        tail = math.erfc(edge / math.sqrt(2))
        assert abs(float((z.abs() > edge).double().mean()) - tail) < 4.5 * (tail / n) ** 0.5
    assert _kolmogorov(torch.special.ndtr(z)) < 2.0
    assert abs(_correlation(z[:, ::2], z[:, 1::2])) < 4.5  # the two of a Box-Muller pair
    assert abs(_correlation(z[:, ::2] ** 2, z[:, 1::2] ** 2)) < 4.5
    assert abs(_correlation(z[:-1], z[1:])) < 4.5


@pytest.mark.parametrize("shape", [(), (3,), (3, 5), (2, 2, 2)], ids=str)
def test_shapes(shape):
    rng = Rng.of(0, 4)
    for draw in (rng.random_uint32, rng.uniform, rng.normal):
        assert draw(*shape).shape == (4, *shape)
    assert rng.categorical(torch.ones(4, *shape, 6)).shape == (4, *shape)


def test_categorical_frequencies():
    law = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.1999, 1e-4, 0.0])
    ids = Rng.of(6, 400).categorical(law.expand(400, 1000, 7) * 17.0)  # unnormalised
    counts = torch.bincount(ids.flatten(), minlength=7)
    assert counts[[0, 2, 6]].tolist() == [0, 0, 0]
    kept = law > 0
    assert abs(_chi_square(counts[kept], law[kept])) < 4.5


def test_a_zero_weight_is_never_drawn_even_at_the_ends():
    for seed in range(20):
        weights = torch.zeros(50, 20, 5)
        weights[..., 2] = 1e-30
        assert bool((Rng.of(seed, 50).categorical(weights) == 2).all())


def test_categorical_is_the_inverse_of_the_cumulative_sum():
    """At 65 tokens, with one of them tiny at the start."""
    law = torch.full((65,), 1 / 64)
    law[0] = 1e-4
    ids = Rng.of(8, 500).categorical(law.expand(500, 600, 65))
    assert abs(int((ids == 0).sum()) - 30) < 4.5 * 30**0.5
    assert abs(_chi_square(torch.bincount(ids[ids > 0], minlength=65)[1:])) < 4.5


def test_places_are_drawn_among_those_asked_for():
    where = torch.tensor([True, False, True, True, False, True]).expand(4000, 6)
    count = (torch.arange(4000) % 6).float()[:, None]  # in some rows more than there are
    chosen = Rng.of(9, 4000).random_subset(where, count)
    assert not bool(chosen[~where].any())
    assert torch.equal(chosen.sum(-1), count[:, 0].clamp(max=4).long())
    assert abs(_chi_square(chosen[count[:, 0] < 4].sum(0)[where[0]])) < 4.5
    assert torch.equal(Rng.of(9, 4000).random_subset(where, 2).sum(-1), torch.full((4000,), 2))
