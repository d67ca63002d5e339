"""Rules that end a text early, or mend it: what they reveal, what they cost, and the law they draw from."""

from dataclasses import replace

import pytest
import torch

from textdiffusion import TextDiffusion
from textdiffusion.core.errors import UserError
from textdiffusion.core.randomness import Rng
from textdiffusion.diffusion.alpha_schedules import CosineAlpha, Linear
from textdiffusion.guidance.ending import PaddingAfterEnd
from textdiffusion.samplers.ancestral import Ancestral
from textdiffusion.samplers.base import Request
from textdiffusion.samplers.unmasking import Unmasking

from .convergence import LANGUAGE
from .language import Language, ideal_masked, ideal_uniform, last

DRAWS = 10_000


def _run(sampler, language=LANGUAGE, steps=3, make=ideal_masked, schedule=None, guides=(), draws=DRAWS):
    request = Request.blank(draws, language.length, steps, guides)
    with torch.no_grad():
        return last(sampler(make(language, schedule or CosineAlpha()), request, rng=Rng.of(1, draws)))


def _independent(length):
    ids = Language.random(2, length).ids
    return replace(Language.random(2, length), probs=torch.where(ids == 0, 0.75, 0.25).prod(-1))


def test_a_leap_relaxes_the_threshold_beside_certain_positions():
    certain = torch.tensor([0.6, 0.95, 0.6, 0.6, 0.3, 0.95, 0.5])
    probs = torch.stack([certain, 1.0 - certain], -1).max(torch.tensor(0.0))
    masked, due = torch.ones(1, 7, dtype=torch.bool), torch.tensor([1])
    probs = torch.cat([probs, torch.zeros(7, 1)], -1)

    def chosen(**settings):
        sampler = Unmasking(order="confidence", spaced=False, **settings)
        return sampler.choose(probs, masked, due, rng=Rng.of(0, 1))[0].nonzero()[:, 0].tolist()

    assert chosen(threshold=0.9) == [1, 5]
    assert chosen(threshold=0.9, leap_threshold=0.55) == [0, 1, 2, 4, 5]  # the fifth is sure of its second token


def test_only_predictions_that_no_longer_change_pass_the_threshold():
    """Of independent tokens they never change, so the second call reveals all that the first could not compare."""
    language = _independent(4)
    assert _run(Unmasking(threshold=0.1), language, steps=4).nfe == 1.0
    step = _run(Unmasking(threshold=0.1, stability=1e-4), language, steps=4)
    assert step.nfe == 2.0
    assert language.distance(step.tokens) < 2.0 * language.floor(DRAWS)


def test_dependent_tokens_wait_until_they_are_stable():
    hasty = _run(Unmasking(threshold=0.1))
    step = _run(Unmasking(threshold=0.1, stability=1e-6))
    assert LANGUAGE.distance(hasty.tokens) > 5.0 * LANGUAGE.floor(DRAWS)
    assert LANGUAGE.distance(step.tokens) < 2.0 * LANGUAGE.floor(DRAWS)
    assert step.nfe > 2.0


def test_an_edit_mends_tokens_that_were_drawn_together():
    """All tokens are equal. Two drawn at once differ half the time, until one of them is hidden and replaced."""
    language = Language.of({(0, 0, 0, 0): 0.5, (1, 1, 1, 1): 0.5})
    plain, edited = (_run(Unmasking(edit=edit), language, steps=2) for edit in (1.0, 0.9))
    assert language.distance(plain.tokens) > 0.4
    assert language.distance(edited.tokens) < 2.0 * language.floor(DRAWS)
    assert (plain.nfe, edited.nfe) == (2.0, 4.0)
    assert bool((edited.confidence > 0.4).all())


def test_an_edit_of_what_cannot_be_surer_changes_nothing():
    language = _independent(4)
    plain, edited = (_run(Unmasking(edit=edit), language, steps=2) for edit in (1.0, 0.8))
    assert language.distance(edited.tokens) < 2.0 * language.floor(DRAWS)
    assert torch.equal(plain.tokens, edited.tokens)


@pytest.mark.parametrize("make", [ideal_masked, ideal_uniform])
def test_patience_ends_rows_whose_predictions_are_settled(make):
    """Of a language with a single text all predictions are: the first, and as many as patience asks to be the same."""
    language = Language.of({(1, 0, 2): 1.0})
    step = _run(Ancestral(patience=2), language, steps=8, make=make, schedule=Linear())
    assert bool((step.tokens == torch.tensor([1, 0, 2])).all())
    plain = _run(Ancestral(), language, steps=8, make=make, schedule=Linear())
    assert step.nfe <= plain.nfe  # at most three steps reveal a mask
    assert make is ideal_masked or step.nfe == 3.0 < plain.nfe


def test_patience_takes_the_likeliest_tokens_and_so_is_biased():
    samplers = (Ancestral(), Ancestral(patience=2, patience_entropy=0.0), Ancestral(patience=2, patience_entropy=0.5))
    exact, none, early = (_run(each, steps=20, make=ideal_uniform, schedule=Linear(), draws=3000) for each in samplers)
    assert torch.equal(exact.tokens, none.tokens)
    assert early.nfe < 0.8 * exact.nfe
    assert LANGUAGE.distance(early.tokens) > LANGUAGE.distance(exact.tokens)


def test_what_follows_the_end_needs_no_calls():
    """Tokens: 0 text, 1 end, 2 padding. From left to right each row takes a call up to its end."""
    language = Language.of({(1, 2, 2, 2): 0.4, (0, 1, 2, 2): 0.3, (0, 0, 1, 2): 0.2, (0, 0, 0, 1): 0.1})
    guide = PaddingAfterEnd(end=1, pad=2, mask=3)
    for order in ("left", "random"):
        step = _run(Unmasking(order=order), language, steps=4, guides=(guide,))
        assert language.distance(step.tokens) < 2.0 * language.floor(DRAWS)
        assert step.nfe < 3.0
    step = _run(Unmasking(order="left"), language, steps=4, guides=(guide,))
    assert step.nfe == pytest.approx(0.4 + 0.3 * 2 + 0.2 * 3 + 0.1 * 4, abs=0.05)


def test_a_run_that_learned_padding_stops_at_the_end(tiny_run):
    words = ("text.tokenizer=words", "text.layout=lines", "text.length=8", "text.model_padding=true")
    model = TextDiffusion.from_pretrained(tiny_run("mdlm", *words))
    step = list(model.stream(num=8, steps=8, sampler="unmasking:order=left", guides=["stop_at_end"]))[-1]
    end, pad = torch.tensor([model.tokenizer.end_id or 0, model.tokenizer.pad_id or 0])
    ended = ((step.tokens == pad) | (step.tokens == end)).cumsum(-1) > 0
    assert bool(ended[:, :-1].any())
    assert bool((step.tokens[:, 1:] == pad)[ended[:, :-1]].all())
    assert step.nfe < 8.0
    stream = TextDiffusion.from_pretrained(tiny_run("mdlm"))
    with pytest.raises(UserError, match=r"stop_at_end needs a run that learned where texts end"):
        list(stream.stream(num=1, guides=["stop_at_end"]))


def test_settings_of_the_threshold_need_one():
    with pytest.raises(UserError, match=r"sampler.leap_threshold=0.5 has no effect without sampler.threshold"):
        Unmasking(leap_threshold=0.5)
    with pytest.raises(UserError, match=r"sampler.stability=0.5 has no effect without sampler.threshold"):
        Unmasking(stability=0.5)


def test_patience_counts_predictions_and_not_steps_that_change_nothing():
    """One mask, revealed late: with a single prediction to go by, no row has been patient."""
    language = Language.of({(0,): 0.5, (1,): 0.5})
    plain, patient = (
        _run(Ancestral(patience=patience, patience_entropy=1.0), language, steps=40, schedule=Linear(), draws=400)
        for patience in (0, 1)
    )
    assert torch.equal(plain.tokens, patient.tokens)
