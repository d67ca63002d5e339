"""Every likelihood is at least the true one on average, and equals it with the ideal denoiser."""

from itertools import permutations

import pytest
import torch

from textdiffusion.batch import Batch
from textdiffusion.objectives.gaussian_bound import GaussianLikelihood
from textdiffusion.objectives.masked_bound import MaskedBound, MaskedLikelihood
from textdiffusion.objectives.next_token import NextToken, NextTokenLikelihood
from textdiffusion.objectives.score_entropy import ScoreEntropyLikelihood
from textdiffusion.prediction import Prediction
from textdiffusion.processes.densities import GumbelDensity, PiecewiseDensity
from textdiffusion.processes.schedules import (
    CosineMask,
    CosineNoise,
    Geometric,
    Karras,
    LinearBeta,
    LogLinear,
    LogSigma,
    SqrtNoise,
)
from textdiffusion.randomness import Rng

from .language import ChainDenoiser, Language, WrongDenoiser, ideal_gaussian, ideal_masked, ideal_uniform, tables

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


@pytest.mark.parametrize("codec", ["bits", "one-hot", "simplex", "embeddings", "layer-normed"])
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


@pytest.mark.parametrize("density", ["Gumbel", "piecewise"])
def test_gaussian_likelihood_does_not_depend_on_the_density(density):
    if density == "Gumbel":
        warp = GumbelDensity(0.33, 0.083, 1.1)
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
