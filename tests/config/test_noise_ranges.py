"""Ranges of noise and the first guesses of noise densities are in units of what clean states measure."""

import math

import pytest
import torch

from textdiffusion.parts import Bits, Cauchy, Embeddings, Gaussian, Gumbel, Simplex

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
    codec = part.build(VOCAB)
    return codec, float(codec.table().detach().square().sum(-1).mean().sqrt())


@every_codec
@pytest.mark.parametrize(
    "process",
    [
        Gaussian(sigma_min=0.1, sigma_max=7.0),
        Gaussian("learned", 0.1, 7.0),
        Gaussian("linear_sigma", 0.1, 7.0),
        Gaussian("karras", 0.1, 7.0),
        Gaussian("cosine", 0.2, 1.2),
        Gaussian("cosine", 0.2, 1.2, sigma_scale=2.0),
        Gaussian("sqrt", 0.2, 1.2),
        Gaussian("linear_beta", 0.2, 1.2, sigma_scale=0.5),
    ],
    ids=lambda process: f"{process.schedule} x {process.sigma_scale:g}",
)
def test_noise_runs_from_low_to_high_norms_of_a_clean_state(part, process):
    codec, norm = _built(part)
    sigma = process.build(codec).sigma(torch.tensor([0.0, 1.0])).detach() / norm
    torch.testing.assert_close(sigma, torch.tensor([process.sigma_min, process.sigma_max]), rtol=1e-4, atol=0)


def _above_the_peak(density, schedule, sigma):
    """The log density of t at a noise level, less the highest there is, and the noise level of the highest."""
    t = torch.linspace(0.0, 1.0, 100_001)
    nats = density.log_prob(t)
    at = schedule.time(torch.tensor(sigma))
    return float(density.log_prob(at) - nats.max()), float(schedule.sigma(t[nats.argmax()]))


@every_codec
@pytest.mark.parametrize("half", [0.3, 0.6])
def test_a_gumbel_curve_is_steepest_at_half_norms_and_as_wide_as_its_scale(part, half):
    codec, norm = _built(part)
    process = Gaussian(sigma_min=0.05, sigma_max=20.0).build(codec)
    density = Gumbel(half, 0.4, uniform_mix=0.0).build(codec, process)
    nats, peak = _above_the_peak(density, process.schedule, half * math.exp(0.4) * norm)
    assert peak == pytest.approx(half * norm, rel=0.01)
    assert nats == pytest.approx(-math.exp(-1.0), abs=0.001)


@every_codec
@pytest.mark.parametrize("half", [0.3, 0.6])
def test_an_arctan_curve_is_steepest_at_half_norms_and_half_as_steep_at_its_scale_beyond(part, half):
    codec, norm = _built(part)
    process = Gaussian("linear_sigma", sigma_min=0.05, sigma_max=20.0).build(codec)
    density = Cauchy(half, 0.2, uniform_mix=0.0).build(codec, process)
    nats, peak = _above_the_peak(density, process.schedule, (half + 0.2) * norm)
    assert peak == pytest.approx(half * norm, rel=0.01)
    assert nats == pytest.approx(-math.log(2.0), abs=0.001)
