"""Every likelihood is at least the true one on average, and equals it with the ideal denoiser."""

from itertools import permutations

import numpy as np
import pytest
import torch

from textdiffusion.batch import Batch
from textdiffusion.objectives.chain_bound import ChainBound, ChainLikelihood
from textdiffusion.objectives.gaussian_bound import GaussianLikelihood
from textdiffusion.objectives.masked_bound import MaskedBound, MaskedLikelihood
from textdiffusion.objectives.next_token import NextToken, NextTokenLikelihood
from textdiffusion.objectives.plaid_bound import PlaidBound
from textdiffusion.objectives.score_entropy import ScoreEntropyLikelihood
from textdiffusion.prediction import Prediction
from textdiffusion.processes.densities import GumbelDensity, UniformDensity
from textdiffusion.processes.piecewise import PiecewiseDensity, SteadyDensity
from textdiffusion.processes.schedules import (
    CosineMask,
    CosineNoise,
    Geometric,
    Karras,
    LearnedSigma,
    LinearBeta,
    LogLinear,
    LogSigma,
    SqrtNoise,
)
from textdiffusion.randomness import Rng

from .language import ChainDenoiser, Language, WrongDenoiser, ideal_gaussian, ideal_masked, ideal_uniform, point, tables

LANGUAGE = Language.random(vocab=3, length=3)
POSSIBLE = LANGUAGE.law > 0
TEXTS, LAW = LANGUAGE.ids[POSSIBLE], LANGUAGE.law[POSSIBLE].double()


def _mask(*at):
    mask = torch.zeros(3, dtype=torch.bool)
    mask[list(at)] = True
    return mask


# Which positions are given and which are padding; the noised rest is what a likelihood speaks of.
LAYOUTS = {
    "plain": (None, None),
    "given first": (_mask(0), None),
    "given ends": (_mask(0, 2), None),
    "padded": (None, _mask(2)),
    "given and padded": (_mask(0), _mask(2)),
}


def _batch(layout, repeats):
    """Every possible text `repeats` times, under a layout, with the true nats of each text."""
    given, padding = LAYOUTS[layout]
    ids = TEXTS.repeat(repeats, 1)
    none = _mask()
    batch = Batch(
        ids,
        real=None if padding is None else (~padding).expand(ids.shape),
        given=None if given is None else given.expand(ids.shape),
    )
    known = none if given is None else given
    return batch, LANGUAGE.nll(known, ~none if padding is None else ~padding)[POSSIBLE]


BATCHES = 10


def _likelihood(likelihood, model, layout="plain", repeats=200):
    """Mean and standard error of the nats of every text over independent batches, and the true nats."""
    batch, truth = _batch(layout, repeats)
    with torch.no_grad():
        draws = [likelihood(model, batch, rng=Rng.of(seed, len(batch.ids))).double() for seed in range(BATCHES)]
    means = torch.stack([nats.view(repeats, -1).mean(0) for nats in draws])
    # Noise levels are stratified inside a batch, so only batches are independent of each other.
    return means.mean(0), means.std(0) / BATCHES**0.5, truth


def _on_average(mean, error):
    """Mean and standard error over texts that follow the law."""
    return float(LAW @ mean), float(torch.sqrt((LAW * error).square().sum()))


def _excess(likelihood, model, rows=15_000):
    """Nats of texts drawn from the law above their true nats: mean and standard error over independent batches."""
    means = []
    for seed in range(BATCHES):
        rng = Rng.of(100 + seed, rows)
        drawn = rng.fork("texts").categorical(LAW.float().expand(rows, -1))
        with torch.no_grad():
            nats = likelihood(model, Batch(TEXTS[drawn]), rng=rng).double()
        means.append((nats - LANGUAGE.nll()[POSSIBLE][drawn]).mean())
    return float(torch.stack(means).mean()), float(torch.stack(means).std()) / BATCHES**0.5


def _by_orders(model, text, noised):
    """The masked bound of one text exactly: minus the log probability along every order of revealing, averaged."""
    free = noised.nonzero()[:, 0].tolist()
    total, orders = 0.0, list(permutations(free))
    for order in orders:
        x = torch.where(noised, model.process.mask, text)
        for i in order:
            logits = model.denoiser(x[None], torch.zeros(1), batch=Batch(text[None])).logits[0, i]
            total -= float(logits.log_softmax(-1)[text[i]]) / len(orders)
            x = x.clone()
            x[i] = text[i]
    return total


class Timeless(WrongDenoiser):
    """Wrong, and blind to the time: then orders of revealing are all there is to the masked bound."""

    def forward(self, xt, t, *, batch, self_cond=None):
        return super().forward(xt, torch.zeros_like(t), batch=batch, self_cond=self_cond)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_masked_likelihood_with_the_ideal_denoiser_is_the_truth(layout):
    mean, error, truth = _likelihood(MaskedLikelihood(), ideal_masked(LANGUAGE, LogLinear(0.0)), layout)
    assert bool(((mean - truth).abs() < 5 * error + 1e-4).all())
    average, spread = _on_average(mean - truth, error)
    assert abs(average) < 4 * spread + 1e-4
    assert spread < 0.01


@pytest.mark.parametrize("schedule", [LogLinear(0.0), LogLinear(1e-3), CosineMask()], ids=repr)
def test_masked_bound_does_not_depend_on_the_schedule(schedule):
    """Uncut it is the exact-k bound in expectation, for any denoiser; eps = 1e-3 leaves out a thousandth."""
    wrong = ideal_masked(LANGUAGE, schedule)
    wrong.denoiser = Timeless(LANGUAGE)
    exact = torch.tensor([_by_orders(wrong, text, ~_mask()) for text in TEXTS], dtype=torch.float64)
    truth = LANGUAGE.nll()[POSSIBLE]
    assert float(LAW @ (exact - truth)) > 0.1  # wrong indeed
    mean, error, _ = _likelihood(MaskedLikelihood(), wrong)
    assert bool(((mean - exact).abs() < 5 * error).all())
    batch, _ = _batch("plain", 4000)
    # The objective's mean over rows, with rows weighted by the law through a batch drawn from it.
    drawn = TEXTS[Rng.of(5, len(batch.ids)).categorical(LAW.float().expand(len(batch.ids), -1))]
    with torch.no_grad():
        loss = MaskedBound(None)(wrong, Batch(drawn), rng=Rng.of(1, len(drawn)))
    assert float(loss.total) * 3 == pytest.approx(float(LAW @ exact), abs=0.03)
    assert float(loss.parts["bound"]) == float(loss.total)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_masked_bounds_of_a_wrong_denoiser_lie_above_the_truth(layout):
    model = ideal_masked(LANGUAGE, CosineMask())
    model.denoiser = WrongDenoiser(LANGUAGE)
    mean, error, truth = _likelihood(MaskedLikelihood(), model, layout, repeats=50)
    average, spread = _on_average(mean - truth, error)
    assert average > 4 * spread


def test_cutting_the_weight_changes_the_loss_and_not_the_reported_bound():
    model = ideal_masked(LANGUAGE, LogLinear(0.0))
    batch, _ = _batch("plain", 200)
    free, cut = (MaskedBound(w)(model, batch, rng=Rng.of(0, len(batch.ids))) for w in (None, 3.0))
    assert float(free.parts["bound"]) == float(cut.parts["bound"]) == float(free.total)
    assert float(cut.total) < float(free.total)


def _integrated(model, layout):
    """The bound of the uniform process in continuous time and the true nats of every text, by quadrature over t."""
    given, padding = (_mask() if mask is None else mask for mask in LAYOUTS[layout])
    free, states = ~given & ~padding, torch.cartesian_prod(*[torch.arange(3)] * 3)
    xt, x0 = states.repeat(len(TEXTS), 1), TEXTS.repeat_interleave(len(states), 0)
    reached = (xt == x0)[:, ~free].all(-1)
    xt, x0 = xt[reached], x0[reached]
    batch = Batch(x0, real=(~padding).expand(x0.shape), given=given.expand(x0.shape))
    total = torch.full((len(TEXTS),), model.process.graph.prior_nats(lambda: x0) * int(free.sum())).double()
    for node, share in zip(*np.polynomial.legendre.leggauss(60), strict=True):
        u = 0.5 + 0.5 * node
        t = torch.full((len(xt),), u**2)  # nats per unit of time grow like log 1 / t
        odds = (model.process.log_likelihood(xt, x0, t).double() * free).sum(-1).exp()
        rate = model.process.divergence_rate(xt, x0, model.denoiser(xt, t, batch=batch), t, batch.noised)[0].sum(-1)
        total = total + share * u * (odds * rate).view(len(TEXTS), -1).sum(1)
    return total, LANGUAGE.nll(given, ~padding)[POSSIBLE]


@pytest.mark.parametrize("schedule", [LogLinear(0.0), LogLinear(), CosineMask()], ids=repr)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_uniform_bound_with_the_ideal_denoiser_is_the_truth(layout, schedule):
    bound, truth = _integrated(ideal_uniform(LANGUAGE, schedule), layout)
    torch.testing.assert_close(bound, truth, atol=1e-4, rtol=0)


def test_tokens_that_survive_all_noise_are_paid_for():
    """Noise and bound are of one schedule; what a uniform prior does not know of x_1 is the bound's only excess."""
    model = ideal_uniform(LANGUAGE, LogLinear(0.1))
    bound, truth = _integrated(model, "plain")
    one = torch.ones(len(LANGUAGE.ids))
    likely = torch.stack([model.process.log_likelihood(LANGUAGE.ids, x0.expand(27, 3), one).sum(-1) for x0 in TEXTS])
    end = LAW @ likely.double().exp()
    assert float(LAW @ (bound - truth)) == pytest.approx(float((end * (27 * end).log()).sum()), abs=1e-4)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_uniform_likelihood_estimates_the_bound(layout):
    model = ideal_uniform(LANGUAGE, LogLinear(0.1))
    model.denoiser = Believing(LANGUAGE, model.process)
    bound, truth = _integrated(model, layout)
    assert float(LAW @ (bound - truth)) > 0.1
    mean, error, _ = _likelihood(ChainLikelihood(), model, layout, repeats=400)
    average, spread = _on_average(mean - bound, error)
    assert abs(average) < 4 * spread
    assert spread < 0.1


class Believing(WrongDenoiser):
    """Wrong about what the others say of a position, and right about what its own state says.

    A denoiser that does not come to believe the state as t falls has an infinite bound in continuous time.
    """

    def __init__(self, language, process):
        super().__init__(language)
        self.process = process

    def forward(self, xt, t, *, batch, self_cond=None):
        said, own = super().forward(xt, t, batch=batch), self.process.evidence(xt, t)
        return said if own is None else Prediction(said.logits.scatter_add(-1, xt[..., None], own[..., None]))


def _chain(made, wrong=False):
    model = made(LANGUAGE, LogLinear(0.0))
    if wrong:
        model.denoiser = Believing(LANGUAGE, model.process)
    return model


def _enumerated(model, steps):
    """The bound of a chain of so many steps of every text: over all states at all times, from the laws themselves."""
    process = model.process
    states = torch.cartesian_prod(*[torch.arange(process.states)] * 3)
    both = states.repeat(len(TEXTS), 1), TEXTS.repeat_interleave(len(states), 0)  # all pairs
    sure, total = point(both[1], 3), torch.zeros(len(TEXTS), dtype=torch.float64)
    for i in range(steps):
        t, s = (torch.full((len(states),), (i + k) / steps) for k in (1, 0))
        said = process.posterior(states, model.denoiser(states, t, batch=Batch(states)), t, s).dense(
            states, process.states
        )
        t, s = (at[:1].expand(len(both[0])) for at in (t, s))
        true = process.posterior(both[0], sure, t, s).dense(both[0], process.states).double()
        odds = process.log_likelihood(*both, t).double().sum(-1).exp()
        nats = torch.where(true > 0, true * (true.log() - said.repeat(len(TEXTS), 1, 1).log()), 0.0).sum((1, 2))
        total += torch.where(odds > 0, odds * nats, 0.0).view(len(TEXTS), -1).sum(1)
    return total


@pytest.mark.parametrize("likelihood", [ChainLikelihood(), ScoreEntropyLikelihood()], ids=lambda x: type(x).__name__)
def test_masks_that_leave_tokens_at_their_end_pay_for_them(likelihood):
    """Sampling starts from masks alone, and what survives is then read token by token: its correlations are lost."""
    model, expected = ideal_masked(LANGUAGE, LogLinear(0.4)), 0.0
    for seen in torch.cartesian_prod(*[torch.tensor([False, True])] * 3):
        alone = sum(LANGUAGE.nll(None, _mask(i)) for i in seen.nonzero()[:, 0].tolist())
        lost = (alone - LANGUAGE.nll(None, seen))[POSSIBLE]
        expected += 0.4 ** int(seen.sum()) * 0.6 ** int((~seen).sum()) * float(LAW @ lost)
    excess, spread = _excess(likelihood, model)
    assert excess == pytest.approx(expected, abs=4 * spread)
    assert expected > 8 * spread


@pytest.mark.parametrize("wrong", [False, True], ids=["ideal", "wrong"])
@pytest.mark.parametrize("made", [ideal_masked, ideal_uniform])
def test_a_chain_of_steps_is_bounded_as_enumerated(made, wrong):
    model = _chain(made, wrong)
    exact = _enumerated(model, 5)
    mean, error, truth = _likelihood(ChainLikelihood(5), model, repeats=400)
    assert bool(((mean - exact).abs() < 5 * error + 1e-4).all())
    assert float(LAW @ (exact - truth)) > 0.01


@pytest.mark.parametrize("made", [ideal_masked, ideal_uniform])
def test_the_bound_of_a_chain_falls_to_the_truth_as_its_steps_grow(made):
    excess = [float(LAW @ (_enumerated(_chain(made), steps) - LANGUAGE.nll()[POSSIBLE])) for steps in (8, 32, 128)]
    assert 0 < excess[2] < 0.3 * excess[1] < 0.3**2 * excess[0]


def test_the_bound_of_a_chain_tends_to_that_of_continuous_time():
    masks, uniform = (_chain(made, wrong=True) for made in (ideal_masked, ideal_uniform))
    masks.denoiser = Timeless(LANGUAGE)
    limits = [[_by_orders(masks, text, ~_mask()) for text in TEXTS], _integrated(uniform, "plain")[0]]
    for model, limit in zip((masks, uniform), limits, strict=True):
        found = 2 * _enumerated(model, 80) - _enumerated(model, 40)  # errors fall like 1 / steps
        torch.testing.assert_close(found, torch.as_tensor(limit, dtype=torch.float64), atol=0.01, rtol=0)


def test_the_chain_of_masks_in_continuous_time_is_the_masked_bound():
    model = ideal_masked(LANGUAGE, CosineMask())
    model.denoiser = WrongDenoiser(LANGUAGE)
    batch, _ = _batch("given and padded", 20)
    chain, masked = (bound(model, batch, rng=Rng.of(0, len(batch.ids))) for bound in (ChainBound(), MaskedBound(None)))
    assert float(chain.total) == pytest.approx(float(masked.total), rel=1e-5)


@pytest.mark.parametrize("made", [ideal_masked, ideal_uniform])
def test_the_hybrid_loss_adds_cross_entropy_at_its_weight(made):
    model, (batch, _) = _chain(made, wrong=True), _batch("plain", 20)
    plain, hybrid = (ChainBound(10, weight)(model, batch, rng=Rng.of(0, len(batch.ids))) for weight in (0.0, 0.5))
    assert float(hybrid.parts["bound"]) == float(plain.total)
    assert float(hybrid.total) == pytest.approx(float(plain.total) + 0.5 * float(hybrid.parts["cross_entropy"]))
    assert 0.3 < float(hybrid.parts["cross_entropy"]) < 3.0


@pytest.mark.parametrize("codec", ["bits", "simplex", "embeddings", "layer-normed"])
def test_gaussian_likelihood_with_the_ideal_denoiser_is_the_truth(codec):
    """The I-MMSE identity, text by text; the prior term leaves up to 1 / 800 nats a token."""
    model = ideal_gaussian(LANGUAGE, tables(3)[codec])
    mean, error, truth = _likelihood(GaussianLikelihood(), model)
    assert bool(((mean - truth).abs() < 5 * error + 0.006).all())
    excess, spread = _excess(GaussianLikelihood(), model)
    assert abs(excess) < 3 * spread + 0.004
    assert spread < 0.025


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "plain"])
def test_gaussian_likelihood_given_tokens_and_padding(layout):
    model = ideal_gaussian(LANGUAGE, tables(3)["embeddings"])
    mean, error, truth = _likelihood(GaussianLikelihood(), model, layout)
    assert bool(((mean - truth).abs() < 5 * error + 0.006).all())


@pytest.mark.parametrize("made", [Karras, CosineNoise, SqrtNoise, LinearBeta])
def test_gaussian_likelihood_does_not_depend_on_the_schedule(made):
    codec = tables(3)["bits"]
    model = ideal_gaussian(LANGUAGE, codec, made(0.15 * codec.norm, 15.0 * codec.norm))
    excess, spread = _excess(GaussianLikelihood(uniform=0.5), model)
    assert abs(excess) < 3 * spread + 0.007
    assert spread < 0.025


@pytest.mark.parametrize("density", ["Gumbel", "piecewise", "a part of [0, 1]"])
def test_gaussian_likelihood_does_not_depend_on_the_density(density):
    if density == "Gumbel":
        warp = GumbelDensity(0.33, 0.083, 1.1)
    elif density == "a part of [0, 1]":
        warp = UniformDensity(0.3, 0.8)
    else:
        warp = PiecewiseDensity(20)
        warp.settled.copy_(torch.randn(2, 20, generator=torch.Generator().manual_seed(1)))
    model = ideal_gaussian(LANGUAGE, tables(3)["bits"], density=warp)
    excess, spread = _excess(GaussianLikelihood(), model)
    assert abs(excess) < 3 * spread + 0.004
    assert spread < 0.025


def test_a_higher_lowest_noise_level_moves_nats_into_the_decoder():
    """Cut at 0.45 norms, what the bound exceeds the truth by is what its decoder knows less than Bayes' rule."""
    codec = tables(3)["bits"]
    model = ideal_gaussian(LANGUAGE, codec, LogSigma(0.45 * codec.norm, 20.0 * codec.norm))
    excess, spread = _excess(GaussianLikelihood(uniform=0.8), model)
    rows, rng = 50_000, Rng.of(9, 50_000)
    drawn = rng.fork("texts").categorical(LANGUAGE.law.expand(rows, -1))
    batch, zero = Batch(LANGUAGE.ids[drawn]), torch.zeros(rows)
    near = model.process.corrupt(codec.encode(batch.ids), zero, rng=rng)
    bayes = -torch.log(model.denoiser.joint(near, zero, batch).gather(1, drawn[:, None])).mean()
    alone = Prediction(model.denoiser.evidence(near, zero)).nll(batch.ids, batch.noised).sum(-1).mean()
    gap = float(alone - bayes)
    assert gap > 0.1
    assert abs(excess - gap) < 3 * spread + 0.01
    assert spread < 0.025


@pytest.mark.parametrize("self_conditioning", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gaussian_likelihood_of_a_wrong_denoiser_lies_above_the_truth(layout, self_conditioning):
    model = ideal_gaussian(LANGUAGE, tables(3)["bits"])
    model.denoiser = WrongDenoiser(LANGUAGE, model.codec.table())
    model.denoiser.self_conditioning = self_conditioning
    mean, error, truth = _likelihood(GaussianLikelihood(), model, layout, repeats=50)
    average, spread = _on_average(mean - truth, error)
    assert average > 4 * spread


def test_two_passes_feed_the_first_estimate_back():
    model = ideal_gaussian(LANGUAGE, tables(3)["bits"])
    model.denoiser = WrongDenoiser(LANGUAGE, model.codec.table())
    twice = _likelihood(GaussianLikelihood(), model, repeats=4)[0]
    model.denoiser.self_conditioning = False
    once = _likelihood(GaussianLikelihood(), model, repeats=4)[0]
    assert not torch.equal(once, twice)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_learned_decoder_with_the_ideal_denoiser_is_the_truth(layout):
    model = ideal_gaussian(LANGUAGE, tables(3)["embeddings"])
    mean, error, truth = _likelihood(GaussianLikelihood(learned_decoder=True), model, layout)
    assert bool(((mean - truth).abs() < 5 * error + 0.006).all())


def test_a_learned_decoder_knows_what_bayes_rule_alone_does_not():
    """Cut at 0.45 norms the bound exceeds the truth by what decoding position by position loses, and by no more."""
    codec = tables(3)["bits"]
    model = ideal_gaussian(LANGUAGE, codec, LogSigma(0.45 * codec.norm, 20.0 * codec.norm))
    learned, spread = _excess(GaussianLikelihood(uniform=0.8, learned_decoder=True), model)
    alone, _ = _excess(GaussianLikelihood(uniform=0.8), model)
    assert learned > -3 * spread
    assert learned < alone - 0.05


def _plaid(density=None, low=0.05, rows=40_000, learned=True):
    """Rows that follow the law, under a schedule with learned ends, and their entropy in nats per token."""
    codec = tables(3)["embeddings"]
    schedule = (LearnedSigma if learned else LogSigma)(low * codec.norm, 20.0 * codec.norm)
    model = ideal_gaussian(LANGUAGE, codec, schedule, density)
    return model, Batch(TEXTS[Rng.of(5, rows).categorical(LAW.float().expand(rows, -1))])


@pytest.mark.parametrize("every", [2, 8])
def test_plaids_objective_with_the_ideal_denoiser_is_the_entropy(every):
    """In expectation, whatever share of the rows is decoded and whatever density draws the others."""
    density = SteadyDensity(20, uniform=0.3)
    density.settled[1].copy_(torch.randn(20, generator=torch.Generator().manual_seed(1)))
    model, batch = _plaid(density)
    truth = float(LANGUAGE.nll()[LANGUAGE.number(batch.ids)].mean()) / 3
    with torch.no_grad():
        bounds = [float(PlaidBound(every)(model, batch, rng=Rng.of(s, len(batch.ids))).parts["bound"]) for s in (0, 1)]
    assert sum(bounds) / 2 == pytest.approx(truth, abs=0.02)
    model.denoiser = WrongDenoiser(LANGUAGE, model.codec.table())
    with torch.no_grad():
        wrong = PlaidBound(every)(model, batch, rng=Rng.of(0, len(batch.ids)))
    assert float(wrong.total) > truth + 0.1


def test_plaids_bound_does_not_depend_on_ends_that_are_wide_enough():
    """So the gradient to them is nothing but the prior and what Bayes cannot decode; a narrow low end wants to fall."""
    slopes = {}
    for low in (0.05, 0.45):
        model, batch = _plaid(low=low)
        PlaidBound(2)(model, batch, rng=Rng.of(0, len(batch.ids))).total.backward()
        slopes[low] = model.process.schedule.ends.grad
    assert float(slopes[0.05].abs().max()) < 0.03
    assert float(slopes[0.45][0]) > 0.03


def test_a_learned_schedule_is_the_fixed_one_of_the_same_ends():
    results = []
    for learned in (True, False):
        model, batch = _plaid(rows=500, learned=learned)
        with torch.no_grad():
            results.append(GaussianLikelihood()(model, batch, rng=Rng.of(0, 500)))
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-3)


def test_next_token_likelihood_is_exact():
    model = ideal_masked(LANGUAGE, LogLinear(0.0))
    model.denoiser = ChainDenoiser(LANGUAGE)
    for layout in ("plain", "given first", "padded", "given and padded"):
        batch, truth = _batch(layout, 1)
        nats = NextTokenLikelihood()(model, batch, rng=Rng.of(0, len(batch.ids)))
        torch.testing.assert_close(nats.double(), truth, atol=1e-5, rtol=1e-5)
    batch, truth = _batch("plain", 1)
    loss = NextToken()(model, batch, rng=Rng.of(0, len(batch.ids)))
    assert float(loss.total) == pytest.approx(float(truth.mean()) / 3, abs=1e-5)


def test_next_token_likelihood_of_any_denoiser_is_normalised():
    """So by Gibbs' inequality it is above the truth on average."""
    model = ideal_masked(LANGUAGE, LogLinear(0.0))
    model.denoiser = WrongDenoiser(LANGUAGE, causal=True)
    nats = NextTokenLikelihood()(model, Batch(LANGUAGE.ids), rng=Rng.of(0, len(LANGUAGE.ids)))
    assert float(torch.exp(-nats.double()).sum()) == pytest.approx(1.0, abs=1e-5)
    assert float(LANGUAGE.law.double() @ nats.double()) > LANGUAGE.entropy


DISCRETE = {"absorbing": ideal_masked, "uniform": ideal_uniform}


@pytest.mark.parametrize("schedule", [LogLinear(0.0), LogLinear(0.1), CosineMask(), Geometric(0.01, 4.0)], ids=repr)
@pytest.mark.parametrize("kind", DISCRETE)
def test_score_entropy_with_ideal_ratios_is_the_truth(kind, schedule):
    """Under a schedule that ends before pure noise, too: the cost of the prior is in it."""
    model = DISCRETE[kind](LANGUAGE, schedule)
    excess, spread = _excess(ScoreEntropyLikelihood(), model)
    # An independent first step, or prior, cannot know how positions depend on each other.
    gap = {"LogLinear(eps=0.1)": 0.04, "Geometric(low=0.01, high=4.0)": 0.004}.get(repr(schedule), 0.0)
    assert -4 * spread < excess < gap + 4 * spread + 1e-3
    assert spread < 0.03


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", DISCRETE)
def test_score_entropy_of_wrong_ratios_lies_above_the_truth(kind, layout):
    model = DISCRETE[kind](LANGUAGE, LogLinear())
    model.denoiser = WrongDenoiser(LANGUAGE)
    mean, error, truth = _likelihood(ScoreEntropyLikelihood(), model, layout, repeats=100)
    average, spread = _on_average(mean - truth, error)
    assert average > 4 * spread
