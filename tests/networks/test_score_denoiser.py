"""Networks that put out ratios."""

import math

import pytest
import torch

from tests.models import model_of
from textdiffusion import recipes
from textdiffusion.config.overrides import apply_overrides
from textdiffusion.core.batch import Batch
from textdiffusion.core.errors import UserError
from textdiffusion.core.randomness import Rng
from textdiffusion.samplers.ancestral import Ancestral, Euler, Tweedie
from textdiffusion.samplers.base import Request

V, L = 7, 8
SMALL = ["backbone.width=64", "backbone.depth=1", "denoiser.ngram_dim=4", "denoiser.ngram_rows=64"]
IDS = torch.randint(V, (12, L), generator=torch.Generator().manual_seed(2))


def _model(variant, *settings, stirred=True):
    torch.manual_seed(0)
    model = model_of(apply_overrides(recipes.get("sedd")(variant), [*SMALL, *settings]), V).eval()
    draw = torch.Generator().manual_seed(1)
    for p in model.denoiser.parameters() if stirred else ():
        p.data = torch.randn(p.shape, generator=draw) * (0.3 if p.ndim > 1 else 0.1)
    return model


def _noisy(model, t):
    at = torch.full((len(IDS),), t)
    return model.process.add_noise(IDS, at, rng=Rng.of(0, len(IDS))), at


def test_scaled_ratios_start_as_those_of_the_uniform_law():
    """raw - log (e^sigma - 1) - log V (SEDD's released head)."""
    model = _model("default", stirred=False)
    for t in (1e-5, 0.3, 1.0):
        xt, at = _noisy(model, t)
        sigma = -math.log1p(-0.999 * t)
        each = at[:, None].expand(xt.shape)
        ratios = model.denoiser(xt, at, batch=Batch(IDS)).log_score(model.process.graph, xt, each)
        expected = torch.full_like(ratios, -math.log(math.expm1(sigma)) - math.log(V))
        at_masks = xt == V
        torch.testing.assert_close(ratios[at_masks], expected[at_masks], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variant", ["default", "uniform"])
def test_both_views_are_of_the_same_ratios(variant, monkeypatch):
    model = _model(variant)
    graph = model.process.graph
    xt, at = _noisy(model, 0.6)
    said, each = model.denoiser(xt, at, batch=Batch(IDS)), at[:, None].expand(xt.shape)
    where = model.process.is_noisy(xt)
    ratios = said.log_score(graph, xt, each)
    if variant == "uniform":
        assert bool((ratios.gather(-1, xt[..., None]) == 0).all())  # a token to itself
    torch.testing.assert_close(said.logits, graph.x0_logits(ratios, xt, each))
    nll = -said.logits.log_softmax(-1).gather(-1, IDS[..., None])[..., 0]
    entropy = graph.score_entropy(ratios, IDS, xt, each)
    for elements in (1 << 25, 2 * V):  # at once, and two positions at a time
        monkeypatch.setattr("textdiffusion.diffusion.prediction.CHUNK_ELEMENTS", elements)
        fresh = model.denoiser(xt, at, batch=Batch(IDS))
        torch.testing.assert_close(fresh.nll(IDS, where)[where], nll[where])
        found = fresh.score_entropy(graph, IDS, where, xt, each)
        torch.testing.assert_close(found[where], entropy[where], rtol=1e-4, atol=1e-4)
        assert bool((found[~where] == 0).all())
        found.sum().backward()
    assert model.denoiser.head.weight.grad is not None


@pytest.mark.parametrize("variant", ["default", "uniform"])
def test_a_bfloat16_backbone_gives_finite_losses_and_gradients_at_every_noise_level(variant):
    model = _model(variant)
    model.denoiser.backbone.compute_dtype = torch.bfloat16
    for t in (2.0**-24, 1e-6, 1e-3, 0.5, 0.999, 1 - 2.0**-24, 1.0):
        xt, at = _noisy(model, t)
        xt[:, 0] = V if variant == "default" else (IDS[:, 0] + 1) % V  # something is noised at any level
        said = model.denoiser(xt, at, batch=Batch(IDS))
        each = at[:, None].expand(xt.shape)
        ratios = said.log_score(model.process.graph, xt, each)
        assert ratios.dtype == torch.float32
        # A head in bfloat16 would put ratios on a grid of 8 bits.
        assert not torch.equal(ratios, ratios.bfloat16().float())
        loss = said.score_entropy(model.process.graph, IDS, model.process.is_noisy(xt), xt, each).sum()
        model.zero_grad()
        loss.backward()
        assert bool(torch.isfinite(loss))
        assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)
        assert bool(torch.isfinite(said.logits).all())


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("variant", ["default", "uniform"])
def test_training_in_bfloat16_does_not_diverge(variant, seed):
    """Fifty steps at a high learning rate with the uncut bound; `benchmarks/divergence.py` is the long version."""
    model = _model(variant, "objective.max_weight=0", "backbone.width=16", stirred=False).train()
    model.denoiser.backbone.compute_dtype = torch.bfloat16
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for step in range(50):
        loss = model.objective(model, Batch(IDS[:3]), rng=Rng.of(seed, 3).fork(step)).total
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, error_if_nonfinite=True)
        optimizer.step()
        losses.append(float(loss))
    assert all(math.isfinite(x) for x in losses)
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


@pytest.mark.parametrize("sampler", [Ancestral(), Euler(), Tweedie()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("variant", ["default", "uniform"])
def test_every_sampler_of_tokens_drives_ratios_and_keeps_given_tokens(variant, sampler):
    model = _model(variant)
    given = torch.rand(IDS.shape, generator=torch.Generator().manual_seed(5)) < 0.4
    with torch.no_grad():
        steps = list(sampler(model, Request(Batch(IDS, condition_mask=given), 6), rng=Rng.of(0, len(IDS))))
    for step in steps:
        assert torch.equal(step.tokens[given], IDS[given])
        assert bool((step.confidence[given] == 1).all())
        assert bool(((step.confidence >= 0) & (step.confidence <= 1)).all())
    final = steps[-1]
    assert bool((final.tokens < V).all())
    assert bool((final.confidence > 0).all())
    assert final.nfe <= 6


@pytest.mark.parametrize(
    ("variant", "setting", "message"),
    [
        ("uniform", "denoiser.scale_by_sigma=true", "scale_by_sigma is for the ratios of masks"),
        ("default", "backbone.modulation=none", "denoiser.time is True, but backbone.modulation is none"),
        ("default", "denoiser.time=false", "denoiser.time is False, but backbone.modulation is adaln"),
        (
            "default",
            "process.kind=autoregressive_order",
            "score_denoiser works with process.kind=absorbing, dual_absorbing or uniform, not with autoreg",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(variant, setting, message):
    with pytest.raises(UserError, match=message):
        apply_overrides(recipes.get("sedd")(variant), [setting])


def test_a_head_is_not_counted_twice():
    """The view of ratios shares the head's weights and saves none of its own."""
    model = _model("default")
    names = [name for name in model.state_dict() if "head" in name or "ratios" in name]
    assert names == ["denoiser.head.weight", "denoiser.head.bias"]
