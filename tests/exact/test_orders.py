"""Rules of order draw from the law of the data where they should; drawn together, what they should take is taken."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from textdiffusion.batch import Batch
from textdiffusion.processes.schedules import CosineMask
from textdiffusion.randomness import Rng
from textdiffusion.samplers.ordered import Ordered, _first_of_stretches
from textdiffusion.samplers.step import Request

from .convergence import LANGUAGE
from .language import ideal_masked

DRAWS = 20_000
MODEL = ideal_masked(LANGUAGE, CosineMask())


def _run(sampler, steps=3, model=MODEL, batch=None, draws=DRAWS):
    request = Request.blank(draws, LANGUAGE.length, steps) if batch is None else Request(batch, steps)
    with torch.no_grad():
        return list(sampler(model, request, rng=Rng.of(1, draws)))


@pytest.mark.parametrize("block", [0, 2])
@pytest.mark.parametrize("order", ["random", "confidence", "margin", "entropy", "left"])
def test_one_place_a_step_is_exact_in_any_order(order, block):
    """A choice of the place by the token drawn there, by its probability, would be at 40 times the floor."""
    step = _run(Ordered(order, block=block))[-1]
    assert LANGUAGE.distance(step.ids) < 2.0 * LANGUAGE.floor(DRAWS)
    assert step.calls == 3.0


@pytest.mark.parametrize("sampler", [Ordered("left", bound=1e-5), Ordered("left", threshold=0.99999)])
def test_places_that_leave_no_choice_need_no_step_of_their_own(sampler):
    """The last token repeats the first."""
    law = LANGUAGE.law * (LANGUAGE.ids[:, 0] == LANGUAGE.ids[:, 2])
    language = replace(LANGUAGE, law=law / law.sum())
    step = _run(sampler, model=ideal_masked(language, CosineMask()))[-1]
    assert language.distance(step.ids) < 2.0 * language.floor(DRAWS)
    assert step.calls == 2.0


@pytest.mark.parametrize(("bound", "together"), [(0.71, 1), (0.73, 2), (1.51, 2), (1.53, 3)])
def test_the_entropy_bound_takes_the_sum_of_entropies_less_the_largest(bound, together):
    """Of three masks the predictions have 0.722, 0.797 and 0.925 nats."""
    first = _run(Ordered("entropy", bound=bound), draws=4)[1]
    assert (first.ids < 3).sum(-1).tolist() == [together] * 4
    assert bool((first.ids[:, 1] < 3).all())


@given(
    st.integers(1, 24).flatmap(
        lambda length: st.tuples(
            st.permutations(range(length)), st.lists(st.booleans(), min_size=length, max_size=length), st.integers(1, 8)
        )
    )
)
def test_places_of_one_step_are_the_surest_of_stretches_of_equal_length(drawn):
    sureness, masks, due = drawn
    places = [i for i, masked in enumerate(masks) if masked]
    due = min(due, len(places))
    found = _first_of_stretches(
        torch.tensor([sureness]).float(), torch.tensor([masks]), torch.zeros(1, len(masks)).long(), torch.tensor([due])
    )
    stretches = [places[-(-i * len(places) // due) : -(-(i + 1) * len(places) // due)] for i in range(due)]
    assert found[0].nonzero()[:, 0].tolist() == [max(part, key=sureness.__getitem__) for part in stretches]


def test_stretches_are_of_the_first_block_that_has_masks():
    masked = torch.tensor([[False, False, True, True, True, True, True, True]])
    block = torch.where(masked, torch.arange(8) // 4, 8)
    sureness = torch.arange(8).float()[None]
    for due, expected in ((1, [3]), (2, [2, 3]), (3, [2, 3, 4])):
        found = _first_of_stretches(sureness, masked, block, torch.tensor([due]))
        assert found[0].nonzero()[:, 0].tolist() == expected


def test_without_spreading_the_surest_places_are_taken():
    """What the first place says of the last makes both uncertain; the middle is next to certain."""
    law = LANGUAGE.law * (LANGUAGE.ids[:, 0] == LANGUAGE.ids[:, 2])
    model = ideal_masked(replace(LANGUAGE, law=law / law.sum()), CosineMask())
    torn = [_run(Ordered("entropy", spread=spread), 2, model=model)[1].ids[0] == 3 for spread in (True, False)]
    assert not torch.equal(*torn)


def test_given_places_condition_the_rest_and_cost_no_calls():
    given = torch.tensor([False, True, False])
    text = LANGUAGE.ids[LANGUAGE.law.argmax()].expand(DRAWS, 3)
    step = _run(Ordered("margin"), 9, batch=Batch(text, given=given.expand(DRAWS, 3)))[-1]
    keep = LANGUAGE.law * (LANGUAGE.ids[:, 1] == text[0, 1])
    counts = torch.bincount(LANGUAGE.number(step.ids), minlength=len(keep)) / DRAWS
    assert float((counts - keep / keep.sum()).abs().sum() / 2) < 2.0 * LANGUAGE.floor(DRAWS)
    assert step.calls == 2.0


def test_rows_take_steps_by_the_places_of_their_own():
    given = torch.tensor([[False, False, False], [True, False, True], [True, True, False]])
    batch = Batch(LANGUAGE.ids[LANGUAGE.law.argmax()].expand(3, 3), given=given)
    few, many = (_run(Ordered("random"), steps, batch=batch, draws=3) for steps in (3, 9))
    assert [(step.ids == 3).sum(-1).tolist() for step in many[:4]] == [[3, 1, 1], [2, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert all(torch.equal(a.ids, b.ids) for a, b in zip(few, many, strict=False))


def test_greedy_steps_take_the_likeliest_text():
    ids = _run(Ordered("left", greedy=1.0), draws=5)[-1].ids
    assert torch.equal(ids, ids[:1].expand(5, 3))
    tail = _run(Ordered("left", greedy=0.4))[-1].ids  # the last of three places
    assert len(torch.unique(LANGUAGE.number(tail))) == len(torch.unique(LANGUAGE.number(tail)[:, None] // 3))


def test_rounds_of_masking_anew_keep_the_law():
    assert LANGUAGE.distance(_run(Ordered("entropy", rounds=5, again=1.0), 12)[-1].ids) < 2.0 * LANGUAGE.floor(DRAWS)


def test_rounds_of_masking_anew_repair_what_was_drawn_together():
    """A threshold of 0 reveals all masks at once, in the rounds too, where they are fewer."""
    once, rounds = (Ordered(threshold=0.0, rounds=n, again=0.5) for n in (0, 8))
    torn = LANGUAGE.distance(_run(once, 1)[-1].ids)
    assert torn > 8.0 * LANGUAGE.floor(DRAWS)
    assert LANGUAGE.distance(_run(rounds, 100)[-1].ids) < 0.5 * torn


def test_rounds_take_steps_as_they_mask_places():
    """Of 12 steps 7 are for the three places, 4 for the two and 1 for the one that are masked anew."""
    steps = _run(Ordered(rounds=2, again=0.5), 12, draws=5)
    masked = [[int(n) for n in (step.ids == 3).sum(-1)] for step in steps]
    assert masked == [[n] * 5 for n in (3, 2, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0)]
    assert [step.index for step in steps] == list(range(13))
    assert steps[-1].calls == 6.0
