"""Rules of order draw from the law of the data where they should; drawn together, what they should take is taken."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from textdiffusion.core.batch import Batch
from textdiffusion.core.randomness import Rng
from textdiffusion.diffusion.alpha_schedules import CosineAlpha
from textdiffusion.samplers.base import Request
from textdiffusion.samplers.unmasking import Unmasking, _first_of_segments

from .convergence import LANGUAGE
from .language import ideal_masked

DRAWS = 20_000
MODEL = ideal_masked(LANGUAGE, CosineAlpha())


def _run(sampler, steps=3, model=MODEL, batch=None, draws=DRAWS):
    request = Request.blank(draws, LANGUAGE.length, steps) if batch is None else Request(batch, steps)
    with torch.no_grad():
        return list(sampler(model, request, rng=Rng.of(1, draws)))


@pytest.mark.parametrize("block", [0, 2])
@pytest.mark.parametrize("order", ["random", "confidence", "margin", "entropy", "left"])
def test_one_place_a_step_is_exact_in_any_order(order, block):
    """A choice of the place by the token drawn there, by its probability, would be at 40 times the floor."""
    step = _run(Unmasking(order=order, block_size=block))[-1]
    assert LANGUAGE.distance(step.tokens) < 2.0 * LANGUAGE.floor(DRAWS)
    assert step.nfe == 3.0


@pytest.mark.parametrize(
    "sampler", [Unmasking(order="left", entropy_bound=1e-5), Unmasking(order="left", threshold=0.99999)]
)
def test_places_that_leave_no_choice_need_no_step_of_their_own(sampler):
    """The last token repeats the first."""
    law = LANGUAGE.law * (LANGUAGE.ids[:, 0] == LANGUAGE.ids[:, 2])
    language = replace(LANGUAGE, probs=law / law.sum())
    step = _run(sampler, model=ideal_masked(language, CosineAlpha()))[-1]
    assert language.distance(step.tokens) < 2.0 * language.floor(DRAWS)
    assert step.nfe == 2.0


@pytest.mark.parametrize(("bound", "together"), [(0.71, 1), (0.73, 2), (1.51, 2), (1.53, 3)])
def test_the_entropy_bound_takes_the_sum_of_entropies_less_the_largest(bound, together):
    """Of three masks the predictions have 0.722, 0.797 and 0.925 nats."""
    first = _run(Unmasking(order="entropy", entropy_bound=bound), draws=4)[1]
    assert (first.tokens < 3).sum(-1).tolist() == [together] * 4
    assert bool((first.tokens[:, 1] < 3).all())


@given(
    st.integers(1, 24).flatmap(
        lambda length: st.tuples(
            st.permutations(range(length)), st.lists(st.booleans(), min_size=length, max_size=length), st.integers(1, 8)
        )
    )
)
def test_places_of_one_step_are_the_first_of_segments_of_equal_length(drawn):
    rank, inside, due = drawn
    places = [i for i, here in enumerate(inside) if here]
    found = _first_of_segments(torch.tensor([rank]), torch.tensor([inside]), torch.tensor([due]))
    due = min(due, len(places))
    stretches = [places[-(-i * len(places) // due) : -(-(i + 1) * len(places) // due)] for i in range(due)]
    assert found[0].nonzero()[:, 0].tolist() == [min(part, key=rank.__getitem__) for part in stretches]


def _taken(sampler, probs, masked, due):
    chosen = sampler.choose(probs, masked[None], torch.tensor([due]), rng=Rng.of(0, 1))
    return chosen[0].nonzero()[:, 0].tolist()


def test_places_that_are_equally_sure_are_spread_too():
    masked = torch.ones(16, dtype=torch.bool)
    for order in ("confidence", "margin", "entropy"):
        assert _taken(Unmasking(order=order), torch.eye(3)[[1] * 16], masked, 4) == [0, 4, 8, 12]


def test_places_are_spread_in_the_block_and_then_the_surest_of_the_next():
    """Surer from left to right; of the first block two masks are left."""
    share = torch.linspace(0.5, 0.9, 10)
    probs, masked = torch.stack((share, 1 - share), dim=-1), torch.arange(16) > 5
    for due, expected in ((1, [7]), (2, [6, 7]), (4, [6, 7, 14, 15])):
        assert _taken(Unmasking(order="confidence", block_size=8), probs, masked, due) == expected
    assert _taken(Unmasking(order="confidence"), probs, masked, 2) == [10, 15]
    assert _taken(Unmasking(order="confidence", spaced=False), probs, masked, 2) == [14, 15]


def test_given_places_condition_the_rest_and_cost_no_calls():
    given = torch.tensor([False, True, False])
    text = LANGUAGE.ids[LANGUAGE.law.argmax()].expand(DRAWS, 3)
    step = _run(Unmasking(order="margin"), 9, batch=Batch(text, condition_mask=given.expand(DRAWS, 3)))[-1]
    keep = LANGUAGE.law * (LANGUAGE.ids[:, 1] == text[0, 1])
    counts = torch.bincount(LANGUAGE.number(step.tokens), minlength=len(keep)) / DRAWS
    assert float((counts - keep / keep.sum()).abs().sum() / 2) < 2.0 * LANGUAGE.floor(DRAWS)
    assert step.nfe == 2.0


def test_rows_take_steps_by_the_places_of_their_own():
    given = torch.tensor([[False, False, False], [True, False, True], [True, True, False]])
    batch = Batch(LANGUAGE.ids[LANGUAGE.law.argmax()].expand(3, 3), condition_mask=given)
    few, many = (_run(Unmasking(order="random"), steps, batch=batch, draws=3) for steps in (3, 9))
    assert [(step.tokens == 3).sum(-1).tolist() for step in many[:4]] == [[3, 1, 1], [2, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(few, many, strict=False))


def test_greedy_steps_take_the_likeliest_text():
    ids = _run(Unmasking(order="left", greedy_below=1.0), draws=5)[-1].tokens
    assert torch.equal(ids, ids[:1].expand(5, 3))
    tail = _run(Unmasking(order="left", greedy_below=0.4))[-1].tokens  # the last of three places
    assert len(torch.unique(LANGUAGE.number(tail))) == len(torch.unique(LANGUAGE.number(tail)[:, None] // 3))


def test_rounds_of_masking_anew_keep_the_law():
    assert LANGUAGE.distance(
        _run(Unmasking(order="entropy", refine_rounds=5, remask_fraction=1.0), 12)[-1].tokens
    ) < 2.0 * LANGUAGE.floor(DRAWS)


def test_rounds_of_masking_anew_repair_what_was_drawn_together():
    """A threshold of 0 reveals all masks at once, in the rounds too, where they are fewer."""
    once, rounds = Unmasking(threshold=0.0), Unmasking(threshold=0.0, refine_rounds=8, remask_fraction=0.5)
    torn = LANGUAGE.distance(_run(once, 1)[-1].tokens)
    assert torn > 8.0 * LANGUAGE.floor(DRAWS)
    assert LANGUAGE.distance(_run(rounds, 100)[-1].tokens) < 0.5 * torn


def test_rounds_take_steps_as_they_mask_places():
    """Of 12 steps 7 are for the three places, 4 for the two and 1 for the one that are masked anew."""
    steps = _run(Unmasking(refine_rounds=2, remask_fraction=0.5), 12, draws=5)
    masked = [[int(n) for n in (step.tokens == 3).sum(-1)] for step in steps]
    assert masked == [[n] * 5 for n in (3, 2, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0)]
    assert [step.index for step in steps] == list(range(13))
    assert steps[-1].nfe == 6.0
