"""The bounds of chains, in steps and in continuous time, and score entropy, against enumeration and quadrature."""

import pytest
import torch

from textdiffusion.core.batch import Batch
from textdiffusion.core.randomness import Rng
from textdiffusion.diffusion.alpha_schedules import CosineAlpha, Geometric, Linear, LogLinear
from textdiffusion.objectives.discrete import DiscreteELBO, DiscreteLikelihood
from textdiffusion.objectives.masked import MaskedELBO
from textdiffusion.objectives.score_entropy import ScoreEntropyLikelihood

from .language import WrongDenoiser, ideal_masked, ideal_uniform, point
from .texts import (
    LANGUAGE,
    LAW,
    LAYOUTS,
    POSSIBLE,
    TEXTS,
    Believing,
    Timeless,
    batch_of,
    by_orders,
    excess_of,
    integrated,
    mask_of,
    nats_of,
    on_average,
)


@pytest.mark.parametrize("schedule", [Linear(), LogLinear(), CosineAlpha()], ids=repr)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_uniform_bound_with_the_ideal_denoiser_is_the_truth(layout, schedule):
    bound, truth = integrated(ideal_uniform(LANGUAGE, schedule), layout)
    torch.testing.assert_close(bound, truth, atol=1e-4, rtol=0)


def test_tokens_that_survive_all_noise_are_paid_for():
    """Noise and bound are of one schedule; what a uniform prior does not know of x_1 is the bound's only excess."""
    model = ideal_uniform(LANGUAGE, LogLinear(0.1))
    bound, truth = integrated(model, "plain")
    one = torch.ones(len(LANGUAGE.ids))
    likely = torch.stack([model.process.log_likelihood(LANGUAGE.ids, x0.expand(27, 3), one).sum(-1) for x0 in TEXTS])
    end = LAW @ likely.double().exp()
    assert float(LAW @ (bound - truth)) == pytest.approx(float((end * (27 * end).log()).sum()), abs=1e-4)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_uniform_likelihood_estimates_the_bound(layout):
    model = ideal_uniform(LANGUAGE, LogLinear(0.1))
    model.denoiser = Believing(LANGUAGE, model.process)
    bound, truth = integrated(model, layout)
    assert float(LAW @ (bound - truth)) > 0.1
    mean, error, _ = nats_of(DiscreteLikelihood(), model, layout, repeats=400)
    average, spread = on_average(mean - bound, error)
    assert abs(average) < 4 * spread
    assert spread < 0.1


def _chain(made, wrong=False):
    model = made(LANGUAGE, Linear())
    if wrong:
        model.denoiser = Believing(LANGUAGE, model.process)
    return model


def _enumerated(model, steps):
    """The bound of a chain of so many steps of every text: over all states at all times, from the laws themselves."""
    process = model.process
    states = torch.cartesian_prod(*[torch.arange(process.num_states)] * 3)
    both = states.repeat(len(TEXTS), 1), TEXTS.repeat_interleave(len(states), 0)  # all pairs
    sure, total = point(both[1], 3), torch.zeros(len(TEXTS), dtype=torch.float64)
    for i in range(steps):
        t, s = (torch.full((len(states),), (i + k) / steps) for k in (1, 0))
        said = process.posterior(states, model.denoiser(states, t, batch=Batch(states)), t, s).dense(
            states, process.num_states
        )
        t, s = (at[:1].expand(len(both[0])) for at in (t, s))
        true = process.posterior(both[0], sure, t, s).dense(both[0], process.num_states).double()
        odds = process.log_likelihood(*both, t).double().sum(-1).exp()
        nats = torch.where(true > 0, true * (true.log() - said.repeat(len(TEXTS), 1, 1).log()), 0.0).sum((1, 2))
        total += torch.where(odds > 0, odds * nats, 0.0).view(len(TEXTS), -1).sum(1)
    return total


@pytest.mark.parametrize("likelihood", [DiscreteLikelihood(), ScoreEntropyLikelihood()], ids=lambda x: type(x).__name__)
def test_masks_that_leave_tokens_at_their_end_pay_for_them(likelihood):
    """Sampling starts from masks alone, and what survives is then read token by token: its correlations are lost."""
    model, expected = ideal_masked(LANGUAGE, LogLinear(0.4)), 0.0
    for seen in torch.cartesian_prod(*[torch.tensor([False, True])] * 3):
        alone = sum(LANGUAGE.nll(None, mask_of(i)) for i in seen.nonzero()[:, 0].tolist())
        lost = (alone - LANGUAGE.nll(None, seen))[POSSIBLE]
        expected += 0.4 ** int(seen.sum()) * 0.6 ** int((~seen).sum()) * float(LAW @ lost)
    excess, spread = excess_of(likelihood, model)
    assert excess == pytest.approx(expected, abs=4 * spread)
    assert expected > 8 * spread


@pytest.mark.parametrize("wrong", [False, True], ids=["ideal", "wrong"])
@pytest.mark.parametrize("made", [ideal_masked, ideal_uniform])
def test_a_chain_of_steps_is_bounded_as_enumerated(made, wrong):
    model = _chain(made, wrong)
    exact = _enumerated(model, 5)
    mean, error, truth = nats_of(DiscreteLikelihood(5), model, repeats=400)
    assert bool(((mean - exact).abs() < 5 * error + 1e-4).all())
    assert float(LAW @ (exact - truth)) > 0.01


@pytest.mark.parametrize("made", [ideal_masked, ideal_uniform])
def test_the_bound_of_a_chain_falls_to_the_truth_as_its_steps_grow(made):
    excess = [float(LAW @ (_enumerated(_chain(made), steps) - LANGUAGE.nll()[POSSIBLE])) for steps in (8, 32, 128)]
    assert 0 < excess[2] < 0.3 * excess[1] < 0.3**2 * excess[0]


def test_the_bound_of_a_chain_tends_to_that_of_continuous_time():
    masks, uniform = (_chain(made, wrong=True) for made in (ideal_masked, ideal_uniform))
    masks.denoiser = Timeless(LANGUAGE)
    limits = [[by_orders(masks, text, ~mask_of()) for text in TEXTS], integrated(uniform, "plain")[0]]
    for model, limit in zip((masks, uniform), limits, strict=True):
        found = 2 * _enumerated(model, 80) - _enumerated(model, 40)  # errors fall like 1 / steps
        torch.testing.assert_close(found, torch.as_tensor(limit, dtype=torch.float64), atol=0.01, rtol=0)


def test_the_chain_of_masks_in_continuous_time_is_the_masked_bound():
    model = ideal_masked(LANGUAGE, CosineAlpha())
    model.denoiser = WrongDenoiser(LANGUAGE)
    batch, _ = batch_of("given and padded", 20)
    chain, masked = (
        bound(model, batch, rng=Rng.of(0, len(batch.tokens))) for bound in (DiscreteELBO(), MaskedELBO(0.0))
    )
    assert float(chain.total) == pytest.approx(float(masked.total), rel=1e-5)


@pytest.mark.parametrize("made", [ideal_masked, ideal_uniform])
def test_the_hybrid_loss_adds_cross_entropy_at_its_weight(made):
    model, (batch, _) = _chain(made, wrong=True), batch_of("plain", 20)
    plain, hybrid = (DiscreteELBO(10, weight)(model, batch, rng=Rng.of(0, len(batch.tokens))) for weight in (0.0, 0.5))
    assert float(hybrid.parts["bound"]) == float(plain.total)
    assert float(hybrid.total) == pytest.approx(float(plain.total) + 0.5 * float(hybrid.parts["cross_entropy"]))
    assert 0.3 < float(hybrid.parts["cross_entropy"]) < 3.0


DISCRETE = {"absorbing": ideal_masked, "uniform": ideal_uniform}


@pytest.mark.parametrize("schedule", [Linear(), LogLinear(0.1), CosineAlpha(), Geometric(0.01, 4.0)], ids=repr)
@pytest.mark.parametrize("kind", DISCRETE)
def test_score_entropy_with_ideal_ratios_is_the_truth(kind, schedule):
    """Under a schedule that ends before pure noise, too: the cost of the prior is in it."""
    model = DISCRETE[kind](LANGUAGE, schedule)
    excess, spread = excess_of(ScoreEntropyLikelihood(), model)
    # An independent first step, or prior, cannot know how positions depend on each other.
    gap = {"LogLinear(eps=0.1)": 0.04, "Geometric(sigma_min=0.01, sigma_max=4.0)": 0.004}.get(repr(schedule), 0.0)
    assert -4 * spread < excess < gap + 4 * spread + 1e-3
    assert spread < 0.03


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", DISCRETE)
def test_score_entropy_of_wrong_ratios_lies_above_the_truth(kind, layout):
    model = DISCRETE[kind](LANGUAGE, LogLinear())
    model.denoiser = WrongDenoiser(LANGUAGE)
    mean, error, truth = nats_of(ScoreEntropyLikelihood(), model, layout, repeats=100)
    average, spread = on_average(mean - truth, error)
    assert average > 4 * spread
