"""What every noise process must do. A new process is found by itself; Bayes' rule is in tests/exact/test_bayes.py."""

from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from textdiffusion.config.discovery import import_parts
from textdiffusion.core.randomness import Rng
from textdiffusion.core.registry import build
from textdiffusion.diffusion.alpha_schedules import AlphaSchedule, Linear
from textdiffusion.diffusion.codecs import CodecConfig, TokenCodec
from textdiffusion.diffusion.gaussian import GaussianProcess
from textdiffusion.diffusion.process import ProcessConfig
from textdiffusion.diffusion.sigma_schedules import SigmaSchedule

import_parts()
V, L, N = 4, 5, 20_000
PROCESSES = ProcessConfig.choices()
IDS = torch.tensor([[2, 0, 3, 3, 1]])


def _build(part) -> tuple[Any, Any]:
    """A process and the first codec it works with. A discrete one ends in pure noise."""
    if any(isinstance(getattr(part, field.name), AlphaSchedule) for field in fields(part)):
        part = replace(part, schedule=Linear())
    torch.manual_seed(0)
    codecs = [build(choice(), vocab_size=V) for choice in CodecConfig.choices().values()]
    codec = next(codec for codec in codecs if not part.codecs or isinstance(codec, part.codecs))
    return build(part, codec=codec, vocab_size=V), codec


every_process = pytest.mark.parametrize("part", [part() for part in PROCESSES.values()], ids=PROCESSES)
TOKENS = [part() for part in PROCESSES.values() if TokenCodec in part.codecs]
every_token_process = pytest.mark.parametrize("part", TOKENS, ids=lambda part: part.kind)


@every_process
def test_noise_keeps_the_shape_and_none_of_it_is_at_time_zero(part):
    process, codec = _build(part)
    x0, rng = codec.encode(IDS.expand(3, L)), Rng.of(0, 3)
    for t in (0.0, 0.4, 1.0):
        xt = process.add_noise(x0, torch.full((3,), t), rng=rng)
        assert (xt.shape, xt.dtype) == (x0.shape, x0.dtype)
        assert process.log_likelihood(xt, x0, torch.full((3,), t)).shape == (3, L)
        assert bool((process.log_likelihood(xt, x0, torch.full((3,), t)) > -torch.inf).all())
        assert torch.equal(xt, process.add_noise(x0, torch.full((3,), t), rng=rng))  # from the same stream
    prior = process.sample_prior(x0, rng=rng)
    assert (prior.shape, prior.dtype) == (x0.shape, x0.dtype)
    if isinstance(codec, TokenCodec):
        assert torch.equal(process.add_noise(x0, torch.zeros(3), rng=rng), x0)


@every_token_process
@pytest.mark.parametrize("t", [0.3, 0.8, 1.0])
def test_noisy_tokens_have_the_frequencies_of_their_likelihood(part, t):
    process, codec = _build(part)
    x0, times = codec.encode(IDS.expand(N, L)), torch.full((N,), t)
    xt = process.add_noise(x0, times, rng=Rng.of(0, N))
    states = torch.arange(V + 1)[:, None].expand(V + 1, L)
    probs = process.log_likelihood(states, x0[: V + 1], times[: V + 1]).exp()
    if int(xt.max()) < V:  # no mask
        probs = probs[:V]
    torch.testing.assert_close(probs.sum(0), torch.ones(L))
    frequencies = torch.stack([(xt == state).float().mean(0) for state in range(len(probs))])
    assert bool(((frequencies - probs).abs() <= 4.5 * torch.sqrt(probs * (1 - probs) / N) + 1e-7).all())


@every_token_process
def test_the_prior_of_tokens_is_their_noise_at_time_one(part):
    process, codec = _build(part)
    x0 = codec.encode(IDS.expand(N, L))
    noise = process.add_noise(x0, torch.ones(N), rng=Rng.of(0, N))
    prior = process.sample_prior(x0, rng=Rng.of(1, N))
    for state in range(V + 1):
        p, q = ((x == state).float().mean(0) for x in (noise, prior))
        assert bool(((p - q).abs() <= 4.5 * torch.sqrt((p * (1 - p) + q * (1 - q)) / N) + 1e-7).all())


@pytest.mark.parametrize("kind", SigmaSchedule.choices())
def test_the_gaussian_prior_has_the_noise_of_time_one(kind):
    """A schedule may not reach its highest level: linear-beta ends at sigma = 152."""
    process = GaussianProcess(SigmaSchedule.choices()[kind]().scaled(16.0, 4))
    sigma = process.sigma(torch.ones(())).detach()
    x0, t = torch.zeros(5000, 3, 4), torch.ones(5000)
    for x in (process.sample_prior(x0, rng=Rng.of(0, 5000)), process.add_noise(x0, t, rng=Rng.of(1, 5000))):
        torch.testing.assert_close(x.detach().std(), sigma, rtol=0.02, atol=0)
