"""The dial: its bound is that of the orders of the wave, by enumeration; its ends are autoregression and `mdlm`."""

from itertools import pairwise, product

import numpy as np
import pytest
import torch

from textdiffusion.core.batch import Batch
from textdiffusion.core.randomness import Rng
from textdiffusion.diffusion.absorbing import AbsorbingProcess
from textdiffusion.diffusion.alpha_schedules import CosineAlpha, Linear
from textdiffusion.diffusion.codecs import TokenCodec
from textdiffusion.diffusion.wave import WaveProcess
from textdiffusion.objectives import MaskedELBO, WaveELBO, WaveLikelihood
from textdiffusion.samplers.ancestral import Ancestral
from textdiffusion.samplers.base import Request
from textdiffusion.samplers.order_likelihood import OrderLikelihood

from .language import IdealDenoiser, assemble, last
from .texts import LANGUAGE, LAW, POSSIBLE, TEXTS, Timeless, by_orders, mask_of, nats_of, on_average

SCHEDULES = {"linear": Linear(), "cosine": CosineAlpha()}


def _model(width, schedule="linear", ideal=False):
    process = WaveProcess(3, SCHEDULES[schedule], width=width)
    denoiser = IdealDenoiser(LANGUAGE, process, time_independent=True) if ideal else Timeless(LANGUAGE)
    return assemble(TokenCodec(3), process, denoiser)


def _enumerated(model):
    """The bound of every text: an integral over t, in pieces between the ends of waves, over all patterns of masks."""
    process, total, patterns = model.process, torch.zeros(len(TEXTS)).double(), []
    for pattern in map(torch.tensor, product([False, True], repeat=3)):
        xt, t = torch.where(pattern, process.mask, TEXTS), torch.full((len(TEXTS),), 0.5)
        logp = model.denoiser(xt, t, batch=Batch(TEXTS)).logits.double().log_softmax(-1)
        nats = -logp.gather(-1, TEXTS[..., None])[..., 0]
        patterns.append((pattern, torch.where(pattern, nats, 0.0)))
    starts = [(1 - process.duration(3)) * k / 2 for k in range(3)]
    cuts = sorted({0.0, 1.0, *starts, *(start + process.duration(3) for start in starts)})
    nodes, shares = np.polynomial.legendre.leggauss(24)
    for (low, high), (node, share) in product(
        pairwise(cut for cut in cuts if cut <= 1.0), zip(nodes, shares, strict=True)
    ):
        t = torch.tensor([low + (high - low) * (node + 1) / 2], dtype=torch.float)
        weight, mask_prob = process.loss_weight(t, 3)[0], process.schedule.mask_prob(process.local_times(t, 3)[0])
        for pattern, nats in patterns:
            chance = torch.where(pattern, mask_prob, 1 - mask_prob).prod()
            total += (nats * weight).sum(-1) * chance * share * (high - low) / 2
    return total


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_width_one_is_autoregression(schedule):
    """The masked model that reveals from left to right, text by text."""
    model = _model(1, schedule)
    left = OrderLikelihood(order="left")(_masked(model), Batch(TEXTS), rng=Rng.of(0, len(TEXTS))).double()
    assert torch.allclose(_enumerated(model), left, atol=1e-5)


@pytest.mark.parametrize("width", [3, 5])
def test_the_width_of_the_text_is_masked_diffusion(width):
    """The same noise, the same loss and the same bound as `mdlm`, draw by draw."""
    model, batch = _model(width), Batch(TEXTS.repeat(20, 1))
    masked, rng = _masked(model), Rng.of(0, len(batch.tokens))
    t = rng.uniform(1)[:, 0]
    noisy = [part.process.add_noise(batch.tokens, t, rng=rng) for part in (model, masked)]
    assert torch.equal(*noisy)
    wave, elbo = (loss(part, batch, rng=rng) for loss, part in ((WaveELBO(), model), (MaskedELBO(), masked)))
    assert torch.allclose(wave.total, elbo.total)
    assert all(torch.allclose(wave.parts[name], elbo.parts[name]) for name in elbo.parts)
    exact = [by_orders(masked, text, torch.ones(3, dtype=torch.bool)) for text in TEXTS[:4]]
    assert torch.allclose(_enumerated(model)[:4], torch.tensor(exact).double(), atol=1e-5)


@pytest.mark.parametrize(("width", "schedule"), [(1, "linear"), (2, "linear"), (2, "cosine"), (3, "linear")])
def test_the_likelihood_estimates_the_bound(width, schedule):
    model = _model(width, schedule)
    mean, error, _ = nats_of(WaveLikelihood(), model, repeats=300)
    average, spread = on_average(mean - _enumerated(model), error)
    assert abs(average) < 4 * spread
    assert spread < 0.1


@pytest.mark.parametrize("width", [1, 2, 3])
def test_with_the_ideal_denoiser_every_width_has_the_likelihood_of_the_data(width):
    model = _model(width)
    model.denoiser = IdealDenoiser(LANGUAGE, AbsorbingProcess(3, Linear()))  # at t = 0.5 any pattern is possible
    truth = LANGUAGE.nll(mask_of(), ~mask_of())[POSSIBLE].double()
    assert torch.allclose(_enumerated(model), truth, atol=1e-4)


def test_of_another_denoiser_the_bound_lies_above_the_entropy_and_the_widths_differ():
    bounds = [float(LAW @ _enumerated(_model(width))) for width in (1, 2, 3)]
    assert min(bounds) > LANGUAGE.entropy
    assert len({round(bound, 3) for bound in bounds}) == 3


@pytest.mark.parametrize("width", [1, 2])
def test_steps_back_in_a_wave_sample_the_data(width):
    draws = 4000
    model = _model(width, ideal=True)
    steps = list(Ancestral()(model, Request.blank(draws, 3, 60), rng=Rng.of(1, draws)))
    assert LANGUAGE.distance(last(iter(steps)).tokens) < 2.0 * LANGUAGE.floor(draws)
    masked = steps[30].tokens == 3
    assert float(masked[:, 0].float().mean()) < float(masked[:, 2].float().mean())
    if width == 1:
        assert bool((masked[:, 1:] >= masked[:, :-1]).all())  # revealed from the left


def test_noise_in_two_steps_is_that_of_one():
    process, rng = WaveProcess(3, Linear(), 2), Rng.of(0, 20_000)
    x0 = TEXTS[:1].expand(20_000, 3)
    s, t = torch.full((20_000,), 0.4), torch.full((20_000,), 0.7)
    xs = process.add_noise(x0, s, rng=rng.fork("s"))
    stepped = process.forward_step(xs, s, t, rng=rng.fork("t"))
    expected = process.schedule.mask_prob(process.local_times(t, 3))[0]
    assert torch.allclose((stepped == 3).float().mean(0), expected, atol=0.02)


def _masked(model):
    """The same denoiser with the process of `mdlm`."""
    return assemble(TokenCodec(3), AbsorbingProcess(3, model.process.schedule), model.denoiser)
