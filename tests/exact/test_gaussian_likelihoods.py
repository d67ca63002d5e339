"""The bound of Gaussian processes is at least the true likelihood, and equals it with the ideal denoiser."""

from typing import Any

import pytest
import torch
from torch import nn

from textdiffusion.core.batch import Batch
from textdiffusion.core.randomness import Rng
from textdiffusion.diffusion.binned_densities import MinVarianceDensity, TimeWarpDensity
from textdiffusion.diffusion.curve_densities import GumbelDensity
from textdiffusion.diffusion.densities import UniformDensity
from textdiffusion.diffusion.discrete_betas import DiscreteBetaSchedule
from textdiffusion.diffusion.prediction import Prediction
from textdiffusion.diffusion.sigma_schedules import (
    CosineSigma,
    KarrasSigma,
    LearnedLogSigmaSchedule,
    LinearBeta,
    LogSigma,
    SqrtSigma,
)
from textdiffusion.diffusion.table_codecs import TableCodec
from textdiffusion.objectives import gaussian_elbo
from textdiffusion.objectives.gaussian_elbo import (
    BinnedTimes,
    GaussianELBO,
    GaussianEstimator,
    GaussianLikelihood,
    MixtureTimes,
    denoise,
)
from textdiffusion.objectives.noised_batch import predict_x0

from .language import WrongDenoiser, ideal_gaussian, tables
from .texts import LANGUAGE, LAW, LAYOUTS, TEXTS, batch_of, excess_of, nats_of, on_average


@pytest.mark.parametrize("codec", ["bits", "one-hot", "simplex", "embeddings", "layer-normed"])
def test_gaussian_likelihood_with_the_ideal_denoiser_is_the_truth(codec):
    """The I-MMSE identity, text by text; the prior term leaves up to 1 / 800 nats a token."""
    model = ideal_gaussian(LANGUAGE, {"one-hot": TableCodec(torch.eye(3)), **tables(3)}[codec])
    mean, error, truth = nats_of(GaussianLikelihood(), model)
    assert bool(((mean - truth).abs() < 5 * error + 0.006).all())
    excess, spread = excess_of(GaussianLikelihood(), model)
    assert abs(excess) < 3 * spread + 0.004
    assert spread < 0.025


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "plain"])
def test_gaussian_likelihood_given_tokens_and_padding(layout):
    model = ideal_gaussian(LANGUAGE, tables(3)["embeddings"])
    mean, error, truth = nats_of(GaussianLikelihood(), model, layout)
    assert bool(((mean - truth).abs() < 5 * error + 0.006).all())


@pytest.mark.parametrize("made", [KarrasSigma, CosineSigma, SqrtSigma, LinearBeta])
def test_gaussian_likelihood_does_not_depend_on_the_schedule(made):
    codec = tables(3)["bits"]
    model = ideal_gaussian(LANGUAGE, codec, made(0.15 * codec.norm, 15.0 * codec.norm))
    excess, spread = excess_of(GaussianEstimator(MixtureTimes(0.5)), model)
    assert abs(excess) < 3 * spread + 0.007
    assert spread < 0.025


def test_gaussian_likelihood_reads_a_grid_of_betas_between_its_points():
    codec = tables(3)["bits"]
    excess, spread = excess_of(
        GaussianLikelihood(), ideal_gaussian(LANGUAGE, codec, DiscreteBetaSchedule("sqrt", 2000, codec.scale))
    )
    assert abs(excess) < 3 * spread + 0.007
    assert spread < 0.025


@pytest.mark.parametrize("density", ["Gumbel", "piecewise", "a part of [0, 1]"])
def test_gaussian_likelihood_does_not_depend_on_the_density(density):
    if density == "Gumbel":
        warp = GumbelDensity(0.33, 0.083, 1.1)
    elif density == "a part of [0, 1]":
        warp = UniformDensity(0.3, 0.8)
    else:
        warp = TimeWarpDensity(20)
        warp.averaged.copy_(torch.randn(2, 20, generator=torch.Generator().manual_seed(1)))
    model = ideal_gaussian(LANGUAGE, tables(3)["bits"], density=warp)
    excess, spread = excess_of(GaussianLikelihood(), model)
    assert abs(excess) < 3 * spread + 0.004
    assert spread < 0.025


def test_a_higher_lowest_noise_level_moves_nats_into_the_decoder():
    """Cut at 0.45 norms, what the bound exceeds the truth by is what its decoder knows less than Bayes' rule."""
    codec = tables(3)["bits"]
    model = ideal_gaussian(LANGUAGE, codec, LogSigma(0.45 * codec.norm, 20.0 * codec.norm))
    excess, spread = excess_of(GaussianEstimator(MixtureTimes(0.8)), model)
    rows, rng = 50_000, Rng.of(9, 50_000)
    drawn = rng.fork("texts").categorical(LANGUAGE.law.expand(rows, -1))
    batch, zero = Batch(LANGUAGE.ids[drawn]), torch.zeros(rows)
    near = model.process.add_noise(codec.encode(batch.tokens), zero, rng=rng)
    bayes = -torch.log(model.denoiser.joint(near, zero, batch).gather(1, drawn[:, None])).mean()
    alone = Prediction(model.denoiser.evidence(near, zero)).nll(batch.tokens, batch.target_mask).sum(-1).mean()
    gap = float(alone - bayes)
    assert gap > 0.1
    assert abs(excess - gap) < 3 * spread + 0.01
    assert spread < 0.025


def _pilot(model, rows=256):
    rng = Rng.of(50, rows)
    with torch.no_grad():
        return GaussianLikelihood().pilot(
            model, Batch(TEXTS[rng.fork("texts").categorical(LAW.float().expand(rows, -1))]), rng=rng
        )


@pytest.mark.parametrize("made", [LogSigma, KarrasSigma, SqrtSigma])
def test_importance_sampled_the_bound_is_the_same_and_varies_less(made):
    codec = tables(3)["bits"]
    model = ideal_gaussian(LANGUAGE, codec, made(0.05 * codec.norm, 20.0 * codec.norm))
    estimator = GaussianLikelihood().importance_sampled(_pilot(model))
    excess, spread = excess_of(estimator, model)
    assert abs(excess) < 3 * spread + 0.004
    batch, _ = batch_of("plain", 3000)
    with torch.no_grad():
        nats = [each(model, batch, rng=Rng.of(1, len(batch.tokens))) for each in (GaussianLikelihood(), estimator)]
    before, now = (each.view(3000, -1).var(0) for each in nats)
    assert float(LAW.float() @ now) < 0.6 * float(LAW.float() @ before)


def test_a_pilot_that_saw_nothing_samples_evenly():
    """So no draw is wasted where all of its rows were certain, nor missing in bins where it has no row."""
    estimator = GaussianLikelihood().importance_sampled(torch.tensor([[0.1, 0.0], [0.9, 0.0]]))
    assert isinstance(estimator.proposal, BinnedTimes)
    assert torch.allclose(estimator.proposal.probs, torch.full((32,), 1 / 32))
    model = ideal_gaussian(LANGUAGE, tables(3)["bits"])
    excess, spread = excess_of(estimator, model, rows=2000)
    assert abs(excess) < 3 * spread + 0.004


@pytest.mark.parametrize("self_conditioning", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gaussian_likelihood_of_a_wrong_denoiser_lies_above_the_truth(layout, self_conditioning):
    model = ideal_gaussian(LANGUAGE, tables(3)["bits"])
    model.denoiser = WrongDenoiser(LANGUAGE, model.codec.table())
    model.denoiser.self_conditioning = self_conditioning
    mean, error, truth = nats_of(GaussianLikelihood(), model, layout, repeats=50)
    average, spread = on_average(mean - truth, error)
    assert average > 4 * spread


class Misreading(nn.Module):
    """Ideal but for the noise levels below `until`, where it takes every token for the next one."""

    def __init__(self, ideal, until):
        super().__init__()
        self.ideal, self.until, self.self_conditioning = ideal, until, False

    def forward(self, xt, t, *, batch, self_cond=None):
        prediction = self.ideal(xt, t, batch=batch)
        misread = (t < self.until)[:, None, None]
        return Prediction(torch.where(misread, prediction.logits.roll(1, -1), prediction.logits), prediction.table)


def _misreading(until, codec="simplex"):
    """Wrong below so many norms."""
    codec = tables(3)[codec]
    model = ideal_gaussian(LANGUAGE, codec)
    model.denoiser = Misreading(model.denoiser, float(model.process.schedule.time(torch.tensor(until * codec.norm))))
    return excess_of(GaussianLikelihood(), model)


@pytest.mark.parametrize("codec", ["simplex", "embeddings", "bits"])
def test_a_token_that_its_noisy_vector_shows_is_never_misread(codec):
    """Below 0.18 norms the three vectors are read apart a thousand to one, whatever the network says."""
    excess, spread = _misreading(0.15 if codec == "simplex" else 0.1, codec)
    assert abs(excess) < 3 * spread + 0.02
    assert spread < 0.025


def test_vectors_that_are_nearly_one_leave_doubt_at_any_noise():
    """The evidence of two is large there, and so is its rounding; 1 of 1,000 is a matter of their difference."""
    codec = TableCodec(torch.tensor([[1.0, 1e-3], [1.0, -1e-3], [-1.0, 0.0]]))
    model = ideal_gaussian(LANGUAGE, codec, LogSigma(1e-4, 20.0))
    batch, between = Batch(torch.tensor([[0, 1, 2]])), torch.tensor([[[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]])
    near = denoise(model, between, torch.zeros(1), batch)
    assert torch.equal(near[:, :2], predict_x0(model, between, torch.zeros(1), batch).mean[:, :2])
    assert not any(torch.equal(near[0, 0], row) for row in codec.table())
    assert torch.equal(near[0, 2], codec.table()[2])


def test_what_is_read_does_not_depend_on_chunks(monkeypatch):
    model = ideal_gaussian(LANGUAGE, tables(3)["bits"])
    batch, _ = batch_of("plain", 4)
    x0, rng = model.codec.encode(batch.tokens), Rng.of(0, len(batch.tokens))
    t = rng.uniform(1)[:, 0]
    xt = model.process.add_noise(x0, t, rng=rng)
    whole = denoise(model, xt, t, batch)
    monkeypatch.setattr(gaussian_elbo, "CHUNK_ELEMENTS", 20)
    assert torch.equal(denoise(model, xt, t, batch), whole)


def test_the_model_is_believed_where_a_noisy_vector_leaves_doubt():
    excess, _ = _misreading(until=0.6)
    assert excess > 1.0


def test_two_passes_feed_the_first_estimate_back():
    model = ideal_gaussian(LANGUAGE, tables(3)["bits"])
    model.denoiser = WrongDenoiser(LANGUAGE, model.codec.table())
    twice = nats_of(GaussianLikelihood(), model, repeats=4)[0]
    model.denoiser.self_conditioning = False
    once = nats_of(GaussianLikelihood(), model, repeats=4)[0]
    assert not torch.equal(once, twice)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_learned_decoder_with_the_ideal_denoiser_is_the_truth(layout):
    model = ideal_gaussian(LANGUAGE, tables(3)["embeddings"])
    mean, error, truth = nats_of(GaussianLikelihood(learned_decoder=True), model, layout)
    assert bool(((mean - truth).abs() < 5 * error + 0.006).all())


def test_a_learned_decoder_knows_what_bayes_rule_alone_does_not():
    """Cut at 0.45 norms the bound exceeds the truth by what decoding position by position loses, and by no more."""
    codec = tables(3)["bits"]
    model = ideal_gaussian(LANGUAGE, codec, LogSigma(0.45 * codec.norm, 20.0 * codec.norm))
    learned, spread = excess_of(GaussianEstimator(MixtureTimes(0.8), learned_decoder=True), model)
    alone, _ = excess_of(GaussianEstimator(MixtureTimes(0.8)), model)
    assert learned > -3 * spread
    assert learned < alone - 0.05


def _plaid(density=None, low=0.05, rows=40_000, learned=True):
    """Rows that follow the law, under a schedule with learned ends, and their entropy in nats per token."""
    codec = tables(3)["embeddings"]
    schedule: Any = (LearnedLogSigmaSchedule if learned else LogSigma)(low * codec.norm, 20.0 * codec.norm)
    model = ideal_gaussian(LANGUAGE, codec, schedule, density)
    return model, Batch(TEXTS[Rng.of(5, rows).categorical(LAW.float().expand(rows, -1))])


@pytest.mark.parametrize("every", [2, 8])
def test_plaids_objective_with_the_ideal_denoiser_is_the_entropy(every):
    """In expectation, whatever share of the rows is decoded and whatever density draws the others."""
    density = MinVarianceDensity(20, uniform_mix=0.3)
    density.averaged[1].copy_(torch.randn(20, generator=torch.Generator().manual_seed(1)))
    model, batch = _plaid(density)
    truth = float(LANGUAGE.nll()[LANGUAGE.number(batch.tokens)].mean()) / 3
    with torch.no_grad():
        bounds = [
            float(GaussianELBO(every)(model, batch, rng=Rng.of(s, len(batch.tokens))).parts["bound"]) for s in (0, 1)
        ]
    assert sum(bounds) / 2 == pytest.approx(truth, abs=0.02)
    model.denoiser = WrongDenoiser(LANGUAGE, model.codec.table())
    with torch.no_grad():
        wrong = GaussianELBO(every)(model, batch, rng=Rng.of(0, len(batch.tokens)))
    assert float(wrong.total) > truth + 0.1


def test_plaids_bound_does_not_depend_on_ends_that_are_wide_enough():
    """So the gradient to them is nothing but the prior and what Bayes cannot decode; a narrow low end wants to fall."""
    slopes = {}
    for low in (0.05, 0.45):
        model, batch = _plaid(low=low)
        GaussianELBO(2)(model, batch, rng=Rng.of(0, len(batch.tokens))).total.backward()
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
