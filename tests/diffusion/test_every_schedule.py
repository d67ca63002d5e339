"""What every noise schedule must do. A new schedule is found by itself, at its defaults."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from textdiffusion.config.discovery import import_parts
from textdiffusion.diffusion.alpha_schedules import AlphaSchedule, LogLinear
from textdiffusion.diffusion.gaussian import GaussianProcess
from textdiffusion.diffusion.sigma_schedules import SigmaRange, SigmaSchedule, SqrtSigma

import_parts()
ALPHAS = [*(part() for part in AlphaSchedule.choices().values()), LogLinear(0.05)]
# Settings with the schedule that runs, for clean states of norm 4 in 16 dimensions.
SIGMAS = {kind: part().scaled(4.0, 16) for kind, part in SigmaSchedule.choices().items()}
RANGES = {kind: part for kind, part in SigmaSchedule.choices().items() if issubclass(part, SigmaRange)}
RANGES |= {"sqrt times 4": lambda low, high: SqrtSigma(low, high, sigma_scale=4.0)}
EDGES = torch.tensor([0.0, 2.0**-24, 1e-6, 1e-3, 0.5, 0.999, 0.9999, 1 - 1e-5, 1 - 2.0**-23, 1 - 2.0**-24, 1.0])

every_alpha = pytest.mark.parametrize("schedule", ALPHAS, ids=repr)
every_sigma = pytest.mark.parametrize("schedule", SIGMAS.values(), ids=SIGMAS)
every_range = pytest.mark.parametrize("make", RANGES.values(), ids=RANGES)


@every_alpha
@given(t=st.floats(0.01, 0.99))
def test_alpha_has_its_inverse_and_its_loss_weight(schedule, t):
    times = torch.tensor([t], dtype=torch.float64, requires_grad=True)
    alpha = schedule.alpha(times)
    torch.testing.assert_close(schedule.time(alpha), times)
    (slope,) = torch.autograd.grad(alpha.sum(), times)
    torch.testing.assert_close(schedule.loss_weight(times), -slope / (1 - alpha))


@every_alpha
def test_alpha_falls_from_clean_to_noise(schedule):
    alpha = schedule.alpha(EDGES)
    assert float(alpha[0]) == 1.0
    assert float(alpha[-1]) == pytest.approx(getattr(schedule, "eps", 0.0), abs=1e-7)
    # The masked fraction keeps its precision where it is far below that of alpha.
    torch.testing.assert_close(
        schedule.mask_prob(EDGES), (1.0 - schedule.alpha(EDGES.double())).float(), rtol=1e-5, atol=1e-12
    )
    assert bool((alpha.diff() <= 0).all())
    assert bool(((alpha >= 0) & (alpha <= 1)).all())
    assert bool(torch.isfinite(schedule.loss_weight(EDGES[1:])).all())
    assert bool((schedule.loss_weight(EDGES[1:]) >= 0).all())
    assert bool(torch.isfinite(schedule.time(torch.tensor([0.0, 1.0]))).all())


@every_sigma
@given(t=st.floats(0.01, 0.99))
def test_sigma_has_its_inverse_and_its_slope(schedule, t):
    """sigma(time(sigma)) = sigma, and dlogsigma_dt is what ln sigma rises by."""
    times, step = torch.tensor([t], dtype=torch.float64), 1e-9
    sigma = schedule.sigma(times).detach()
    torch.testing.assert_close(schedule.sigma(schedule.time(sigma)).detach(), sigma, rtol=1e-5, atol=0)
    rise = torch.log(schedule.sigma(times + step)) - torch.log(schedule.sigma(times - step))
    slope = GaussianProcess(schedule).dlogsigma_dt(times)
    torch.testing.assert_close(slope.detach(), (rise / (2 * step)).detach(), rtol=1e-3, atol=1e-4)


@every_sigma
def test_sigma_is_finite_and_rises(schedule):
    """In float32, at the ends too."""
    sigma = schedule.sigma(EDGES).detach()
    assert bool(torch.isfinite(sigma).all())
    assert bool((sigma > 0).all())
    assert bool((sigma.diff() >= -1e-6 * sigma[1:]).all())
    assert float(sigma[-1]) > 100 * float(sigma[0])


@every_range
@given(low=st.floats(0.01, 0.9), ratio=st.floats(10.0, 400.0), fraction=st.floats(0.02, 0.98))
def test_a_range_has_its_inverse_wherever_it_lies(make, low, ratio, fraction):
    """sigma(time(sigma)) = sigma for every sigma that the schedule reaches."""
    schedule = make(low, low * ratio)
    ends = schedule.sigma(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert bool((ends[0] >= low * 0.999) & (ends[1] <= low * ratio * 1.001))
    sigma = (ends[0] * (ends[1] / ends[0]) ** fraction)[None]
    torch.testing.assert_close(schedule.sigma(schedule.time(sigma)), sigma, rtol=1e-6, atol=0)


@every_range
@pytest.mark.parametrize(("low", "high"), [(0.05, 20.0), (0.4, 160.0), (0.8, 320.0), (0.1, 1000.0)])
def test_a_range_is_finite_and_grows_for_every_t(make, low, high):
    """In float32, at the ends too; what the bound multiplies by (d ln sigma / dt) is never NaN."""
    schedule = make(low, high)
    sigma = schedule.sigma(EDGES)
    assert bool(torch.isfinite(sigma).all())
    assert bool(((sigma >= low * 0.999) & (sigma <= high * 1.001)).all())
    assert bool((sigma.diff() >= -1e-6 * sigma[1:]).all())
    slope = GaussianProcess(schedule).dlogsigma_dt(EDGES)
    assert bool(torch.isfinite(slope).all())
    assert bool((slope >= 0).all())


@every_range
def test_a_range_reaches_its_lowest_and_highest_level(make):
    ends = make(0.5, 100.0).sigma(torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(ends, torch.tensor([0.5, 100.0]), rtol=1e-4, atol=0)
