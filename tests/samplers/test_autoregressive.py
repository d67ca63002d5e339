"""Sampling from left to right: the cache of what was read changes nothing but the number of positions computed."""

import pytest
import torch

from tests.models import model_of
from textdiffusion import recipes
from textdiffusion.config.overrides import apply_overrides
from textdiffusion.core.batch import Batch
from textdiffusion.core.randomness import Rng
from textdiffusion.guidance.cfg import ClassifierFree
from textdiffusion.guidance.logits import Temperature
from textdiffusion.guidance.repetition import NoRepeat, RepetitionPenalty
from textdiffusion.networks.denoiser import LabelEmbedding
from textdiffusion.networks.prefix_cache import PrefixCache
from textdiffusion.samplers.autoregressive import Autoregressive
from textdiffusion.samplers.base import Guide, Request

VOCAB, LENGTH, ROWS = 5, 12, 3
TEXT = torch.arange(ROWS * LENGTH).view(ROWS, LENGTH) * 7 % VOCAB
PROMPT = torch.arange(LENGTH).expand(ROWS, LENGTH) < torch.tensor([[2], [4], [3]])
SCATTERED = torch.arange(LENGTH).expand(ROWS, LENGTH) % 3 == 1
REAL = torch.arange(LENGTH).expand(ROWS, LENGTH) < torch.tensor([[12], [9], [11]])
LABELS = torch.tensor([1, 2, 1])
MODELS = {
    "plain": ["backbone.conv_radius=0"],
    "tables": ["backbone.conv_radius=2", "denoiser.ngram_dim=8", "denoiser.ngram_size=4"],
}
BATCHES = {
    "empty": Batch(TEXT),
    "prompts": Batch(TEXT, condition_mask=PROMPT),
    "templates": Batch(TEXT, condition_mask=SCATTERED),
    "padding": Batch(TEXT, valid_mask=REAL, condition_mask=PROMPT),
    "packed": Batch(TEXT, segment_ids=torch.tensor([0] * 5 + [1] * 7).expand(ROWS, LENGTH)),
    "labels": Batch(TEXT, labels=LABELS),
}


def _model(*settings, recipe="autoregressive"):
    small = ["backbone.width=64", "backbone.depth=2", f"text.length={LENGTH}", *settings]
    torch.manual_seed(0)
    model = model_of(apply_overrides(recipes.get(recipe)(), ["denoiser.ngram_dim=0", *small]), VOCAB)
    model.denoiser.labels = LabelEmbedding(2, 64)
    for parameter in model.denoiser.parameters():
        parameter.data = torch.randn(parameter.shape) * 0.2
    model.denoiser.backbone.compute_dtype = torch.float64  # so that only errors of the cache are seen
    return model.double().eval().requires_grad_(False)


def _guides(model, batch):
    """By name; guidance without a classifier needs a condition."""
    guides: dict[str, tuple[Guide, ...]] = {
        "none": (),
        "logits": (Temperature(0.7), NoRepeat(ngram=3), RepetitionPenalty(penalty=1.5)),
    }
    if batch.labels is not None or batch.condition_mask is not None:
        guides["classifier-free"] = (ClassifierFree(model, 2.0, 0), Temperature(0.8))
    return guides


class Reading:
    """A cached denoiser that compares each of its predictions with the network's own."""

    time_independent, self_conditioning = True, False

    def __init__(self, network):
        self.network, self.cache = network, PrefixCache(network)

    def __call__(self, xt, t, *, batch, self_cond=None):
        prediction, expected = self.cache(xt, t, batch=batch), self.network.predict_next(xt, batch)
        assert torch.allclose(prediction.logits[:, -1], expected.logits[:, -1], atol=1e-6, rtol=1e-6)
        return prediction


@pytest.mark.parametrize(("settings", "batch"), [*(("tables", name) for name in BATCHES), ("plain", "padding")])
def test_the_cache_changes_neither_logits_nor_texts(settings, batch, monkeypatch):
    """The logits of every call, under every guide, and texts and confidence without the cache."""
    model, rows = _model(*MODELS[settings]), BATCHES[batch]
    monkeypatch.setattr(type(model.denoiser), "cached", lambda network: Reading(network))
    guides = _guides(model, rows)
    steps = {name: _sample(model, rows, guides[name]) for name in guides}
    monkeypatch.setattr(type(model.denoiser), "cached", lambda network: network)
    expected = _sample(model, rows, guides["none"])
    assert torch.equal(steps["none"].tokens, expected.tokens)
    assert torch.allclose(steps["none"].confidence, expected.confidence, atol=1e-6)


def test_nor_under_dual_training(monkeypatch):
    model = _model(*MODELS["tables"], recipe="dual")
    monkeypatch.setattr(type(model.denoiser), "cached", lambda network: Reading(network))
    for batch in (BATCHES["prompts"], BATCHES["padding"]):
        guides = _guides(model, batch)
        for name in ("none", "classifier-free"):  # one prediction a step, and two
            _sample(model, batch, guides[name])


def _sample(model, batch, guides):
    return list(Autoregressive()(model, Request(batch, LENGTH, guides), rng=Rng.of(0, ROWS)))[-1]


def test_each_position_is_computed_once():
    """With guidance, once with the condition and once without; given beginnings are read at once."""
    model = _model(*MODELS["tables"])
    lengths = []
    model.denoiser.backbone.register_forward_pre_hook(lambda module, args: lengths.append(args[0].shape[1]))
    list(Autoregressive()(model, Request(BATCHES["empty"], LENGTH), rng=Rng.of(0, ROWS)))
    assert lengths == [1] * LENGTH
    lengths.clear()
    list(Autoregressive()(model, Request(BATCHES["prompts"], LENGTH), rng=Rng.of(0, ROWS)))
    assert lengths == [3] + [1] * (LENGTH - 3)  # every row has two given tokens
    lengths.clear()
    guided = Request(BATCHES["prompts"], LENGTH, (ClassifierFree(model, 2.0, 0),))
    list(Autoregressive()(model, guided, rng=Rng.of(0, ROWS)))
    assert lengths == [3, 3] + [1, 1] * (LENGTH - 3)


def test_whatever_is_asked_in_whatever_order_is_answered_right():
    """Texts that differ anywhere, other rows, and shorter texts, as guides may ask for them."""
    model = _model(*MODELS["tables"])
    cache, t = PrefixCache(model.denoiser), torch.zeros(ROWS)
    other = torch.where(torch.arange(LENGTH) == 3, (TEXT + 1) % VOCAB, TEXT)
    asked = [Batch(TEXT[:, :6]), Batch(other[:, :9]), Batch(TEXT[:, :4]), Batch(other), Batch(other[:2])]
    asked += [Batch(TEXT[:, :6], labels=LABELS), Batch(TEXT[:, :8], labels=LABELS - 1), Batch(TEXT, valid_mask=REAL)]
    for batch in [*asked, *asked]:
        rows = t[: len(batch.tokens)]
        expected = model.denoiser.predict_next(batch.tokens, batch).logits[:, -1]
        assert torch.allclose(cache(batch.tokens, rows, batch=batch).logits[:, -1], expected, atol=1e-6)
