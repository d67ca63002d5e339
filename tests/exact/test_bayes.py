"""The reverse laws against Bayes' rule by brute force."""

from typing import Any

import pytest
import torch
from torch import nn

from textdiffusion.config.discovery import import_parts
from textdiffusion.core.batch import Batch
from textdiffusion.core.randomness import Rng
from textdiffusion.core.registry import build
from textdiffusion.diffusion.absorbing import AbsorbingProcess
from textdiffusion.diffusion.alpha_schedules import CosineAlpha, Linear, LogLinear
from textdiffusion.diffusion.gaussian import GaussianProcess
from textdiffusion.diffusion.prediction import Prediction
from textdiffusion.diffusion.process import ProcessConfig, TokenProcess
from textdiffusion.diffusion.sigma_schedules import KarrasSigma, LogSigma
from textdiffusion.diffusion.uniform import UniformProcess

from .language import Language, ideal_gaussian, ideal_masked, ideal_uniform, point, tables

import_parts()
SCHEDULES = [Linear(), LogLinear(), LogLinear(0.1), CosineAlpha()]
PROCESSES = {
    kind: part for kind, part in ProcessConfig.choices().items() if issubclass(part.module or object, TokenProcess)
}
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
every_token_process = pytest.mark.parametrize("part", PROCESSES.values(), ids=PROCESSES)


def _build(part, vocab_size, schedule) -> Any:
    return build(part(schedule=schedule), vocab_size=vocab_size)


def _dense(process, xt, prediction, t, s):
    """The probabilities of every state at s, at every position."""
    return process.posterior(xt, prediction, t, s).dense(xt, process.num_states)


@every_schedule
@every_token_process
def test_posterior_of_a_known_token_is_bayes_rule(part, schedule):
    vocab_size, process = 4, _build(part, 4, schedule)
    n = process.num_states
    states = torch.arange(n)[:, None]  # one position, every state
    s, t = torch.full((n,), 0.35), torch.full((n,), 0.8)
    noise = _build(part, 4, Linear()).log_likelihood(states, torch.zeros_like(states), torch.ones(n)).exp()[:, 0]
    survive = schedule.alpha(t[:1]) / schedule.alpha(s[:1])
    step = survive * torch.eye(n) + (1 - survive) * noise  # q(x_t | x_s)
    for token in range(vocab_size):
        x0 = torch.full_like(states, token)
        now, then = (process.log_likelihood(states, x0, time).exp()[:, 0] for time in (t, s))
        torch.testing.assert_close(then @ step, now)  # the marginals of the chain agree
        posterior = _dense(process, states, point(x0, vocab_size), t, s)[:, 0]
        possible = now > 0
        torch.testing.assert_close(posterior[possible], (then * step.T / now[:, None])[possible])


@every_token_process
def test_reverse_draws_its_posterior(part):
    process, draws = _build(part, 4, LogLinear()), 40_000
    last = process.num_states - 1  # the mask, if there is one
    xt = torch.tensor([[last, 2, last]]).expand(draws, 3)
    logits = torch.tensor([[0.0, 1.0, -1.0, 3.0], [0.0, 0.0, 0.0, 0.0], [2.0, -torch.inf, 0.5, 0.0]])
    t, s = torch.full((draws,), 0.9), torch.full((draws,), 0.5)
    xs = process.reverse(xt, Prediction(logits.expand(draws, 3, 4)), t, s, rng=Rng.of(0, draws))
    posterior = _dense(process, xt[:1], Prediction(logits[None]), t[:1], s[:1])[0]
    frequencies = nn.functional.one_hot(xs, process.num_states).float().mean(0)
    assert bool(((frequencies - posterior).abs() <= 4 * torch.sqrt(posterior * (1 - posterior) / draws)).all())
    clean = _dense(process, xt[:1], Prediction(logits[None]), t[:1], 0.0 * s[:1])[0, :, :4]
    noisy = process.is_noisy(xt[:1])[0]
    torch.testing.assert_close(clean[noisy], logits.softmax(-1)[noisy])  # at s = 0 it is the prediction itself


@every_token_process
def test_there_and_back(part):
    """add_noise draws q(x_t | x_0), and reverse with a certain prediction q(x_s | x_0)."""
    process, n = _build(part, 4, Linear()), 40_000
    x0, rng = torch.full((n, 1), 2), Rng.of(3, n)
    t, s = torch.full((n,), 0.7), torch.full((n,), 0.3)
    xt = process.add_noise(x0, t, rng=rng.fork("corrupt"))
    xs = process.reverse(xt, point(x0, 4), t, s, rng=rng.fork("reverse"))
    states = torch.arange(process.num_states)[:, None]
    for x, time in ((xt, t), (xs, s)):
        marginal = process.log_likelihood(states, torch.full_like(states, 2), time[: len(states)]).exp()[:, 0]
        frequencies = torch.bincount(x.flatten(), minlength=len(states)) / n
        assert bool(((frequencies - marginal).abs() <= 4 * torch.sqrt(marginal * (1 - marginal) / n)).all())


def test_absorbing_posterior_under_the_ideal_denoiser_is_the_marginal_of_the_true_one():
    language = Language.random(3, 3)
    model = ideal_masked(language, CosineAlpha())
    process, mask = model.process, 3
    t, s = torch.tensor([0.7]), torch.tensor([0.2])
    for xt in (torch.tensor([[mask, 1, mask]]), torch.tensor([[mask, mask, mask]]), torch.tensor([[2, mask, 0]])):
        prediction = model.denoiser(xt, t, batch=Batch(xt))
        joint = model.denoiser.joint(xt, t, Batch(xt))[0].float()  # p(x0 | x_t) over sequences
        expected = torch.zeros(3, 4)
        for x0, p in zip(language.ids, joint, strict=True):
            law = process.posterior(xt, point(x0[None], 3), t, s).dense(xt, process.num_states)[0]
            expected += p * law
        torch.testing.assert_close(process.posterior(xt, prediction, t, s).dense(xt, process.num_states)[0], expected)


def test_uniform_posterior_under_the_ideal_denoiser_is_the_marginal_of_the_true_one():
    """And what the others say of a position is Bayes' rule without its own state."""
    language = Language.random(3, 3)
    model = ideal_uniform(language, CosineAlpha())
    process = model.process
    t, s = torch.tensor([0.7]), torch.tensor([0.2])
    for xt in (torch.tensor([[1, 1, 2]]), torch.tensor([[2, 0, 0]])):
        prediction = model.denoiser(xt, t, batch=Batch(xt))
        joint = model.denoiser.joint(xt, t, Batch(xt))[0].float()  # p(x0 | x_t) over sequences
        expected = torch.zeros(3, 3)
        for x0, p in zip(language.ids, joint, strict=True):
            expected += p * process.posterior(xt, point(x0[None], 3), t, s).dense(xt, process.num_states)[0]
        torch.testing.assert_close(process.posterior(xt, prediction, t, s).dense(xt, process.num_states)[0], expected)
        for i in range(3):
            unseen = Batch(xt, valid_mask=torch.arange(3)[None] != i)
            blind = model.denoiser(xt, t, batch=unseen).probs[0, i]
            torch.testing.assert_close(process.leave_one_out(xt, prediction, t).probs[0, i], blind)


@every_schedule
@every_token_process
def test_divergences_are_those_of_the_laws(part, schedule):
    """And their rate is their limit, at every level of noise, in float32."""
    vocab_size, process = 5, _build(part, 5, schedule)
    draw = torch.Generator().manual_seed(0)
    xt = torch.cartesian_prod(torch.arange(process.num_states), torch.arange(vocab_size))
    xt, x0 = xt[:, :1], xt[:, 1:]
    logits = torch.randn(len(xt), 1, vocab_size, generator=draw) * 2
    said, where = Prediction(logits), (xt == x0) | (xt == process.num_states - 1) | (process.num_states == vocab_size)
    for late, early in ((0.999, 0.4), (0.9, 0.3), (0.5, 0.499), (0.01, 0.004), (0.3, 0.0), (0.003, 0.0)):
        t, s = (torch.full((len(xt),), at, dtype=torch.float64) for at in (late, early))
        true = process.posterior(xt, Prediction(point(x0, vocab_size).logits.double()), t, s).dense(
            xt, process.num_states
        )
        model = process.posterior(xt, Prediction(logits.double()), t, s).dense(xt, process.num_states)
        nats = torch.where(true > 0, true * (true.log() - model.log()), 0.0).sum(-1)
        found = process.kl(xt, x0, said, t.float(), s.float(), where)[0]
        torch.testing.assert_close(found, torch.where(where, nats, 0.0).float(), rtol=2e-4, atol=1e-6)
        step = 1e-5 * t * (1.0 - t)
        slow = process.kl(xt, x0, Prediction(logits.double()), t, t - step, where)[0] / step[:, None]
        rate = process.kl_rate(xt, x0, said, t.float(), where)[0]
        torch.testing.assert_close(rate, slow.float(), rtol=1e-3, atol=1e-5)
    for late in (1.0 - 2.0**-24, 1.0 - 1e-5, 1e-5, 2.0**-24):
        rate = process.kl_rate(xt, x0, said, torch.full((len(xt),), late), where)[0]
        assert bool(torch.isfinite(rate).all())
        assert float(rate.min()) > -1e-4


def test_uniform_rate_is_udlms_formula():
    """alpha' / (K alpha) [K / a_z - K / b_z - sum_j a_j / a_z log(b_z a_j / (b_j a_z))]."""
    vocab_size, process = 5, UniformProcess(5, LogLinear(0.01))
    xt = torch.cartesian_prod(torch.arange(vocab_size), torch.arange(vocab_size))
    xt, x0 = xt[:, :1], xt[:, 1:]
    said = Prediction(torch.randn(25, 1, vocab_size, generator=torch.Generator().manual_seed(1)))
    for at in (0.9, 0.5, 0.05):
        t = torch.full((25,), at)
        alpha = process.schedule.alpha(t)[:, None, None]
        a = vocab_size * alpha * nn.functional.one_hot(x0, vocab_size) + 1 - alpha
        b = vocab_size * alpha * process.leave_one_out(xt, said, t).probs + 1 - alpha
        a_z, b_z = a.gather(-1, xt[..., None]), b.gather(-1, xt[..., None])
        plain = vocab_size / a_z - vocab_size / b_z - (a / a_z * torch.log(b_z * a / (b * a_z))).sum(-1, keepdim=True)
        rate = process.kl_rate(xt, x0, said, t, torch.ones_like(xt).bool())[0]
        torch.testing.assert_close(rate, (-0.99 / (vocab_size * alpha) * plain)[..., 0], rtol=1e-4, atol=1e-5)


def test_levels_of_noise_may_differ_by_position():
    process, rng = AbsorbingProcess(4, Linear()), Rng.of(0, 20_000)
    x0 = torch.ones(20_000, 2, dtype=torch.long)
    t = torch.tensor([0.2, 0.9]).expand(20_000, 2)
    masked = (process.add_noise(x0, t, rng=rng) == 4).float().mean(0)
    torch.testing.assert_close(masked, torch.tensor([0.2, 0.9]), atol=0.015, rtol=0)
    uniform = UniformProcess(4, Linear())
    moved = (uniform.add_noise(x0, t, rng=rng) != 1).float().mean(0)
    torch.testing.assert_close(moved, torch.tensor([0.15, 0.675]), atol=0.015, rtol=0)
    gaussian = GaussianProcess(LogSigma(0.1, 10.0))
    noise = gaussian.add_noise(torch.zeros(20_000, 2, 3), t, rng=rng).square().mean((0, 2)).sqrt()
    torch.testing.assert_close(noise, gaussian.sigma(t[0]), rtol=0.02, atol=0)


@pytest.mark.parametrize("schedule", [LogSigma(0.1, 10.0), KarrasSigma(0.1, 10.0)], ids=repr)
def test_gaussian_posterior_of_a_known_state_is_bayes_rule(schedule):
    process = GaussianProcess(schedule)
    codec = tables(3)["embeddings"]
    x0 = codec.encode(torch.tensor([[2, 0]]))
    prediction = Prediction(point(torch.tensor([[2, 0]]), 3).logits, codec.table())
    t, s = torch.tensor([0.8]), torch.tensor([0.3])
    var_t, var_s = schedule.sigma(t) ** 2, schedule.sigma(s) ** 2
    xt = x0 + schedule.sigma(t) * torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    law = process.posterior(xt, prediction, t, s)
    # N(x_s; x_0, var_s) N(x_t; x_s, var_t - var_s), normalised: precisions add.
    precision = 1 / var_s + 1 / (var_t - var_s)
    torch.testing.assert_close(law.std[0, 0], precision**-0.5)
    torch.testing.assert_close(law.mean, (x0 / var_s + xt / (var_t - var_s)) / precision, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("eta", "renoise"), [(0.0, False), (0.5, False), (1.0, False), (0.0, True)])
def test_gaussian_steps_keep_the_marginals(eta, renoise):
    """x_t ~ q(x_t | x_0) and a certain prediction give x_s ~ q(x_s | x_0), whatever share of the noise is new."""
    process, n = GaussianProcess(LogSigma(0.1, 10.0)), 50_000
    codec = tables(3)["bits"]
    ids = torch.full((n, 1), 2)
    x0, rng = codec.encode(ids), Rng.of(1, n)
    t, s = torch.full((n,), 0.8), torch.full((n,), 0.6)
    xt = process.add_noise(x0, t, rng=rng.fork("corrupt"))
    prediction = Prediction(point(ids, 3).logits, codec.table())
    xs = process.reverse(xt, prediction, t, s, rng=rng.fork("reverse"), eta=eta, renoise=renoise)
    sigma = float(process.sigma(s[0]))
    assert float((xs - x0).mean((0, 1)).abs().max()) < 4 * sigma / n**0.5
    torch.testing.assert_close((xs - x0).square().mean().sqrt(), torch.tensor(sigma), rtol=0.01, atol=0)
    kept = float(((xs - x0) * (xt - x0)).mean()) / (sigma * float(process.sigma(t[0])))
    ratio = sigma / float(process.sigma(t[0]))
    expected = (
        0.0 if renoise else (1 - eta**2 * (1 - ratio**2)) ** 0.5
    )  # eta 1: sigma_s / sigma_t, as q(x_s | x_t, x_0)
    assert kept == pytest.approx(expected, abs=0.01)


def test_gaussian_ideal_mean_is_bayes_rule_on_one_token():
    language = Language.random(3, 1, seed=5)
    model = ideal_gaussian(language, tables(3)["simplex"])
    x, t = torch.tensor([[[0.4, -0.2, 0.9]]]), torch.tensor([0.5])
    table, sigma = model.codec.table(), model.process.sigma(t)
    weights = language.law * torch.exp(-0.5 * ((x[0] - table) / sigma).square().sum(-1))
    expected = (weights / weights.sum()) @ table
    torch.testing.assert_close(
        model.denoiser(x, t, batch=Batch(torch.zeros(1, 1, dtype=torch.long))).mean[0, 0], expected
    )
