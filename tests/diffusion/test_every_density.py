"""What every time density must do: quantiles, probability and times agree. A new density is found by itself."""

import pytest
import torch

from textdiffusion.config.discovery import import_parts
from textdiffusion.core.randomness import Rng
from textdiffusion.core.registry import build
from textdiffusion.diffusion.binned_densities import LossSecondMomentDensity, MinVarianceDensity, TimeWarpDensity
from textdiffusion.diffusion.curve_densities import CauchyDensity, GumbelDensity
from textdiffusion.diffusion.densities import TimeDensityConfig, UniformDensity, low_discrepancy
from textdiffusion.diffusion.gaussian import GaussianProcess
from textdiffusion.diffusion.sigma_schedules import LogSigma
from textdiffusion.diffusion.table_codecs import TableCodec

import_parts()


def _piecewise(uniform=0.0, seed=0):
    density = TimeWarpDensity(12, uniform)
    density.averaged.copy_(torch.randn(2, 12, generator=torch.Generator().manual_seed(seed)))
    return density


def _loss_aware():
    """As after training where the loss grows from 0.2 to 1.7."""
    density = LossSecondMomentDensity(10, uniform_mix=0.01)
    density.averaged[1] = torch.log(0.2 + 1.5 * torch.arange(10) / 9)
    return density


CODEC = TableCodec(torch.eye(5))
CONTEXT = {"codec": CODEC, "process": GaussianProcess(LogSigma().scaled(CODEC.norm, CODEC.dim)), "vocab_size": 5}
DEFAULTS = {kind: build(part(), **CONTEXT) for kind, part in TimeDensityConfig.choices().items()}
SHAPED = {
    "uniform in a part": UniformDensity(0.45, 0.95),
    "Gumbel": GumbelDensity(0.36, 0.077, 4.0),
    "Gumbel, nothing uniform": GumbelDensity(0.36, 0.077, 4.0, 0.0),
    "Gumbel, wide": GumbelDensity(0.5, 0.4, 4.0, 0.2),
    "Gumbel, half outside": GumbelDensity(0.95, 0.2, 4.0),
    "Cauchy": CauchyDensity(0.3, 0.1, 4.0),
    "Cauchy, nothing uniform": CauchyDensity(0.3, 0.1, 4.0, 0.0),
    "Cauchy, near the low end": CauchyDensity(0.019, 0.009, 4.0),
    "piecewise": _piecewise(),
    "piecewise, partly uniform": _piecewise(0.3),
    "steady": MinVarianceDensity(uniform_mix=0.2),
    "loss-aware": _loss_aware(),
}
DENSITIES = DEFAULTS | SHAPED
every_density = pytest.mark.parametrize("density", DENSITIES.values(), ids=DENSITIES)


@every_density
def test_the_density_has_mass_one(density):
    t = (torch.arange(200_000) + 0.5) / 200_000
    assert float(density.log_prob(t).exp().double().mean()) == pytest.approx(1.0, abs=2e-3)


@every_density
def test_quantile_and_probability_agree(density):
    """The mass of an interval between two quantiles is their difference, whatever part of a mixture draws it."""
    u = (torch.arange(100_000) + 0.5) / 100_000
    t = density.icdf(u)
    assert bool(((t >= 0) & (t <= 1)).all())
    edges = torch.linspace(0, 1, 41)
    drawn = torch.histc(t, 40, 0.0, 1.0).double() / len(t)
    fine = (edges[:-1, None] + (torch.arange(2000) + 0.5) / 2000 / 40).flatten()
    mass = density.log_prob(fine).exp().double().view(40, -1).mean(1) / 40
    torch.testing.assert_close(drawn, mass, atol=4e-4, rtol=0.01)


@pytest.mark.parametrize(
    "name", ["uniform", "Gumbel, nothing uniform", "Cauchy, nothing uniform", "piecewise", "piecewise, partly uniform"]
)
def test_the_slope_of_the_quantile_is_one_over_the_density(name):
    density = DENSITIES[name]
    u = torch.linspace(0.03, 0.97, 200)
    step = 1e-3
    t = density.icdf(u)
    slope = (density.icdf(u + step) - density.icdf(u - step)) / (2 * step)
    ratio = slope * density.log_prob(t).exp()
    assert float((ratio.log().abs() < 0.03).float().mean()) > (0.85 if "piecewise" in name else 0.99)  # edges of bins


# Without a uniform share a density has noise levels that are almost never drawn, with weights without limit.
@pytest.mark.parametrize("name", sorted(DENSITIES.keys() - {"Gumbel, nothing uniform", "uniform in a part"}))
def test_importance_weights_make_any_integral_unbiased(name):
    density = DENSITIES[name]
    t = density.icdf(low_discrepancy(Rng.of(0, 100_000), 100_000))
    weight = torch.exp(-density.log_prob(t)).double()
    for f in (torch.ones_like, lambda x: x, lambda x: torch.sin(9 * x) + 1, lambda x: x**3):
        truth = float(f((torch.arange(10_000).double() + 0.5) / 10_000).mean())
        assert float((weight * f(t.double())).mean()) == pytest.approx(truth, abs=0.01)


@every_density
def test_the_sampling_times_run_from_noise_to_clean(density):
    grid = density.sampling_times(torch.linspace(1.0, 0.0, 33))
    assert bool((grid.diff() <= 0).all())
    assert float(grid[0]) == pytest.approx(1.0, abs=1e-3)
    assert float(grid[-1]) == pytest.approx(0.0, abs=1e-3)
    assert float(grid[-1]) >= 0.0
    assert bool(torch.isfinite(grid).all())
    assert len(grid.unique()) == 33
