"""The exactness table: every codec x process x schedule x sampler against the law it should draw from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from textdiffusion.core.randomness import Rng
from textdiffusion.diffusion.alpha_schedules import CosineAlpha, Geometric, Linear, LogLinear
from textdiffusion.diffusion.curve_densities import GumbelDensity
from textdiffusion.diffusion.discrete_betas import DiscreteBetaSchedule
from textdiffusion.diffusion.model import DiffusionModel
from textdiffusion.diffusion.sigma_schedules import (
    CosineSigma,
    KarrasSigma,
    LinearBeta,
    LinearSigma,
    LogSigma,
    SqrtSigma,
)
from textdiffusion.samplers import time_grids
from textdiffusion.samplers.ancestral import Ancestral, Euler, Tweedie
from textdiffusion.samplers.base import Request, Sampler
from textdiffusion.samplers.ddim import DDIM
from textdiffusion.samplers.dpm_solver import DPMSolver
from textdiffusion.samplers.heun import Heun

from . import language
from .language import Language, ideal_gaussian, ideal_masked, ideal_uniform, last, tables

LANGUAGE = Language.random(vocab_size=3, length=3)


def ideal_models() -> dict[str, DiffusionModel]:
    """A model of the language with its ideal denoiser for each kind of process."""
    return language.ideal_models(LANGUAGE)


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    name: str
    sampler_name: str
    model: DiffusionModel
    sampler: Sampler
    steps: tuple[int, int] = (5, 25)  # few and many

    def distance(self, steps: int, draws: int, seed: int = 0) -> float:
        """Total variation of `draws` samples of `steps` steps to the law of the language."""
        with torch.no_grad():
            request = Request.blank(draws, LANGUAGE.length, steps)
            return LANGUAGE.distance(last(self.sampler(self.model, request, rng=Rng.of(seed, draws))).tokens)


def cases() -> Iterator[Case]:
    """Every row: masks under each schedule, then each continuous codec, then each noise schedule on one codec.

    `test_every_part` runs every sampler with its default settings; rows here vary what the samplers run on.
    """
    for name, schedule in (("linear", Linear()), ("log-linear", LogLinear()), ("cosine", CosineAlpha())):
        yield Case(f"tokens / absorbing / {name}", "ancestral", ideal_masked(LANGUAGE, schedule), Ancestral())
        yield Case(f"tokens / uniform / {name}", "ancestral", ideal_uniform(LANGUAGE, schedule), Ancestral())
    for name, schedule in (("log-linear", LogLinear()), ("cosine", CosineAlpha()), ("geometric", Geometric(0.01, 5.0))):
        for sampler in (Euler(), Tweedie()):
            kind = type(sampler).__name__.lower()
            yield Case(f"tokens / absorbing / {name}", kind, ideal_masked(LANGUAGE, schedule), sampler)
            yield Case(f"tokens / uniform / {name}", kind, ideal_uniform(LANGUAGE, schedule), sampler)
    for name, codec in tables(LANGUAGE.vocab_size).items():
        for eta in (0.0, 1.0):
            model = ideal_gaussian(LANGUAGE, codec)
            yield Case(f"{name} / Gaussian / log sigma", f"one-step, eta {eta:g}", model, DDIM(eta=eta))
        higher = {"Heun": Heun(), "2M": DPMSolver()}
        for kind, sampler in higher.items():
            yield Case(f"{name} / Gaussian / log sigma", kind, ideal_gaussian(LANGUAGE, codec), sampler, (3, 13))
        yield Case(f"{name} / Gaussian / log sigma", "SDE 2M", ideal_gaussian(LANGUAGE, codec), DPMSolver(eta=1.0))
    codec = tables(LANGUAGE.vocab_size)["bits"]
    others = {
        "churned Euler": DDIM(s_churn=4.0),
        "churned Heun": Heun(s_churn=4.0),
        "2M, EDM grid": DPMSolver(grid=time_grids.Karras()),
        "2M, log grid": DPMSolver(grid=time_grids.Exponential()),
    }
    for kind, sampler in others.items():
        model = ideal_gaussian(LANGUAGE, codec, KarrasSigma(0.05 * codec.norm, 20.0 * codec.norm, 3.0))
        yield Case("bits / Gaussian / rho 3", kind, model, sampler)
    low, high = 0.05 * codec.norm, 20.0 * codec.norm
    schedules = {
        "log sigma to 200 norms": LogSigma(low, 200.0 * codec.norm),
        "linear sigma": LinearSigma(low, high),
        "EDM": KarrasSigma(low, high),
        "cosine": CosineSigma(low, high),
        "sqrt": SqrtSigma(low, high),
        "linear beta": LinearBeta(low, high),
        "sqrt, a grid of 2,000": DiscreteBetaSchedule("sqrt"),
        "cosine, a grid of 2,000": DiscreteBetaSchedule("cosine"),
        "piecewise linear, a grid of 200": DiscreteBetaSchedule("pw_lin", 200),
    }
    for name, noise in schedules.items():
        for eta in (0.0, 1.0):
            model = ideal_gaussian(LANGUAGE, codec, noise)
            yield Case(f"bits / Gaussian / {name}", f"one-step, eta {eta:g}", model, DDIM(eta=eta))
    for eta in (0.0, 1.0):
        warp = GumbelDensity(mu=0.33, scale=0.083, height=1.1)
        model = ideal_gaussian(LANGUAGE, codec, density=warp)
        yield Case("bits / Gaussian / log sigma, Gumbel grid", f"one-step, eta {eta:g}", model, DDIM(eta=eta))
