"""Orders of convergence and laws of the Gaussian samplers, where the flow is known in closed form."""

import pytest
import torch
from torch import nn

from textdiffusion.core.randomness import Rng
from textdiffusion.diffusion.gaussian import GaussianProcess
from textdiffusion.diffusion.prediction import Prediction
from textdiffusion.diffusion.sigma_schedules import LogSigma
from textdiffusion.diffusion.table_codecs import TableCodec
from textdiffusion.samplers.base import Request
from textdiffusion.samplers.ddim import DDIM
from textdiffusion.samplers.dpm_solver import DPMSolver
from textdiffusion.samplers.heun import Heun
from textdiffusion.samplers.time_grids import Exponential, Karras

from .language import Language, assemble, ideal_gaussian, last

LOW, HIGH, LENGTH = 0.1, 10.0, 16


class Normal(nn.Module):
    """The ideal denoiser of clean states drawn from N(0, 1), E[x_0 | x_t] = x_t / (1 + sigma^2)."""

    time_independent = self_conditioning = False

    def __init__(self, process: GaussianProcess) -> None:
        super().__init__()
        self.process = process

    def forward(self, xt, t, *, batch, self_cond=None):
        prediction = Prediction(torch.zeros(*xt.shape[:2], 2), torch.zeros(2, 1))
        prediction.__dict__["mean"] = xt / (1.0 + self.process.sigma_over(t, xt) ** 2)
        return prediction


def _ends(sampler, steps, rows):
    """The state at the beginning and at the end."""
    process = GaussianProcess(LogSigma(LOW, HIGH))
    model = assemble(TableCodec(torch.tensor([[-1.0], [1.0]])), process, Normal(process))
    first, *_, end = sampler(model, Request.blank(rows, LENGTH, steps), rng=Rng.of(0, rows))
    return first.state, end.state


@pytest.mark.parametrize("grid", [Exponential(), Karras()])
@pytest.mark.parametrize(
    ("sampler", "order"), [(DDIM, 1), (Heun, 2), (DPMSolver, 2)], ids=["Euler", "Heun", "DPM-Solver++(2M)"]
)
def test_order_of_convergence(sampler, order, grid):
    """The flow of a normal law only shrinks: x_s = x_t sqrt((1 + s^2) / (1 + t^2))."""
    errors = []
    for steps in (33, 65):
        begin, end = _ends(sampler(grid=grid), steps, 4)
        errors.append(float((end / begin - ((1 + LOW**2) / (1 + HIGH**2)) ** 0.5).abs().max()))
    assert 0.8 * 2**order < errors[0] / errors[1] < 1.25 * 2**order


@pytest.mark.parametrize(
    ("sampler", "order"),
    [(DPMSolver(eta=1.0), 2), (DPMSolver(eta=0.5), 2), (DDIM(s_churn=8.0), 1), (Heun(s_churn=8.0), 2)],
    ids=["SDE-DPM-Solver++(2M)", "half of its noise", "churned Euler", "churned Heun"],
)
def test_noise_keeps_the_law(sampler, order):
    coarse, fine = (float(_ends(sampler, steps, 2000)[1].var()) / (1 + LOW**2) - 1 for steps in (20, 60))
    assert abs(fine) < (0.02 if order == 2 else 0.1)  # 0.008 is one standard error
    assert abs(fine) < 0.5 * abs(coarse)


def _likely(sampler, draws=8000):
    """How often 40 steps draw a token of probability 0.7."""
    language = Language(2, 1, torch.tensor([[0], [1]]), torch.tensor([0.3, 0.7]))
    model = ideal_gaussian(language, TableCodec(torch.tensor([[-1.0], [1.0]])), LogSigma(0.25, 20.0))
    return float(last(sampler(model, Request.blank(draws, 1, 40), rng=Rng.of(0, draws))).tokens.float().mean())


def test_churn_keeps_the_law_and_a_gate_does_not():
    """Noise that is only where tokens are uncertain drives states away from there."""
    assert _likely(DDIM(s_churn=12.0)) == pytest.approx(0.7, abs=0.03)
    assert _likely(DDIM(s_churn=12.0, churn_entropy=0.3)) > 0.76
