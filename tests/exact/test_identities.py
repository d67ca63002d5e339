"""Different ways to say the same thing agree."""

import math

import pytest
import torch
from torch import nn

from textdiffusion.core.batch import Batch
from textdiffusion.core.randomness import Rng
from textdiffusion.diffusion.alpha_schedules import CosineAlpha, Linear, LogLinear
from textdiffusion.diffusion.curve_densities import GumbelDensity
from textdiffusion.diffusion.sigma_schedules import CosineSigma, KarrasSigma, LinearBeta, LogSigma, SqrtSigma
from textdiffusion.diffusion.table_codecs import BitCodec, bits
from textdiffusion.diffusion.vector_predictions import BitPrediction
from textdiffusion.networks.heads import BitHead
from textdiffusion.samplers.base import Request
from textdiffusion.samplers.ddim import DDIM

from .language import Language, ideal_gaussian, ideal_masked, tables

LANGUAGE = Language.random(vocab_size=3, length=3)
NOISE = [LogSigma, KarrasSigma, CosineSigma, SqrtSigma, LinearBeta]


@pytest.mark.parametrize("made", NOISE)
def test_ddim_is_an_euler_step_in_sigma(made):
    """x_s = x + (sigma_s - sigma_t) dx / dsigma with dx / dsigma = (x - x0) / sigma (Karras et al. 2022, eq. 3)."""
    codec = tables(3)["bits"]
    model = ideal_gaussian(LANGUAGE, codec, made(0.15 * codec.norm, 15.0 * codec.norm))
    batch = Batch(LANGUAGE.ids)
    t, s = torch.full((27,), 0.7), torch.full((27,), 0.5)
    x = model.process.add_noise(codec.encode(batch.tokens), t, rng=Rng.of(0, 27))
    prediction = model.denoiser(x, t, batch=batch)
    now, then = model.process.sigma(t)[0], model.process.sigma(s)[0]
    euler = x + (then - now) * (x - prediction.mean) / now
    torch.testing.assert_close(model.process.reverse(x, prediction, t, s, rng=Rng.of(1, 27), eta=0.0), euler)


@pytest.mark.parametrize("made", NOISE)
def test_schedules_are_names_for_noise_levels(made):
    """The state at a noise level, and what is said about it, do not depend on the t a schedule calls it by."""
    codec = tables(3)["embeddings"]
    reference = ideal_gaussian(LANGUAGE, codec, LogSigma(0.15 * codec.norm, 15.0 * codec.norm))
    other = ideal_gaussian(LANGUAGE, codec, made(0.15 * codec.norm, 15.0 * codec.norm))
    batch = Batch(LANGUAGE.ids)
    for sigma in (0.5, 2.0, 8.0):
        states, means, levels = [], [], []
        for model in (reference, other):
            t = model.process.schedule.time(torch.full((27,), sigma))
            states.append(model.process.add_noise(codec.encode(batch.tokens), t, rng=Rng.of(0, 27)))
            means.append(model.denoiser(states[0], t, batch=batch).mean)
            levels.append(model.process.time_conditioning(t))
        torch.testing.assert_close(*states, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(*means, rtol=5e-3, atol=5e-3)
        torch.testing.assert_close(*levels, rtol=1e-3, atol=1e-3)


def test_masked_schedules_are_names_for_masked_shares():
    """The chain on equal masked shares draws the same text under every schedule."""
    results = []
    for schedule in (Linear(), LogLinear(0.01), CosineAlpha()):
        model = ideal_masked(LANGUAGE, schedule)
        x, rng = torch.full((500, 3), 3), Rng.of(0, 500)
        shares = torch.tensor([0.99, 0.7, 0.4, 0.1, 0.0])
        times = schedule.time(1.0 - shares)
        for i in range(len(shares) - 1):
            t, s = times[i].expand(500), times[i + 1].expand(500)
            x = model.process.reverse(x, model.denoiser(x, t, batch=Batch(x)), t, s, rng=rng.fork(i))
        results.append(x)
    assert (results[0] == results[1]).float().mean() > 0.999
    assert (results[0] == results[2]).float().mean() > 0.999
    assert int((results[0] == 3).sum()) == 0


def test_the_sampling_grid_is_all_that_a_schedule_and_a_density_decide():
    """LogSigma under the quantiles of a density is the chain of the sigmas that those quantiles name."""
    codec = tables(3)["bits"]
    warp = GumbelDensity(0.33, 0.083, 1.1)
    model = ideal_gaussian(LANGUAGE, codec, density=warp)
    steps = list(DDIM(eta=0.0)(model, Request.blank(200, 3, 12), rng=Rng.of(0, 200)))
    sigmas = model.process.sigma(warp.sampling_times(torch.linspace(1.0, 0.0, 12)))
    x, batch = steps[0].state, Batch(torch.zeros(200, 3, dtype=torch.long))
    for now, then, step in zip(sigmas[:-1], sigmas[1:], steps[1:], strict=False):
        t = model.process.schedule.time(now).expand(200)
        mean = model.denoiser(x, t, batch=batch).mean
        x = mean + then / now * (x - mean)
        torch.testing.assert_close(step.state, x, rtol=2e-3, atol=2e-3)


class Bitwise(nn.Module):
    """The ideal denoiser, with no more said of a token than the chances of its bits."""

    def __init__(self, ideal, codec):
        super().__init__()
        self.ideal, self.codec = ideal, codec

    def forward(self, xt, t, *, batch, self_cond=None):
        up = self.ideal(xt, t, batch=batch).probs @ (self.codec.table() > 0).float()
        odds = torch.logit(up.double(), eps=1e-12).float()
        return BitPrediction(odds, BitHead(self.codec), self.codec.table(), self.codec.scale)


@pytest.mark.parametrize("code", ["base", "gray", "random"])
def test_chances_of_bits_have_the_mean_of_the_tokens(code):
    """So the logistic head loses nothing: steps and the bound read the mean alone."""
    codec = BitCodec(bits(3, 1.0, code), 1.0)
    model = ideal_gaussian(LANGUAGE, codec)
    bitwise = Bitwise(model.denoiser, codec)
    for at in (0.1, 0.4, 0.6, 0.9):
        t = torch.full((27,), at)
        x = model.process.add_noise(codec.encode(LANGUAGE.ids), t, rng=Rng.of(0, 27))
        means = [d(x, t, batch=Batch(LANGUAGE.ids)).mean for d in (model.denoiser, bitwise)]
        torch.testing.assert_close(*means, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("ahead", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("name", ["bits", "embeddings"])
def test_asymmetric_intervals_are_the_published_algorithm(name, ahead):
    """Analog Bits, algorithm 2, in the variance-preserving frame, where a state keeps its size and is only renamed."""
    codec, steps = tables(3)[name], 12
    model = ideal_gaussian(LANGUAGE, codec, CosineSigma(0.01 * codec.norm, 100.0 * codec.norm))
    assert codec.scale == pytest.approx(1.0)
    ours = list(DDIM(eta=0.0, time_offset=ahead)(model, Request.blank(50, 3, steps), rng=Rng.of(0, 50)))
    batch = Batch(torch.zeros(50, 3, dtype=torch.long))

    def alpha(t):
        return 1.0 / torch.sqrt(1.0 + model.process.sigma(torch.tensor(t)) ** 2)

    def spread(t):
        return torch.sqrt(1.0 - alpha(t) ** 2)

    z = ours[0].state * alpha(1.0)
    for i in range(steps - 1):
        now, label = 1.0 - i / (steps - 1), 1.0 - (i + 1) / (steps - 1)
        then = max(label - ahead / (steps - 1), 0.0)
        mean = model.denoiser(z / alpha(now), torch.full((50,), now), batch=batch).mean
        z = alpha(then) * mean + spread(then) * (z - alpha(now) * mean) / spread(now)
        torch.testing.assert_close(ours[i + 1].state * alpha(max(label, 0.0)), z, rtol=2e-3, atol=2e-3)


def test_the_bound_at_finite_steps_tends_to_the_continuous_one():
    """1/2 sum (1 / s^2 - 1 / t^2) |x0 - D(x_t)|^2 falls to the integral as its grid is refined."""
    codec = tables(3)["bits"]
    model = ideal_gaussian(LANGUAGE, codec)
    rows = 4000
    ids = LANGUAGE.ids[Rng.of(0, rows).categorical(LANGUAGE.law.expand(rows, -1))]
    batch, x0 = Batch(ids), codec.encode(ids)
    truth, nats = float(LANGUAGE.nll()[LANGUAGE.number(ids)].mean()), []
    for steps in (4, 16, 64):
        grid = torch.linspace(0.0, 1.0, steps + 1)
        sigma = model.process.sigma(grid)
        total = float((x0.square().sum((1, 2)) / (2 * sigma[-1] ** 2)).mean())
        for i in range(steps):
            t = grid[i + 1].expand(rows)
            xt = model.process.add_noise(x0, t, rng=Rng.of(1, rows).fork(i))
            error = (x0 - model.denoiser(xt, t, batch=batch).mean).square().sum((1, 2)).mean()
            total += float(0.5 * (sigma[i] ** -2 - sigma[i + 1] ** -2) * error)
        nats.append(total)
    assert nats[0] > nats[1] > nats[2] > truth - 0.05
    assert nats[2] - truth < 0.35 * (nats[1] - truth)
    assert math.isfinite(nats[0])
