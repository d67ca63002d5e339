"""Ranges of noise and the first guesses of noise densities are in units of what clean states measure."""

import math

import pytest
import torch

from textdiffusion.core.registry import build
from textdiffusion.diffusion.curve_densities import Cauchy, Gumbel
from textdiffusion.diffusion.gaussian import Gaussian
from textdiffusion.diffusion.sigma_schedules import (
    CosineSigma,
    KarrasSigma,
    LearnedLogSigma,
    LinearBeta,
    LinearSigma,
    LogSigma,
    SqrtSigma,
)
from textdiffusion.diffusion.table_codecs import Bits, Embeddings, Simplex

VOCAB = 11
CODECS = {
    "4 dimensions": Embeddings(dim=4),
    "64 dimensions": Embeddings(dim=64),
    "layer norm": Embeddings(dim=16, norm="layer"),
    "bits": Bits(scale=0.3),
    "simplex": Simplex(scale=3.0),
}
every_codec = pytest.mark.parametrize("part", CODECS.values(), ids=CODECS)


def _built(part):
    """A codec, and the root mean square norm of its clean states."""
    codec = build(part, vocab_size=VOCAB)
    return codec, float(codec.table().detach().square().sum(-1).mean().sqrt())


@every_codec
@pytest.mark.parametrize(
    "schedule",
    [
        LogSigma(0.1, 7.0),
        LearnedLogSigma(0.1, 7.0),
        LinearSigma(0.1, 7.0),
        KarrasSigma(0.1, 7.0),
        CosineSigma(0.2, 1.2),
        CosineSigma(0.2, 1.2, sigma_scale=2.0),
        SqrtSigma(0.2, 1.2),
        LinearBeta(0.2, 1.2, sigma_scale=0.5),
    ],
    ids=repr,
)
def test_noise_runs_from_sigma_min_to_sigma_max_norms_of_a_clean_state(part, schedule):
    codec, norm = _built(part)
    sigma = build(Gaussian(schedule), codec=codec).sigma(torch.tensor([0.0, 1.0])).detach() / norm
    torch.testing.assert_close(sigma, torch.tensor([schedule.sigma_min, schedule.sigma_max]), rtol=1e-4, atol=0)


def _above_the_peak(density, schedule, sigma):
    """The log density of t at a noise level, less the highest there is, and the noise level of the highest."""
    t = torch.linspace(0.0, 1.0, 100_001)
    nats = density.log_prob(t)
    at = schedule.time(torch.tensor(sigma))
    return float(density.log_prob(at) - nats.max()), float(schedule.sigma(t[nats.argmax()]))


@every_codec
@pytest.mark.parametrize("midpoint", [0.3, 0.6])
def test_a_gumbel_curve_is_steepest_at_its_midpoint_and_as_wide_as_its_scale(part, midpoint):
    codec, norm = _built(part)
    process = build(Gaussian(LogSigma(0.05, 20.0)), codec=codec)
    density = build(Gumbel(midpoint, 0.4, uniform_mix=0.0), codec=codec, process=process)
    nats, peak = _above_the_peak(density, process.schedule, midpoint * math.exp(0.4) * norm)
    assert peak == pytest.approx(midpoint * norm, rel=0.01)
    assert nats == pytest.approx(-math.exp(-1.0), abs=0.001)


@every_codec
@pytest.mark.parametrize("midpoint", [0.3, 0.6])
def test_an_arctan_curve_is_steepest_at_its_midpoint_and_half_as_steep_at_its_scale_beyond(part, midpoint):
    codec, norm = _built(part)
    process = build(Gaussian(LinearSigma(0.05, 20.0)), codec=codec)
    density = build(Cauchy(midpoint, 0.2, uniform_mix=0.0), codec=codec, process=process)
    nats, peak = _above_the_peak(density, process.schedule, (midpoint + 0.2) * norm)
    assert peak == pytest.approx(midpoint * norm, rel=0.01)
    assert nats == pytest.approx(-math.log(2.0), abs=0.001)
