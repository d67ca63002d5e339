"""Ratios of probabilities: against enumeration, and as another name for what a clean-token prediction says."""

import math
from itertools import product

import pytest
import torch

from textdiffusion.core.batch import Batch
from textdiffusion.core.randomness import Rng
from textdiffusion.diffusion.alpha_schedules import CosineAlpha, Geometric, Linear, LogLinear
from textdiffusion.diffusion.prediction import Prediction
from textdiffusion.diffusion.ratios import AbsorbingGraph, UniformGraph
from textdiffusion.objectives.masked import MaskedELBO
from textdiffusion.objectives.score_entropy import ScoreEntropy
from textdiffusion.samplers.ancestral import Ancestral, Tweedie
from textdiffusion.samplers.base import Request

from .language import Language, WrongDenoiser, ideal_masked, ideal_uniform

LANGUAGE = Language.random(vocab_size=3, length=3)
SCHEDULES = [Linear(), LogLinear(), CosineAlpha(), Geometric(sigma_min=0.01, sigma_max=5.0)]
IDEAL = {"absorbing": ideal_masked, "uniform": ideal_uniform}


def _states(process):
    return torch.tensor(list(product(range(process.num_states), repeat=3)))


def _marginal(process, states, t):
    """p_t of every state by enumeration, in float64."""
    total = torch.zeros(len(states), dtype=torch.float64)
    at = torch.full((len(states),), t, dtype=torch.float64)
    for x0, p in zip(LANGUAGE.ids, LANGUAGE.law, strict=True):
        total += p.double() * process.log_likelihood(states, x0.expand_as(states), at).exp().prod(-1)
    return total


@pytest.mark.parametrize("t", [1e-3, 0.2, 0.9])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize("kind", IDEAL)
def test_ratios_are_those_of_the_noisy_law(kind, schedule, t):
    model = IDEAL[kind](LANGUAGE, schedule)
    process = model.process
    states = _states(process)
    law = _marginal(process, states, t)
    states, at = states[law > 0], torch.full((int((law > 0).sum()), 3), t)
    said = model.denoiser(states, at[:, 0], batch=Batch(states.clamp(max=2)))
    ratios = said.log_score(process.graph, states, at).exp()
    found = 0
    for i, y in product(range(3), range(3)):
        there = states.clone()
        there[:, i] = y
        changing = process.is_noisy(states)[:, i]
        truth = _marginal(process, there, t) / _marginal(process, states, t)
        torch.testing.assert_close(ratios[changing, i, y].double(), truth[changing], rtol=2e-4, atol=1e-9)
        found += int(changing.sum())
    assert found > 100


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize("kind", IDEAL)
def test_ratios_and_predictions_say_the_same(kind, schedule):
    """There and back, at every noise level; at high ones ratios in float32 hold little of a prediction."""
    graph = IDEAL[kind](LANGUAGE, schedule).process.graph
    logits = torch.randn(200, 3, 3, generator=torch.Generator().manual_seed(0)) * 3
    xt = torch.full((200, 3), 3) if kind == "absorbing" else torch.randint(3, (200, 3))
    for t in (1e-6, 1e-3, 0.1, 0.5, 0.9, 0.99):
        at = torch.full((200, 3), t)
        back = graph.x0_logits(graph.log_score(logits, xt, at), xt, at)
        kept = float(schedule.alpha(torch.tensor(t)))
        torch.testing.assert_close(back.softmax(-1), logits.softmax(-1), rtol=0, atol=1e-5 + 1e-6 / kept)
        if kind == "absorbing":
            torch.testing.assert_close(back.logsumexp(-1), torch.zeros(200, 3), rtol=0, atol=1e-5)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize("vocab_size", [2, 5])
@pytest.mark.parametrize("kind", [AbsorbingGraph, UniformGraph])
def test_score_entropy_is_the_published_formula(kind, vocab_size, schedule):
    """sum over y != x of Q [s - r log s + r (log r - 1)], sigma' from the schedule's own slope, in float64."""
    graph = kind(vocab_size, schedule)
    absorbing = kind is AbsorbingGraph
    log_s = torch.randn(vocab_size, generator=torch.Generator().manual_seed(1))
    for t in (0.01, 0.4, 0.95):
        at = torch.tensor(t, dtype=torch.float64, requires_grad=True)
        sigma = -torch.log(schedule.alpha(at))
        (slope,) = torch.autograd.grad(sigma, at)
        kept = schedule.alpha(at).item()
        for x0, xt in product(range(vocab_size), [vocab_size] if absorbing else range(vocab_size)):

            def law(x, x0=x0, kept=kept):
                return (kept if x == x0 else 0.0) + (1 - kept) * (x == vocab_size if absorbing else 1 / vocab_size)

            total = 0.0
            for y in set(range(vocab_size)) - {xt}:
                s, r = math.exp(log_s[y]), law(y) / law(xt)
                total += s - r * float(log_s[y]) + (r * (math.log(r) - 1) if r else 0.0)
            total *= slope.item() / (1 if absorbing else vocab_size)
            found = graph.score_entropy(
                log_s.masked_fill(torch.arange(vocab_size) == xt, 0.0),
                torch.tensor(x0),
                torch.tensor(xt),
                torch.tensor(t),
            )
            assert float(found) == pytest.approx(total, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("schedule", [Linear(), LogLinear(), CosineAlpha(), Geometric()], ids=repr)
@pytest.mark.parametrize("max_weight", [0.0, 2.0])
def test_score_entropy_of_masks_is_the_masked_bound(schedule, max_weight):
    """With s = p / (e^sigma - 1) the losses agree for the same draws, whatever the prediction."""
    model = ideal_masked(LANGUAGE, schedule)
    model.denoiser = WrongDenoiser(LANGUAGE)
    batch = Batch(LANGUAGE.ids.repeat(20, 1))
    with torch.no_grad():
        for seed in range(4):
            rng = Rng.of(seed, len(batch.tokens))
            masked, entropy = (kind(max_weight)(model, batch, rng=rng) for kind in (MaskedELBO, ScoreEntropy))
            torch.testing.assert_close(entropy.total, masked.total, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(entropy.parts["bound"], masked.parts["bound"], rtol=1e-5, atol=1e-6)


def test_an_error_of_the_mass_costs_what_it_says():
    graph, p = AbsorbingGraph(3, LogLinear()), torch.tensor([0.2, 0.5, 0.3])
    at, mask = torch.tensor(0.5), torch.tensor(3)
    ratios = graph.log_score(torch.log(p), mask, at)
    exact = graph.score_entropy(ratios, torch.tensor(1), mask, at)
    for mass in (0.5, 2.0):
        found = graph.score_entropy(ratios + math.log(mass), torch.tensor(1), mask, at)
        assert float(found - exact) == pytest.approx(2.0 * (mass - 1 - math.log(mass)), rel=1e-4)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize("kind", IDEAL)
def test_the_analytic_step_is_the_posterior(kind, schedule):
    """The two halves of SEDD's formula multiply to the law that an ancestral sampler draws from (float32 ratios)."""
    process = IDEAL[kind](LANGUAGE, schedule).process
    logits = torch.randn(100, 3, 3, generator=torch.Generator().manual_seed(0))
    xt = torch.randint(process.num_states, (100, 3), generator=torch.Generator().manual_seed(1))
    for t, s in ((0.9, 0.1), (0.5, 0.45), (1e-3, 0.0), (0.05, 0.01)):
        at, then = torch.full((100, 3), t), torch.full((100, 3), s)
        jumps = process.graph.tweedie(process.graph.log_score(logits, xt, at), xt, at, then)
        expected = process.posterior(xt, Prediction(logits), at, then).dense(xt, process.num_states)
        torch.testing.assert_close(jumps.dense(xt, process.num_states), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize("kind", IDEAL)
def test_short_euler_steps_are_analytic_steps(kind, schedule):
    process = IDEAL[kind](LANGUAGE, schedule).process
    logits = torch.randn(100, 3, 3, generator=torch.Generator().manual_seed(0))
    xt = torch.randint(process.num_states, (100, 3), generator=torch.Generator().manual_seed(1))
    gaps = []
    for step in (0.04, 0.02):
        at, then = torch.full((100, 3), 0.5), torch.full((100, 3), 0.5 - step)
        ratios = process.graph.log_score(logits, xt, at)
        chances = [law(ratios, xt, at, then).jump_prob for law in (process.graph.euler, process.graph.tweedie)]
        gaps.append(float((chances[0] - chances[1]).abs().max()))
    assert gaps[0] < 0.05
    assert gaps[1] < 0.3 * gaps[0] + 1e-6  # second order


def test_the_analytic_sampler_draws_the_ancestral_samplers_text():
    model = ideal_masked(LANGUAGE, CosineAlpha())
    request = Request.blank(300, 3, 12)
    with torch.no_grad():
        ids = [list(kind()(model, request, rng=Rng.of(0, 300)))[-1].tokens for kind in (Ancestral, Tweedie)]
    assert float((ids[0] == ids[1]).float().mean()) > 0.999


TIMES = torch.tensor([2.0**-24, 1e-6, 1e-4, 0.01, 0.5, 0.99, 1 - 1e-6, 1 - 2.0**-24])


@pytest.mark.parametrize("schedule", [Linear(), LogLinear(), CosineAlpha(), Geometric()], ids=repr)
@pytest.mark.parametrize("kind", [AbsorbingGraph, UniformGraph])
def test_no_noise_level_overflows_or_loses_the_answer(kind, schedule):
    """Score entropy in float32 and its gradient, from one mask in sixteen million to one token in as many."""
    graph = kind(5, schedule)
    logits = torch.randn(len(TIMES), 5, generator=torch.Generator().manual_seed(0))
    x0 = torch.arange(len(TIMES)) % 5
    for xt in (torch.full_like(x0, 5),) if kind is AbsorbingGraph else (x0, (x0 + 1) % 5):
        single, double = (logits.to(d).requires_grad_() for d in (torch.float32, torch.float64))
        values = []
        for which in (single, double):
            at = TIMES.to(which.dtype)
            nats = graph.score_entropy(graph.log_score(which, xt, at), x0, xt, at)
            nats.sum().backward()
            values.append(nats.detach())
        assert bool(torch.isfinite(values[0]).all())
        assert single.grad is not None
        assert bool(torch.isfinite(single.grad).all())
        # Near t = 1 of a schedule that ends in pure noise the noise level itself is rounded.
        good = TIMES < 0.999
        torch.testing.assert_close(values[0][good].double(), values[1][good], rtol=2e-3, atol=1e-6)
