"""Uniform noise as the argmax of Gaussian noise."""

import pytest
import torch
import torch.nn.functional as F

from tests.models import model_of
from textdiffusion import recipes
from textdiffusion.config.overrides import apply_overrides
from textdiffusion.core.batch import Batch
from textdiffusion.core.randomness import Rng
from textdiffusion.objectives.discrete import DiscreteELBO, signal_strength


@pytest.mark.parametrize("vocab_size", [2, 5, 65])
def test_the_argmax_of_gaussian_noise_is_uniform_noise(vocab_size):
    """A token survives with probability alpha, and all others are alike."""
    rows = 40_000
    for alpha in (0.05, 0.5, 0.95):
        a = float(signal_strength(torch.tensor([alpha]), vocab_size))
        w = Rng.of(1, rows).normal(vocab_size)
        w[:, 1] += a
        observed = torch.bincount(w.argmax(-1), minlength=vocab_size) / rows
        expected = torch.full((vocab_size,), (1 - alpha) / vocab_size)
        expected[1] += alpha
        assert bool(((observed - expected).abs() < 4.5 * torch.sqrt(expected * (1 - expected) / rows)).all())


def test_signals_cover_all_noise_of_large_vocabularies():
    a = signal_strength(torch.tensor([0.0, 1e-3, 0.5, 0.999, 1.0]), 50_257)
    assert bool(torch.isfinite(a).all())
    assert bool((a.diff() > 0).all())


def _model(**settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        small = ["backbone.width=64", "backbone.depth=1", *(f"objective.{k}={v}" for k, v in settings.items())]
        return model_of(apply_overrides(recipes.get("udlm")("duo"), small), 9)


def test_cold_soft_tokens_are_tokens():
    """Softmax at no temperature is the argmax, and an embedded one-hot vector the token's own embedding."""
    model = _model()
    torch.nn.init.normal_(model.denoiser.head.weight)
    ids = torch.arange(18).view(2, 9) % 9
    t, batch = torch.tensor([0.3, 0.8]), Batch(ids)
    hard = model.denoiser(ids, t, batch=batch).logits
    soft = model.denoiser.forward_soft(F.one_hot(ids, 9).float(), ids, t, batch=batch).logits
    torch.testing.assert_close(soft, hard, atol=1e-5, rtol=1e-4)


def test_the_curriculum_ends_after_its_steps_in_the_bound():
    model, batch = _model(steps=2), Batch(torch.arange(36).view(4, 9) % 9)
    losses, named = [], []
    for _ in range(3):
        loss = model.objective(model, batch, rng=Rng.of(0, 4))
        losses.append(float(loss.total.detach()))
        named += loss.parts
        model.after_step()
    assert named == ["curriculum", "curriculum", "bound"]
    bound = float(DiscreteELBO()(model, batch, rng=Rng.of(0, 4)).total.detach())
    assert losses[2] == bound
    assert bound not in losses[:2]
    assert int(model.step) == 3


def test_given_tokens_are_shown_as_they_are(monkeypatch):
    model = _model()
    given = torch.zeros(4, 9, dtype=torch.bool)
    given[:, ::2] = True
    batch, calls = Batch(torch.arange(36).view(4, 9) % 9, condition_mask=given), []
    forward_soft = model.denoiser.forward_soft
    monkeypatch.setattr(
        model.denoiser, "forward_soft", lambda *a, batch: calls.append(a) or forward_soft(*a, batch=batch)
    )
    model.objective(model, batch, rng=Rng.of(0, 4))
    soft, xt, _ = calls[0]
    assert torch.equal(xt[given], batch.tokens[given])
    assert torch.equal(soft[given], F.one_hot(batch.tokens[given], 9).float())
    assert float(soft[~given].max()) < 1.0
    assert torch.equal(soft.argmax(-1), xt)
