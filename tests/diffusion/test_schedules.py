"""Schedules against the formulas of their papers, and the grid of discrete betas."""

import math
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from textdiffusion.diffusion.discrete_betas import Betas, DiscreteBetaSchedule
from textdiffusion.diffusion.gaussian import GaussianProcess
from textdiffusion.diffusion.sigma_schedules import (
    CosineSigma,
    KarrasSigma,
    LinearBeta,
    LogSigma,
    SqrtSigma,
)

GRIDS = {name: DiscreteBetaSchedule(name) for name in get_args(Betas)}
EDGES = torch.tensor([0.0, 2.0**-24, 1e-6, 1e-3, 0.5, 0.999, 0.9999, 1 - 1e-5, 1 - 2.0**-23, 1 - 2.0**-24, 1.0])


def test_schedules_are_those_of_their_papers():
    t = torch.tensor([0.1, 0.35, 0.8], dtype=torch.float64)
    wide = (1e-9, 1e9)

    def share(schedule):  # alpha-bar of the variance-preserving form
        return 1 / (1 + schedule.sigma(t) ** 2)

    torch.testing.assert_close(share(CosineSigma(*wide)), torch.cos((t + 2e-4) / (1 + 2e-4) * math.pi / 2) ** 2)
    torch.testing.assert_close(share(SqrtSigma(*wide)), 1 - torch.sqrt(t + 1e-4))
    torch.testing.assert_close(share(LinearBeta(*wide)), torch.exp(-(0.1 * t + 19.9 * t**2 / 2)))
    torch.testing.assert_close(LogSigma(0.1, 10.0).sigma(t), 0.1 * 100**t)
    torch.testing.assert_close(SqrtSigma(*wide, sigma_scale=4.0).sigma(t), 4.0 * SqrtSigma(*wide).sigma(t))
    edm = (80 ** (1 / 7) + (1 - t) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    torch.testing.assert_close(KarrasSigma(0.002, 80.0).sigma(t), edm)


def test_log_slope_is_the_derivative():
    process = GaussianProcess(LogSigma(0.1, 10.0))
    with torch.no_grad():
        slope = process.dlogsigma_dt(torch.tensor([0.2, 0.7]))
    torch.testing.assert_close(slope, torch.full((2,), math.log(100.0)))


def _alpha_bar(name, n):
    """The grid's alpha-bar by the definition of each schedule, step by step in Python's own floats."""

    def curve(t):
        if name == "sqrt":
            return 1 - (t + 1e-4) ** 0.5
        offset = 0.1 if name == "trunc_cos" else 0.008
        return math.cos((t + offset) / (1 + offset) * math.pi / 2) ** 2

    left, found = 1.0, []
    for i in range(n):
        if name == "linear":
            beta = (1000 / n) * (1e-4 + i / (n - 1) * (0.02 - 1e-4))
        elif name == "trunc_lin":
            beta = 0.01 + (1000 / n) * (1e-4 + i / (n - 1) * (0.02 - 1e-4))
        elif name == "pw_lin":
            start = 1000 / n * 1e-4
            beta = start + 0.01 * (1 - i / 9) if i < 10 else start + (i - 10) / (n - 11) * (1000 / n * 0.02 - start)
        elif name == "trunc_cos":
            beta = 1 - curve(0) if i == 0 else 1 - curve(i / n) / curve((i - 1) / n)
        else:
            beta = 1 - curve((i + 1) / n) / curve(i / n)
        left *= 1 - min(beta, 0.999)
        found.append(left)
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("steps", [20, 200, 2000])
@pytest.mark.parametrize("name", get_args(Betas))
def test_the_grid_has_the_alpha_bar_of_its_betas(name, steps):
    grid = DiscreteBetaSchedule(name, steps)
    t = torch.arange(steps) / (steps - 1)
    torch.testing.assert_close(1 / (1 + grid.sigma(t).double() ** 2), _alpha_bar(name, steps), rtol=2e-3, atol=1e-6)
    assert bool((grid.sigma(t).diff() > 0).all())
    torch.testing.assert_close(DiscreteBetaSchedule(name, steps, scale=5.0).sigma(t), 5 * grid.sigma(t))


@pytest.mark.parametrize("name", get_args(Betas))
@given(t=st.floats(0, 1))
def test_the_grid_is_invertible_and_smooth_between_its_points(name, t):
    grid = GRIDS[name]
    at = torch.tensor([t], dtype=torch.float64)
    torch.testing.assert_close(grid.time(grid.sigma(at)), at, atol=1e-6, rtol=0)
    slope = GaussianProcess(grid).dlogsigma_dt(torch.cat((EDGES, at.float())))
    assert bool((slope > 0).all())
    assert bool(torch.isfinite(slope).all())


def test_training_sees_the_points_of_the_grid_alike():
    grid = DiscreteBetaSchedule("sqrt", 40)
    process = GaussianProcess(grid)
    seen, counts = process.snap_to_grid((torch.arange(4000) + 0.5) / 4000).unique(return_counts=True)
    torch.testing.assert_close(seen, torch.arange(40) / 39)
    assert bool((counts == 100).all())
    assert process.snap_to_grid(torch.ones(1)).tolist() == [1.0]
    torch.testing.assert_close(process.sigma(seen), grid.log_sigma.exp())
    t = torch.rand(9)
    assert GaussianProcess(LogSigma(0.1, 10.0)).snap_to_grid(t) is t
