"""Time densities: what each learns from the losses, and where it samples."""

import math

import pytest
import torch

from textdiffusion.core.randomness import Rng
from textdiffusion.diffusion.binned_densities import LossSecondMomentDensity, MinVarianceDensity, TimeWarpDensity
from textdiffusion.diffusion.curve_densities import CauchyDensity, GumbelDensity
from textdiffusion.diffusion.densities import UniformDensity, low_discrepancy
from textdiffusion.diffusion.discrete_betas import DiscreteBetaSchedule
from textdiffusion.diffusion.gaussian import GaussianProcess


def _gumbel(uniform=0.1, mu=0.36, scale=0.077):
    return GumbelDensity(mu, scale, 4.0, uniform)


def _piecewise(uniform=0.0, seed=0):
    density = TimeWarpDensity(12, uniform)
    density.averaged.copy_(torch.randn(2, 12, generator=torch.Generator().manual_seed(seed)))
    return density


@pytest.mark.parametrize("scale", [0.15, 0.077, 0.04, 0.02])
def test_a_steep_curve_is_sampled_from_end_to_end(scale):
    """The prior is drawn at t = 1 and the text read at t = 0, however early float32 rounds the curve to its ends."""
    ends = _gumbel(0.1, 0.36, scale).sampling_times(torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(ends, torch.tensor([1.0, 0.0]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale", [0.3, 0.009, 1e-3])
def test_an_arctan_curve_is_sampled_from_end_to_end(scale):
    """Its tail is heavy: most of [0, 1] lies where float32 rounds an arctan to a right angle."""
    ends = CauchyDensity(0.02, scale, 4.0).sampling_times(torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(ends, torch.tensor([1.0, 0.0]), atol=1e-6, rtol=0)


def test_grids_of_absorbing_processes_end_exactly():
    """A position left masked, or a prior not all masks, would be an error however small."""
    for density in (UniformDensity(), _piecewise(), TimeWarpDensity()):
        grid = density.sampling_times(torch.linspace(1.0, 0.0, 8))
        assert (float(grid[0]), float(grid[-1])) == (1.0, 0.0)


def _fit(density, curve, steps, noise=0.3, total=128):
    """Trains a density on noisy values of a curve, at the t it draws itself."""
    optimiser = torch.optim.Adam(density.parameters(), 0.03)
    draw = torch.Generator().manual_seed(0)
    for i in range(steps):
        t = density.icdf(low_discrepancy(Rng.of(0, total).fork(i), total))
        loss = density.fitting_loss(t, curve(t) + noise * torch.randn(total, generator=draw)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        density.update_average()
    return density


def test_gumbel_fit_recovers_a_known_curve():
    mu, scale, height = 0.55, 0.12, 2.5

    def curve(t):
        return height * torch.exp(-torch.exp(-(t - mu) / scale))

    density = _fit(GumbelDensity(0.36, 0.077, 4.0, rate=0.05), curve, steps=300)
    found = density.averaged
    assert float(found[0]) == pytest.approx(mu, abs=0.02)
    assert float(found[1].exp()) == pytest.approx(scale, abs=0.02)
    assert float(found[2].exp()) == pytest.approx(height, abs=0.15)
    # Its draws then follow the slope of the curve: equal drops of loss between quantiles.
    drops = curve(density.sampling_times(torch.linspace(0.0, 1.0, 9))).diff()
    assert float(drops.std() / drops.mean()) < 0.15


def test_cauchy_fit_recovers_a_known_curve():
    """In the units of mini CDCD: sigma up to 200 over norms of 16, fitted from its first guess to its last."""
    mu, scale, height, offset = 7.3 / 200, 3.02 / 200, 5.48, -0.69

    def curve(t):
        return height * (0.5 + torch.atan((t - mu) / scale) / math.pi) + offset

    density = _fit(CauchyDensity(3.0171 / 200, 1.7785 / 200, 10.3, rate=0.05), curve, steps=400)
    even = (torch.arange(1000) + 0.5) / 1000
    before = CauchyDensity(3.0171 / 200, 1.7785 / 200, 10.3).predicted_loss(even)
    assert before is not None
    assert float((before - curve(even)).square().mean().sqrt()) > 5
    assert float((density.predicted_loss(even) - curve(even)).square().mean().sqrt()) < 0.15
    assert float(density.icdf(torch.tensor([0.55]))) == pytest.approx(mu, rel=0.2)


def _integrand(t):
    """What a bound is the integral of: a bump in ln sigma, 0 nearly everywhere else."""
    return torch.exp(-(((t - 0.3) / 0.08) ** 2)) + 0.01


def test_the_steady_density_follows_the_gradient_of_the_second_moment():
    """On average over its own draws, the gradient is that of the integral of L^2 / p: Plaid's rule for its schedule."""
    density = MinVarianceDensity(8, uniform_mix=0.2)
    with torch.no_grad():
        density.fit[1].copy_(torch.randn(8, generator=torch.Generator().manual_seed(0)))
        density.averaged.copy_(density.fit)
        density.averaged[1, 3] += 0.7  # draws lag behind what is fitted
    t = density.icdf((torch.arange(200_000) + 0.5) / 200_000)
    (found,) = torch.autograd.grad(density.fitting_loss(t, _integrand(t)).mean(), density.fit)
    even = (torch.arange(200_000) + 0.5) / 200_000
    share = density.fit[1].double()
    logits = share.detach().clone().requires_grad_()
    p = 8 * (0.8 * logits.softmax(0) + 0.2 / 8)[(even * 8).long()]
    moment = (_integrand(even).double() ** 2 / p).mean()
    (expected,) = torch.autograd.grad(moment, logits)
    torch.testing.assert_close(found[1].double(), expected, rtol=0.02, atol=2e-3)
    assert bool((found[0] == 0).all())


def test_the_steady_density_settles_where_an_estimate_varies_least():
    """p is proportional to L in every bin; then one draw of L / p tells the integral, or nearly."""
    density = _fit(MinVarianceDensity(40, uniform_mix=0.0, rate=0.05), _integrand, steps=500, noise=0.0)
    t = density.icdf((torch.arange(20_000) + 0.5) / 20_000)
    weighted = _integrand(t) * torch.exp(-density.log_prob(t))
    even = _integrand((torch.arange(20_000) + 0.5) / 20_000)
    torch.testing.assert_close(weighted.mean(), even.mean(), rtol=0.02, atol=0)
    assert float(weighted.var()) < 0.1 * float(even.var())


@pytest.mark.parametrize(
    "make", [_gumbel, lambda: CauchyDensity(0.3, 0.1, 4.0), _piecewise], ids=["Gumbel", "Cauchy", "piecewise"]
)
def test_a_fit_that_is_not_finite_leaves_the_last_good_curve(make):
    density = make()
    fitted = next(density.parameters()).detach()
    for _ in range(3):
        fitted.add_(0.1)
        density.update_average()
    good = density.averaged.clone()
    fitted.view(-1)[1] = torch.nan
    density.update_average()
    assert torch.equal(density.averaged, good)
    assert torch.equal(fitted, good)


def test_a_steep_curve_has_a_gradient_far_below_its_rise():
    density = _gumbel(scale=0.003)
    loss = density.fitting_loss(torch.tensor([0.01, 0.36]), torch.ones(2))
    grad = torch.autograd.grad(loss.sum(), density.fit)[0]
    assert bool(loss.isfinite().all())
    assert bool(grad.isfinite().all())
    assert float(grad.abs().sum()) > 0


def test_the_first_arctan_curve_rises_from_nothing_to_the_height_asked_for():
    ends = CauchyDensity(0.019, 0.009, 4.0).predicted_loss(torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(ends, torch.tensor([0.0, 4.0]), atol=1e-5, rtol=0)


def test_piecewise_fit_recovers_a_known_curve():
    def curve(t):
        return 2.5 * torch.sigmoid((t - 0.4) * 12)

    density = _fit(TimeWarpDensity(20, rate=0.05), curve, steps=400)
    drops = curve(density.sampling_times(torch.linspace(0.0, 1.0, 9))).diff()
    assert float(drops.std() / drops.mean()) < 0.4
    assert float(density.icdf(torch.tensor([0.5]))) == pytest.approx(0.4, abs=0.05)


def test_the_fit_is_weighted_by_importance():
    """The fit is one over t, wherever the draws fall; without the weight it would chase itself."""
    curve = GumbelDensity(0.5, 0.1, 2.0, uniform_mix=0.3)
    nats = lambda t: torch.sin(5 * t) + 1  # noqa: E731
    even = (torch.arange(20_000) + 0.5) / 20_000
    fitted = 2.0 * torch.exp(-torch.exp(-(even - 0.5) / 0.1))
    plain = float(((fitted - nats(even)) ** 2).mean())
    t = curve.icdf(even)
    assert float(curve.fitting_loss(t, nats(t)).mean().detach()) == pytest.approx(plain, rel=0.01)


def test_what_is_drawn_from_moves_only_when_it_settles():
    for density in (_gumbel(), CauchyDensity(0.3, 0.1, 4.0), _piecewise()):
        before = density.averaged.clone()
        density.fitting_loss(torch.rand(8), torch.rand(8)).mean().backward()
        assert torch.equal(density.averaged, before)
        with torch.no_grad():
            next(density.parameters()).add_(1.0)
        density.update_average()
        moved = before + density.rate * (next(density.parameters()).detach() - before)
        torch.testing.assert_close(density.averaged, moved)
    UniformDensity().update_average()
    assert torch.equal(UniformDensity().fitting_loss(torch.rand(8), torch.rand(8)), torch.zeros(8))


def test_what_a_density_learned_is_saved():
    first, second = _piecewise(seed=1), TimeWarpDensity(12)
    second.load_state_dict(first.state_dict())
    u = torch.rand(10)
    assert torch.equal(first.icdf(u), second.icdf(u))


def test_stratified_draws_cover_the_interval_evenly():
    for total in (1, 2, 7, 64, 1000):
        u = low_discrepancy(Rng.of(3, total).fork("t"), total)
        assert bool(((u > 0) & (u < 1)).all())
        gaps = torch.cat((u.sort().values, u.min()[None] + 1)).diff()
        torch.testing.assert_close(gaps, torch.full((total,), 1 / total), atol=3e-7, rtol=0)


def test_stratified_draws_do_not_depend_on_how_the_batch_is_split():
    whole = low_discrepancy(Rng.of(3, 12).fork(5), 12)
    parts = [low_discrepancy(Rng.of(3, torch.arange(a, b)).fork(5), 12) for a, b in ((0, 5), (5, 6), (6, 12))]
    assert torch.equal(whole, torch.cat(parts))


def test_a_stratified_row_is_uniform_over_steps():
    u = torch.stack([low_discrepancy(Rng.of(0, torch.tensor([3])).fork(i), 8)[0] for i in range(500)]).sort().values
    gap = (u - (torch.arange(500) + 0.5) / 500).abs().max()
    assert float(gap) * math.sqrt(500) < 2.0
    assert low_discrepancy(Rng.of(0, 4), 4).dtype == torch.float32


def test_loss_aware_draws_follow_the_root_mean_square_of_the_loss():
    density = _fit(
        LossSecondMomentDensity(10, uniform_mix=0.01, rate=0.05), lambda t: (1 + t.mul(10).floor()) / 5, 500, noise=0.0
    )
    _, share = density._bins(density.averaged)
    torch.testing.assert_close(share, 0.99 * torch.arange(1, 11) / 55 + 0.001, rtol=0.1, atol=0)
    u = torch.rand(5)
    assert torch.equal(density.sampling_times(u), u)


def test_loss_aware_weights_leave_the_objective_unbiased_and_less_noisy():
    """A loss averaged with importance weights on the grid of 2,000 levels is the plain average; its spread shrinks."""
    process = GaussianProcess(DiscreteBetaSchedule("sqrt"))
    loss = lambda t: (0.2 + 1.5 * t) ** 2  # noqa: E731
    truth = float(loss(torch.arange(2000).double() / 1999).mean())
    spreads = {}
    aware = LossSecondMomentDensity(10, uniform_mix=0.01)
    aware.averaged[1] = torch.log(loss((torch.arange(10) + 0.5) / 10))
    for name, density in (("uniform", UniformDensity()), ("aware", aware)):
        t = process.snap_to_grid(density.icdf(Rng.of(1, 100_000).uniform()))
        weighted = loss(t) * torch.exp(-density.log_prob(t))
        spreads[name] = float(weighted.std())
        assert float(weighted.double().mean()) == pytest.approx(truth, abs=5 * spreads[name] / 100_000**0.5)
    assert spreads["aware"] < 0.3 * spreads["uniform"]
