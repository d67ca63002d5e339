"""One network, two distributions over texts: from left to right, and by masks; by enumeration."""

import pytest
import torch

from tests.models import model_of
from textdiffusion import recipes
from textdiffusion.config.overrides import apply_overrides
from textdiffusion.core.batch import Batch
from textdiffusion.core.randomness import Rng
from textdiffusion.objectives import Dual, MaskedELBO, MaskedLikelihood, NextTokenLikelihood
from textdiffusion.samplers.autoregressive import Autoregressive
from textdiffusion.samplers.base import Request
from textdiffusion.samplers.order_likelihood import OrderLikelihood

from .language import Language, last
from .texts import by_orders

VOCAB, LENGTH = 3, 4
TEXTS = Language.random(vocab_size=VOCAB, length=LENGTH).ids


def _model(*settings):
    """Tables of groups that look to both sides, and a convolution, so that there is something to leak."""
    small = ["backbone.width=32", "backbone.depth=2", f"text.length={LENGTH}", "backbone.conv_radius=2"]
    model = model_of(apply_overrides(recipes.get("dual")(), [*small, "denoiser.ngram_dim=8", *settings]), VOCAB)
    with torch.no_grad():
        for name, weight in model.denoiser.named_parameters():
            weight += 0.15 * Rng.of(0, 1).fork(name).normal(*weight.shape)[0]
    return model.eval()


MODEL = _model()


def _nats(likelihood, batch=None, model=MODEL):
    batch = Batch(TEXTS) if batch is None else batch
    with torch.no_grad():
        return likelihood(model, batch, rng=Rng.of(0, len(batch.tokens))).double()


@pytest.mark.parametrize("size", [2, 4])
def test_no_later_token_leaks_under_the_causal_mask(size):
    """Whatever the groups of the tables, in training too."""
    model = _model(f"denoiser.ngram_size={size}", f"text.length={2 * LENGTH}")
    tokens = Rng.of(1, 5).categorical(torch.ones(5, 2 * LENGTH, VOCAB))
    for i in range(2 * LENGTH):
        later = torch.where(torch.arange(2 * LENGTH) >= i, (tokens + 1) % VOCAB, tokens)
        logits, changed = (model.denoiser.predict_next(x, Batch(x)).logits for x in (tokens, later))
        assert torch.equal(logits[:, : i + 1], changed[:, : i + 1])
        if i + 1 < 2 * LENGTH:
            assert not torch.allclose(logits[:, i + 1], changed[:, i + 1], atol=1e-3)  # the token before it counts


def test_the_likelihood_from_left_to_right_is_what_the_sampler_draws_from():
    """It sums to 1 over all texts and meets the frequencies of samples."""
    probs = _nats(NextTokenLikelihood()).neg().exp()
    assert float(probs.sum()) == pytest.approx(1.0, abs=1e-6)
    draws = 5000
    with torch.no_grad():
        step = last(Autoregressive()(MODEL, Request.blank(draws, LENGTH, LENGTH), rng=Rng.of(3, draws)))
    numbers = (step.tokens * VOCAB ** torch.arange(LENGTH - 1, -1, -1)).sum(-1)
    texts = (TEXTS * VOCAB ** torch.arange(LENGTH - 1, -1, -1)).sum(-1)
    frequency = torch.bincount(numbers, minlength=VOCAB**LENGTH)[texts] / draws
    expected_distance = float((2 * probs * (1 - probs) / (torch.pi * draws)).sqrt().sum() / 2)
    assert float((frequency - probs).abs().sum() / 2) < 1.5 * expected_distance


@pytest.mark.parametrize("given", [(0,), (1, 3), (0, 2)])
def test_given_tokens_condition_what_follows(given):
    known = torch.zeros(LENGTH, dtype=torch.bool)
    known[list(given)] = True
    texts = TEXTS[(TEXTS[:, known] == TEXTS[5, known]).all(-1)]
    nats = _nats(NextTokenLikelihood(), Batch(texts, condition_mask=known.expand(texts.shape)))
    assert float(nats.neg().exp().sum()) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("order", ["left", "confidence", "margin", "entropy"])
@pytest.mark.parametrize("per_step", [1, 2])
def test_each_order_of_masks_is_a_distribution_of_its_own(order, per_step):
    probs = _nats(OrderLikelihood(order=order, per_step=per_step)).neg().exp()
    assert float(probs.sum()) == pytest.approx(1.0, abs=1e-6)
    assert float((probs - _nats(NextTokenLikelihood()).neg().exp()).abs().max()) > 1e-3


def test_the_masked_bound_is_the_average_over_orders():
    """Of the first texts, by all orders of revealing."""
    texts, repeats = TEXTS[:6], 1000
    nats = _nats(MaskedLikelihood(), Batch(texts.repeat(repeats, 1))).view(repeats, len(texts))
    with torch.no_grad():
        exact = [by_orders(MODEL, text, torch.ones(LENGTH, dtype=torch.bool)) for text in texts]
    error = float(nats.std(0).max()) / repeats**0.5
    assert torch.allclose(nats.mean(0), torch.tensor(exact).double(), atol=4 * error)


def test_a_prediction_at_masks_sees_both_sides_and_the_ends_of_padded_rows():
    tokens = torch.tensor([[0, VOCAB, 1, 2]])
    for position in (0, 2, 3):
        other = torch.where(torch.arange(LENGTH) == position, (tokens + 1) % VOCAB, tokens)
        logits, changed = (MODEL.denoiser(x, torch.zeros(1), batch=Batch(x)).logits[0, 1] for x in (tokens, other))
        assert not torch.allclose(logits, changed, atol=1e-3)
    valid = torch.tensor([[True, True, True, False]])
    padded = MODEL.denoiser(tokens, torch.zeros(1), batch=Batch(tokens, valid_mask=valid)).logits[:, :3]
    alone = MODEL.denoiser(tokens[:, :3], torch.zeros(1), batch=Batch(tokens[:, :3])).logits
    assert torch.allclose(padded, alone, atol=1e-5)


def test_the_loss_is_the_weighted_sum_of_both_on_halves_of_the_rows():
    batch, rng = Batch(TEXTS[:8], row_ids=torch.arange(8), global_batch_size=8), Rng.of(0, 8)
    even, odd = torch.arange(0, 8, 2), torch.arange(1, 8, 2)
    for weight in (0.0, 0.3, 1.0):
        loss = Dual(next_weight=weight)(MODEL, batch, rng=rng)
        next_token = _nats(NextTokenLikelihood(), batch.select(even)).mean() / LENGTH
        masked = MaskedELBO()(MODEL, batch.select(odd), rng=rng.select(odd)).total.detach()
        assert float(loss.total.detach()) == pytest.approx(
            weight * float(next_token) + (1 - weight) * float(masked), rel=1e-5
        )
    alone = batch.select(torch.tensor([3]))  # one row serves both
    assert Dual()(MODEL, alone, rng=rng.select(torch.tensor([3]))).parts.keys() == loss.parts.keys()


def test_the_weight_follows_the_steps():
    model, batch, rng = _model(), Batch(TEXTS[:4]), Rng.of(0, 4)
    losses = {
        weight: float(Dual(next_weight=weight)(model, batch, rng=rng).total.detach()) for weight in (0.2, 0.5, 0.8)
    }
    for step, weight in ((0, 0.8), (50, 0.5), (100, 0.2), (1000, 0.2)):
        model.step.fill_(step)
        ramped = Dual(next_weight=0.8, final_weight=0.2, ramp_steps=100)(model, batch, rng=rng)
        assert float(ramped.total.detach()) == pytest.approx(losses[weight], rel=1e-5)
