"""Every codec x process x schedule x sampler draws from the law of the data as its steps grow."""

import math

import pytest
import torch

from textdiffusion.core.batch import Batch
from textdiffusion.core.randomness import Rng
from textdiffusion.diffusion.alpha_schedules import CosineAlpha, Linear, LogLinear
from textdiffusion.diffusion.codecs import TableCodec
from textdiffusion.diffusion.sigma_schedules import LogSigma
from textdiffusion.samplers.ancestral import Ancestral, Euler, Tweedie
from textdiffusion.samplers.base import Request
from textdiffusion.samplers.ddim import DDIM
from textdiffusion.samplers.projections import SampleProjection

from .convergence import LANGUAGE, cases
from .language import Language, ideal_gaussian, ideal_masked, ideal_uniform, last, tables

DRAWS = 4000
CASES = list(cases())
BITS = tables(3)["bits"]


@pytest.mark.parametrize("case", CASES, ids=[f"{c.name}, {c.sampler_name}" for c in CASES])
def test_distance_to_the_data_law_falls_with_steps(case):
    coarse, fine = (case.distance(steps, DRAWS) for steps in case.steps)
    floor = LANGUAGE.floor(DRAWS)
    # Errors fall like 1 / steps; these two spend many of their steps where there is nothing to decide yet.
    limit = 0.2 if "linear sigma" in case.name else 0.1 if "200 norms" in case.name else 0.05
    assert fine < limit + floor
    assert fine - floor < 0.45 * (coarse - floor)


def _conditional_distance(ids, given, first):
    """Total variation to p(x | the given tokens)."""
    keep = (LANGUAGE.ids[:, given] == first).all(-1)
    law = LANGUAGE.law * keep / (LANGUAGE.law * keep).sum()
    counts = torch.bincount(LANGUAGE.number(ids), minlength=len(law)) / len(ids)
    return float((counts - law).abs().sum() / 2), float(torch.sqrt(law * (1 - law) / len(ids)).sum() * 0.4)


@pytest.mark.parametrize("where", [[0], [2], [0, 2]], ids=str)
@pytest.mark.parametrize("kind", ["absorbing", "uniform", "absorbing ratios", "uniform ratios", "eta 0", "eta 1"])
def test_given_tokens_are_kept_and_condition_the_rest(kind, where):
    draws = 4000
    given = torch.zeros(3, dtype=torch.bool)
    given[where] = True
    text = LANGUAGE.ids[LANGUAGE.law.argmax()]
    batch = Batch(text.expand(draws, 3), condition_mask=given.expand(draws, 3))
    if kind == "absorbing":
        model, sampler = ideal_masked(LANGUAGE, Linear()), Ancestral()
    elif kind == "uniform":
        model, sampler = ideal_uniform(LANGUAGE, Linear()), Ancestral()
    elif kind == "absorbing ratios":
        model, sampler = ideal_masked(LANGUAGE, CosineAlpha()), Euler()
    elif kind == "uniform ratios":
        model, sampler = ideal_uniform(LANGUAGE, LogLinear()), Tweedie()
    else:
        model, sampler = ideal_gaussian(LANGUAGE, tables(3)["embeddings"]), DDIM(eta=float(kind[-1]))
    with torch.no_grad():
        for step in sampler(model, Request(batch, 40), rng=Rng.of(3, draws)):
            assert bool((step.tokens[:, given] == text[given]).all())
            assert bool((step.confidence[:, given] == 1).all())
    distance, floor = _conditional_distance(step.tokens, given, text[given])
    assert distance < 0.025 + floor


def _renoised_share(likely, sigmas):
    """The share of + among samples of one token, + or -, by quadrature over the chain x' = E[x_0 | x] + sigma' eps."""
    x, bias = torch.linspace(-80.0, 80.0, 1601, dtype=torch.float64), math.log(likely / (1 - likely))
    law = torch.exp(-0.5 * (x / sigmas[0]) ** 2)
    means = [torch.tanh(x / sigma**2 + 0.5 * bias) for sigma in sigmas]
    for mean, then in zip(means[:-2], sigmas[1:-1], strict=True):
        law = (law / law.sum()) @ torch.exp(-0.5 * ((x[None] - mean[:, None]) / then) ** 2)
    # + is read at x > -bias sigma^2 / 2; of the last step that share is known in closed form.
    then = sigmas[-1]
    return float(law / law.sum() @ torch.special.ndtr((means[-2] + 0.5 * bias * then**2) / then))


@pytest.mark.parametrize("steps", [4, 25])
def test_renoising_favours_the_likely_whatever_the_steps(steps):
    """It draws from a law of its own, known here exactly: the mean of a prediction is noised, not a draw from it.

    About 0.78 for a token of 0.7, at 25 steps and at 200.
    """
    language, draws = Language(2, 1, torch.tensor([[0], [1]]), torch.tensor([0.3, 0.7])), 40_000
    codec = TableCodec(torch.tensor([[-1.0], [1.0]]))
    model = ideal_gaussian(language, codec, LogSigma(0.25, 20.0))
    ids = last(DDIM(renoise=True)(model, Request.blank(draws, 1, steps), rng=Rng.of(0, draws))).tokens
    sigmas = model.process.sigma(torch.linspace(1.0, 0.0, steps)).tolist()
    expected, found = _renoised_share(0.7, sigmas), float((ids == 1).float().mean())
    assert found == pytest.approx(expected, abs=4 * (0.8 * 0.2 / draws) ** 0.5)
    assert 0.76 < expected < 0.84


def test_renoising_several_tokens_does_not_converge_to_their_law():
    model, draws = ideal_gaussian(LANGUAGE, BITS), 2000
    with torch.no_grad():
        for steps in (25, 60):
            ids = last(DDIM(renoise=True)(model, Request.blank(draws, 3, steps), rng=Rng.of(0, draws))).tokens
            assert LANGUAGE.distance(ids) > 0.15
            likeliest = (LANGUAGE.number(ids) == LANGUAGE.law.argmax()).float().mean()
            assert float(likeliest) > float(LANGUAGE.law.max()) + 0.1


@pytest.mark.parametrize("steps", [2, 12])
def test_renoising_tokens_that_were_drawn_is_exact_where_there_is_one(steps):
    """x_0 ~ p(x_0 | x_t), noised to any level, has that level's law: nothing is lost, however many steps are taken."""
    language = Language.random(vocab_size=4, length=1, seed=2)
    model = ideal_gaussian(language, tables(4)["simplex"], LogSigma(0.02, 2000.0))
    sampler = DDIM(renoise=True, projection=SampleProjection())
    with torch.no_grad():
        *_, before, _ = sampler(model, Request.blank(10_000, 1, steps), rng=Rng.of(0, 10_000))
    # The last prediction reads the state; at the lowest noise it is the token drawn before.
    read = (before.state - model.codec.table()).square().sum(-1).argmin(-1, keepdim=True)
    assert language.distance(read) < 2.0 * language.floor(10_000)
