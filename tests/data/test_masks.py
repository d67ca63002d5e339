"""Conditioning masks: what is given, in which proportions, and that a row's mask is its own."""

from typing import get_args

import pytest
import torch

from textdiffusion.core.errors import UserError
from textdiffusion.core.randomness import Rng
from textdiffusion.data.config import MaskKind
from textdiffusion.data.masks import MASKS, MIXTURES, SPANS, sample_condition_mask, scatters_conditions

ALL = [*MASKS, *MIXTURES]


def real_of(*sizes: int, length: int = 12) -> torch.Tensor:
    return torch.arange(length) < torch.tensor(sizes)[:, None]


def test_the_configuration_knows_them_all():
    assert set(get_args(MaskKind)) == {*ALL, "question"}  # which is the data's to say


@pytest.mark.parametrize("kind", ALL)
def test_only_real_positions_are_given_and_one_is_left(kind):
    real = real_of(*range(13)).repeat(50, 1)
    real[13:26] = real[13:26].roll(3, dims=1)  # padding need not be at the end
    given = sample_condition_mask(kind, real, Rng.of(0, len(real)))
    assert not (given & ~real).any()
    assert ((real & ~given).any(1) == real.any(1)).all()


@pytest.mark.parametrize("kind", ALL)
def test_a_row_draws_the_same_in_any_batch(kind):
    real = real_of(*[12] * 40)
    whole = sample_condition_mask(kind, real, Rng.of(3, 40))
    part = sample_condition_mask(kind, real[[7, 31]], Rng.of(3, torch.tensor([7, 31])))
    assert torch.equal(whole[[7, 31]], part)
    assert kind == "none" or not torch.equal(whole, sample_condition_mask(kind, real, Rng.of(4, 40)))


def test_prefix_and_random_counts_are_uniform():
    real = real_of(*[8] * 8000)
    for kind in ("prefix", "random"):
        given = sample_condition_mask(kind, real, Rng.of(0, 8000))
        counts = given.sum(1).bincount(minlength=8) / 8000
        assert torch.allclose(counts, torch.full((8,), 1 / 8), atol=0.02)
    rates = given[:, :8].float().mean(0)
    assert torch.allclose(rates, torch.full((8,), 3.5 / 8), atol=0.03)  # anywhere alike
    prefix = sample_condition_mask("prefix", real, Rng.of(0, 8000))
    assert (prefix[:, 1:] <= prefix[:, :-1]).all()


def test_spans_are_one_to_five_and_shuffling_keeps_their_size():
    real = real_of(*[60] * 4000, length=64)
    given = sample_condition_mask("span", real, Rng.of(0, 4000))
    noised = torch.nn.functional.pad(real & ~given, (1, 1))
    spans = (noised[:, 1:] & ~noised[:, :-1]).sum(1)
    shares = spans.bincount(minlength=SPANS + 1) / 4000
    assert shares[0] == 0
    assert len(shares) == SPANS + 1
    assert torch.allclose(shares[1:], torch.full((SPANS,), 0.2), atol=0.03)
    shuffled = sample_condition_mask("shuffled_span", real, Rng.of(0, 4000))
    assert torch.equal(shuffled.sum(1), given.sum(1))
    assert not torch.equal(shuffled, given)


def test_a_given_span_has_any_length_and_place():
    real = real_of(*[8] * 8000)
    given = sample_condition_mask("given_span", real, Rng.of(0, 8000))
    begins = (torch.nn.functional.pad(given, (1, 0)).diff(dim=1).int() & given.int()).sum(1)
    assert set(begins.tolist()) == {0, 1}
    assert torch.allclose(given.sum(1).bincount(minlength=8) / 8000, torch.full((8,), 1 / 8), atol=0.02)
    firsts = given[given.sum(1) == 3].int().argmax(1).bincount(minlength=6).float()
    assert torch.allclose(firsts / firsts.sum(), torch.full((6,), 1 / 6), atol=0.05)


@pytest.mark.parametrize("kind", ALL)
def test_examples_of_a_packed_row_are_drawn_as_rows_of_their_own(kind):
    sizes, rows = (5, 3, 4), 3000
    segments = torch.repeat_interleave(torch.arange(4), torch.tensor((*sizes, 2))).expand(rows, 14)
    real = (segments < 3).clone()
    packed = sample_condition_mask(kind, real, Rng.of(0, rows), segments)
    assert not (packed & ~real).any()
    counts = []
    for number, size in enumerate(sizes):
        given = packed[:, segments[0] == number]
        alone = sample_condition_mask(kind, torch.ones(rows, size, dtype=torch.bool), Rng.of(1, rows))
        found, expected = (mask.sum(1).bincount(minlength=size + 1) / rows for mask in (given, alone))
        assert found[size] == 0  # something is left of every example
        assert torch.allclose(found, expected, atol=0.04)
        counts.append(given.float().mean(1))
    between = torch.corrcoef(torch.stack(counts))
    assert kind == "none" or (between - torch.eye(3)).abs().max() < 0.06


def test_mixtures_keep_their_shares():
    real = real_of(*[12] * 4000)
    given = sample_condition_mask("mixed", real, Rng.of(0, 4000))
    nothing = float((given.sum(1) == 0).float().mean())
    assert 0.27 < nothing < 0.35  # a quarter on purpose, a twelfth of two other quarters, few spans of everything
    either = sample_condition_mask("prefixes", real, Rng.of(0, 4000))
    prefixes = (either[:, 1:] <= either[:, :-1]).all(1).float().mean()
    assert 0.5 < float(prefixes) < 0.65


def test_unknown_kind():
    with pytest.raises(UserError, match="no conditioning mask 'suffix'; it can be none, prefix"):
        sample_condition_mask("suffix", real_of(3), Rng.of(0, 1))


@pytest.mark.parametrize("kind", ALL)
def test_what_is_given_anywhere_falls_into_more_pieces_than_spans_leave(kind):
    given = sample_condition_mask(kind, real_of(*[32] * 400, length=32), Rng.of(5, 400)).int()
    pieces = given[:, 0] + (given.diff(dim=1) == 1).sum(1)
    assert (int(pieces.max()) > SPANS + 1) == scatters_conditions(kind)


def test_questions_are_not_given_anywhere():
    assert not scatters_conditions("question")
