"""What a network may see, and what it says before it has learned anything."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.models import model_of
from textdiffusion import recipes
from textdiffusion.config.overrides import apply_overrides
from textdiffusion.core.batch import Batch
from textdiffusion.core.randomness import Rng
from textdiffusion.core.registry import build
from textdiffusion.diffusion.absorbing import AbsorbingProcess
from textdiffusion.diffusion.alpha_schedules import LogLinear
from textdiffusion.diffusion.autoregressive import AutoregressiveProcess
from textdiffusion.diffusion.codecs import TokenCodec
from textdiffusion.diffusion.gaussian import GaussianProcess
from textdiffusion.diffusion.sigma_schedules import LogSigma
from textdiffusion.diffusion.table_codecs import BitCodec, EmbeddingCodec, SimplexCodec, TableCodec, bits
from textdiffusion.networks.attention import rotary
from textdiffusion.networks.classifier import NoisyClassifier
from textdiffusion.networks.embedding_denoiser import EmbeddingDenoiser
from textdiffusion.networks.layers import CanonConv, visible_neighbours
from textdiffusion.networks.next_token_denoiser import NextTokenDenoiser
from textdiffusion.networks.output_heads import (
    BitLogits,
    BitLogitsHead,
    X0Logits,
    X0LogitsHead,
    X0Regression,
    X0RegressionHead,
)
from textdiffusion.networks.simplex_denoiser import SimplexDenoiser
from textdiffusion.networks.token_denoiser import MaskDenoiserConfig, TokenDenoiser
from textdiffusion.networks.transformer import Transformer, TransformerConfig
from textdiffusion.networks.unet import UNetConfig

V, L = 7, 8
KINDS = [
    "masked",
    "masked, tables",
    "masked, time",
    "masked, film",
    "next",
    "next, tables",
    "states",
    "states, no prior",
    "states, regressed",
    "states, bits",
    "states, U-Net",
    "soft tokens",
]
TRANSFORMERS = [kind for kind in KINDS if "U-Net" not in kind]


def _backbone(**options):
    options.setdefault("cond_dim", 16)
    options.setdefault("conv_radius", 2)
    return Transformer(TransformerConfig(64, 2, **options))


TABLES = MaskDenoiserConfig(
    ngram_dim=4, ngram_size=3, ngram_rows=100
)  # pairs have rows of their own (8^2), triples are hashed


def _denoiser(kind, **options) -> Any:
    torch.manual_seed(0)
    process = AbsorbingProcess(V, LogLinear())
    tables = TABLES if "tables" in kind else MaskDenoiserConfig()
    match kind:
        case "masked" | "masked, tables":
            return TokenDenoiser(_backbone(**options), process, tables, time=False)
        case "masked, time":
            return TokenDenoiser(_backbone(modulation="adaln", **options), process, tables, time=True)
        case "masked, film":
            return TokenDenoiser(_backbone(modulation="film", **options), process, tables, time=True)
        case "next" | "next, tables":
            order = AutoregressiveProcess(V)
            return NextTokenDenoiser(_backbone(**options), order, tables)
        case "soft tokens":
            simplex, noise = SimplexCodec(V, 1.0), GaussianProcess(LogSigma(0.1, 50.0))
            backbone = _backbone(modulation="adaln", **options)
            return SimplexDenoiser(backbone, noise, simplex, output_head=X0LogitsHead(64, simplex))
        case _:
            codec = EmbeddingCodec(torch.randn(V, 6), learned=True, normalise="l2")
            noise = GaussianProcess(LogSigma(0.1, 50.0))
            backbone = build(UNetConfig(64, depth=2)) if "U-Net" in kind else _backbone(modulation="adaln", **options)
            head: Any = X0LogitsHead(64, codec, prior=kind == "states")
            if "regressed" in kind:
                head = X0RegressionHead(64, codec, X0Regression())
            if "bits" in kind:
                codec = BitCodec(bits(V), 1.0)
                head = BitLogitsHead(64, codec)
            return EmbeddingDenoiser(backbone, noise, codec, output_head=head)


def _stirred(denoiser) -> Any:
    """As after some training: no parameter is zero."""
    draw = torch.Generator().manual_seed(1)
    for p in (p for p in denoiser.parameters() if p.requires_grad):
        p.data = torch.randn(p.shape, generator=draw) * (0.3 if p.ndim > 1 else 0.1)
    return denoiser.eval()


def _state(denoiser, ids, seed=0) -> tuple[Any, Any, Any]:
    """Something a denoiser may be called with, its level of noise, and a self-conditioning estimate."""
    draw = torch.Generator().manual_seed(seed)
    t = torch.full((len(ids),), 0.4)
    if isinstance(denoiser, EmbeddingDenoiser | SimplexDenoiser):
        shape = (*ids.shape, denoiser.codec.dim)
        return torch.randn(shape, generator=draw) * 3, t, torch.randn(shape, generator=draw)
    return torch.where(torch.rand(ids.shape, generator=draw) < 0.4, V, ids), t, None


def _ids(rows, length=L, seed=2):
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_a_packed_row_says_what_separate_rows_say(kind):
    denoiser = _stirred(_denoiser(kind))
    ids = _ids(1)
    x, t, estimate = _state(denoiser, ids)
    cuts = [(0, 3), (3, 4), (4, 8)]
    segments = torch.tensor([[0, 0, 0, 1, 2, 2, 2, 2]])
    packed = denoiser(x, t, batch=Batch(ids, segment_ids=segments), self_cond=estimate).logits
    for a, b in cuts:
        part = estimate if estimate is None else estimate[:, a:b]
        alone = denoiser(x[:, a:b], t, batch=Batch(ids[:, a:b]), self_cond=part).logits
        torch.testing.assert_close(packed[:, a:b], alone, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_does_not_change_what_is_said_of_real_positions(kind):
    denoiser = _stirred(_denoiser(kind))
    ids = _ids(2)
    real = torch.ones(2, L, dtype=torch.bool)
    real[:, 5:] = False
    x, t, estimate = _state(denoiser, ids)
    said = denoiser(x, t, batch=Batch(ids, valid_mask=real), self_cond=estimate).logits[:, :5]
    other, _, other_estimate = _state(denoiser, _ids(2, seed=9), seed=9)
    x = torch.where(real[..., None] if x.ndim == 3 else real, x, other)
    if estimate is not None:
        estimate = torch.where(real[..., None], estimate, other_estimate)
    batch = Batch(torch.where(real, ids, (ids + 1) % V), valid_mask=real)
    torch.testing.assert_close(denoiser(x, t, batch=batch, self_cond=estimate).logits[:, :5], said)
    short = None if estimate is None else estimate[:, :5]
    alone = denoiser(x[:, :5], t, batch=Batch(ids[:, :5]), self_cond=short).logits
    torch.testing.assert_close(alone, said, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["masked", "states"])
def test_padding_does_not_change_what_a_classifier_says(kind):
    run = _denoiser(kind)
    codec = TokenCodec(V) if kind == "masked" else run.codec
    classifier = _stirred(NoisyClassifier(run.process, codec, labels=3, width=64, depth=2))
    ids, others = _ids(2), _ids(2, seed=9)
    real = torch.arange(L).expand(2, L) < 5
    (x, t, _), (y, _, _) = _state(run, ids), _state(run, others, seed=9)
    probs, doubts = torch.randn(2, 2, L, V, generator=torch.Generator().manual_seed(3)).softmax(-1)
    padded, other = Batch(ids, valid_mask=real), Batch(torch.where(real, ids, others), valid_mask=real)
    y = torch.where(real[..., None] if x.ndim == 3 else real, x, y)
    said = classifier(x, t, padded)
    torch.testing.assert_close(classifier(y, t, other), said)
    torch.testing.assert_close(classifier(x[:, :5], t, Batch(ids[:, :5])), said, atol=2e-5, rtol=1e-4)
    said = classifier.soft(probs, padded)
    torch.testing.assert_close(classifier.soft(torch.where(real[..., None], probs, doubts), other), said)
    torch.testing.assert_close(classifier.soft(probs[:, :5], Batch(ids[:, :5])), said, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["next", "next, tables"])
def test_left_to_right_does_not_see_the_future_nor_the_present(kind):
    denoiser = _stirred(_denoiser(kind))
    ids = _ids(1)
    with torch.no_grad():
        said = denoiser(ids, torch.zeros(1), batch=Batch(ids)).logits
        for i in range(L):
            changed = ids.clone()
            changed[:, i:] = (ids[:, i:] + 1) % V
            told = denoiser(changed, torch.zeros(1), batch=Batch(changed)).logits
            torch.testing.assert_close(told[:, : i + 1], said[:, : i + 1])
            if i + 1 < L:
                assert not torch.allclose(told[:, i + 1], said[:, i + 1])
    # And by gradient: the logits at i depend on the embeddings of tokens before i alone.
    seen = []
    hook = denoiser.embedding.register_forward_hook(lambda module, args, out: seen.append(out))
    logits = denoiser(ids, torch.zeros(1), batch=Batch(ids)).logits
    hook.remove()
    for i in range(L):
        (gradient,) = torch.autograd.grad(logits[0, i].square().sum(), seen[0], retain_graph=True)
        # Embedding j is that of token j - 1 (the first is the start).
        assert bool((gradient[0, i + 1 :] == 0).all())
        assert bool((gradient[0, : i + 1].abs().sum(-1) > 0).all())


@pytest.mark.parametrize("kind", ["masked", "states", "states, U-Net"])
def test_others_see_both_ways(kind):
    denoiser = _stirred(_denoiser(kind))
    ids = _ids(1)
    x, t, estimate = _state(denoiser, ids)
    said = denoiser(x, t, batch=Batch(ids), self_cond=estimate).logits
    x = x.clone()
    x[:, 4] = x[:, 4] + 1.0 if x.ndim == 3 else (x[:, 4] + 1) % V
    told = denoiser(x, t, batch=Batch(ids), self_cond=estimate).logits
    assert bool(((told - said).abs().sum(-1) > 1e-4).all())


@pytest.mark.parametrize("kind", ["states", "states, no prior"])
def test_given_tokens_are_seen_and_their_noise_is_not(kind):
    denoiser = _stirred(_denoiser(kind))
    ids, given = _ids(2), torch.zeros(2, L, dtype=torch.bool)
    given[:, 2] = True
    x, t, estimate = _state(denoiser, ids)
    others = [i for i in range(L) if i != 2]
    said = denoiser(x, t, batch=Batch(ids, condition_mask=given), self_cond=estimate).logits[:, others]
    noisier, doubtful = x.clone(), estimate.clone()
    noisier[:, 2] += 5.0
    doubtful[:, 2] -= 5.0
    told = denoiser(noisier, t, batch=Batch(ids, condition_mask=given), self_cond=doubtful).logits[:, others]
    torch.testing.assert_close(told, said)
    ids = ids.clone()
    ids[:, 2] = (ids[:, 2] + 1) % V
    told = denoiser(x, t, batch=Batch(ids, condition_mask=given), self_cond=estimate).logits[:, others]
    assert bool(((told - said).abs().sum(-1) > 1e-4).all())
    # The ids of positions that are not given are the answer: they must not be seen.
    free = torch.where(given, ids, (ids + 1) % V)
    again = denoiser(x, t, batch=Batch(free, condition_mask=given), self_cond=estimate).logits[:, others]
    torch.testing.assert_close(again, told)


@pytest.mark.parametrize("kind", KINDS)
def test_the_answer_is_never_looked_at(kind):
    """Batch.ids of free positions are what is to be predicted."""
    denoiser = _stirred(_denoiser(kind))
    ids = _ids(2)
    x, t, estimate = _state(denoiser, ids)
    said, told = (denoiser(x, t, batch=Batch(i), self_cond=estimate).logits for i in (ids, (ids + 3) % V))
    assert torch.equal(said, told)


@pytest.mark.parametrize("kind", KINDS)
def test_time_free_networks_are_those_that_time_does_not_change(kind):
    denoiser = _stirred(_denoiser(kind))
    ids = _ids(2)
    x, _, estimate = _state(denoiser, ids)
    early, late = (denoiser(x, torch.full((2,), t), batch=Batch(ids), self_cond=estimate).logits for t in (0.2, 0.9))
    assert denoiser.time_independent == (kind.partition(", tables")[0] in ("masked", "next"))
    assert denoiser.time_independent == torch.equal(early, late)


def test_levels_of_noise_may_differ_by_position():
    for kind in ("masked, time", "states", "states, U-Net"):
        denoiser = _stirred(_denoiser(kind))
        ids = _ids(2)
        x, t, estimate = _state(denoiser, ids)
        row = denoiser(x, t, batch=Batch(ids), self_cond=estimate).logits
        position = denoiser(x, t[:, None].expand(2, L), batch=Batch(ids), self_cond=estimate).logits
        torch.testing.assert_close(row, position, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_recomputation_changes_nothing(kind):
    results = []
    for recompute in (False, True):
        denoiser = _stirred(_denoiser(kind, gradient_checkpointing=recompute))
        ids = _ids(2)
        x, t, estimate = _state(denoiser, ids)
        nats = denoiser(x, t, batch=Batch(ids), self_cond=estimate).nll(ids, torch.ones_like(ids).bool())
        nats.sum().backward()
        results.append([nats.detach(), *(p.grad for p in denoiser.parameters() if p.grad is not None)])
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("kind", ["masked", "masked, time", "masked, film", "next", "states, no prior"])
def test_a_fresh_network_predicts_all_tokens_alike(kind):
    denoiser = _denoiser(kind)
    ids = _ids(2)
    x, t, estimate = _state(denoiser, ids)
    assert bool((denoiser(x, t, batch=Batch(ids), self_cond=estimate).logits == 0).all())


@pytest.mark.parametrize("modulation", ["none", "adaln", "film"])
def test_a_fresh_backbone_is_the_identity_up_to_its_norm(modulation):
    backbone = _backbone(modulation=modulation)
    x = torch.randn(2, L, 64)
    level = None if modulation == "none" else torch.tensor([0.3, 0.8])
    out = backbone(x, level, torch.arange(L)[None], None)
    torch.testing.assert_close(out, torch.nn.functional.layer_norm(x, (64,)))
    out.square().sum().backward()
    # Something learns from the first step on, in every block.
    for block in backbone.blocks:
        backbone.zero_grad()
        (backbone(x, level, torch.arange(L)[None], None) * torch.randn(2, L, 64)).sum().backward()
        assert any(bool((p.grad != 0).any()) for p in block.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    "table",
    [EmbeddingCodec(torch.randn(5, 6), normalise="l2"), TableCodec(bits(5)), TableCodec(torch.randn(5, 6))],
    ids=["equal norms", "bits", "any norms"],
)
def test_the_prior_of_a_fresh_network_is_the_evidence_of_the_state(table):
    """With nothing learned it is Bayes' rule over the table, token by token."""
    process = GaussianProcess(LogSigma(0.1, 50.0))
    denoiser = EmbeddingDenoiser(_backbone(modulation="adaln"), process, table, output_head=X0LogitsHead(64, table))
    ids = torch.randint(5, (4, L))
    t = torch.tensor([0.1, 0.4, 0.6, 0.9])
    x = process.add_noise(table.encode(ids), t, rng=Rng.of(0, 4))
    said = denoiser(x, t, batch=Batch(ids)).probs
    evidence = torch.stack([process.log_likelihood(x, row.expand_as(x).clone(), t) for row in table.table()], dim=-1)
    torch.testing.assert_close(said, evidence.softmax(-1), atol=2e-4, rtol=1e-3)


def test_the_prior_of_fresh_bits_is_the_evidence_of_each():
    """Bayes' rule over all words, bit by bit."""
    codec, process = BitCodec(bits(4, 2.0), 2.0), GaussianProcess(LogSigma(0.1, 50.0))
    denoiser = EmbeddingDenoiser(_backbone(modulation="adaln"), process, codec, output_head=BitLogitsHead(64, codec))
    ids, t = torch.randint(4, (4, L)), torch.tensor([0.3, 0.4, 0.6, 0.9])
    x = process.add_noise(codec.encode(ids), t, rng=Rng.of(0, 4))
    evidence = torch.stack([process.log_likelihood(x, row.expand_as(x).clone(), t) for row in codec.table()], dim=-1)
    torch.testing.assert_close(denoiser(x, t, batch=Batch(ids)).probs, evidence.softmax(-1), atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("part", [X0Logits(prior=False), BitLogits(prior=False), X0Regression()], ids=repr)
def test_words_of_no_token_are_never_decoded(part):
    """Features of all sorts, and 9 of the 16 words of 4 bits are tokens."""
    head = _stirred(build(part, width=32, codec=BitCodec(bits(9, code="random"), 1.0)))
    said = head(torch.randn(40, 50, 32), torch.randn(40, 50, 4), torch.ones(40, 1, 1))
    assert sorted(said.logits.argmax(-1).unique().tolist()) == list(range(9))


def test_states_are_scaled_to_order_one():
    """x / sqrt(sigma^2 + s^2) at the lowest and at the highest noise."""
    denoiser = _denoiser("states")
    ids = _ids(200)
    seen = []
    denoiser.input.register_forward_hook(lambda m, a, out: seen.append(a[0]))
    for t in (0.0, 0.5, 1.0):
        at = torch.full((200,), t)
        x = denoiser.process.add_noise(denoiser.codec.encode(ids), at, rng=Rng.of(0, 200))
        denoiser(x, at, batch=Batch(ids))
    for features in seen:
        assert float(features[..., :6].detach().square().mean().sqrt()) == pytest.approx(1.0, abs=0.1)


def test_packed_rows_of_a_left_to_right_network_start_afresh():
    denoiser = _stirred(_denoiser("next"))
    ids = _ids(1, 4)
    twice = ids.repeat(1, 2)
    segments = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1]])
    said = denoiser(twice, torch.zeros(1), batch=Batch(twice, segment_ids=segments)).logits
    torch.testing.assert_close(said[:, :4], said[:, 4:])


def test_compute_dtype_is_that_of_the_features():
    denoiser = _stirred(_denoiser("masked"))
    ids = _ids(2)
    x, t, _ = _state(denoiser, ids)
    full = denoiser(x, t, batch=Batch(ids)).logits
    denoiser.backbone.compute_dtype = torch.bfloat16
    half = denoiser(x, t, batch=Batch(ids)).logits
    assert half.dtype == torch.float32
    assert not torch.equal(full, half)
    torch.testing.assert_close(full.softmax(-1), half.softmax(-1), atol=0.15, rtol=0)
    assert all(p.dtype == torch.float32 for p in denoiser.parameters())


def test_batches_are_selected_and_cut_whole():
    batch = Batch(
        _ids(4),
        valid_mask=torch.ones(4, L).bool(),
        condition_mask=torch.zeros(4, L).bool(),
        row_ids=torch.arange(4),
        global_batch_size=9,
    )
    part = batch.select(torch.tensor([2, 0]))
    assert part.row_ids is not None
    assert part.row_ids.tolist() == [2, 0]
    assert part.global_batch_size == 9
    assert torch.equal(part.tokens, batch.tokens[[2, 0]])
    short = batch.slice(0, 3)
    assert [x.shape for x in (short.tokens, short.valid_mask, short.condition_mask) if x is not None] == [(4, 3)] * 3
    assert short.row_ids is batch.row_ids
    assert batch.to("cpu").tokens.device.type == "cpu"
    assert torch.equal(replace(batch, condition_mask=batch.valid_mask).target_mask, torch.zeros(4, L).bool())
    assert math.prod(Batch(batch.tokens).target_mask.shape) == 4 * L


@pytest.mark.parametrize("absolute", [False, True])
def test_only_absolute_positions_tell_masks_apart(absolute):
    """A row of nothing but masks looks the same from everywhere to relative positions."""
    denoiser = _stirred(_denoiser("masked", absolute_positions=absolute, conv_radius=0))
    masks = torch.full((1, L), V)
    logits = denoiser(masks, torch.ones(1), batch=Batch(torch.zeros(1, L, dtype=torch.long))).logits[0]
    assert torch.allclose(logits[0], logits[-1], atol=1e-5) == (not absolute)


def test_a_regression_that_starts_from_the_states_own_evidence():
    """Untrained it is Bayes' rule over the table, as untrained logits on the same evidence are; little noise leaves
    it nothing to add."""
    codec = TableCodec(torch.randn(V, 6, generator=torch.Generator().manual_seed(0)))
    regressed, logits = X0RegressionHead(64, codec, X0Regression("evidence")), X0LogitsHead(64, codec)
    sigma = torch.tensor([0.05, 1.0])[:, None, None]
    hidden, x = torch.randn(2, L, 64), codec.encode(_ids(2)) + sigma * torch.randn(2, L, 6)
    torch.testing.assert_close(regressed(hidden, x, sigma).mean, logits(hidden, x, sigma).mean)
    torch.nn.init.normal_(regressed.output.weight)
    moved = (regressed(hidden, x, sigma).mean - logits(hidden, x, sigma).mean).detach().abs().amax((1, 2))
    assert float(moved[0]) < 1e-3 < 1.0 < float(moved[1])


@pytest.mark.parametrize("radius", [1, 3, 9])
def test_neighbours_are_summed_with_their_weights_and_with_or_without_a_mask_alike(radius):
    near = _stirred(CanonConv(4, radius))
    x = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(2))
    expected = x.clone()
    for i in range(5):
        for j in range(5):
            if abs(j - i) <= radius:
                expected[:, i] += near.weight[:, 0, 0, j - i + radius] * x[:, j]
    torch.testing.assert_close(near(x, None), expected)
    torch.testing.assert_close(near(x, visible_neighbours(torch.ones(1, 1, 5, 5, dtype=torch.bool), radius)), expected)


def _muted(modulate, shift):
    """FiLM that says 1 + scale = 0, and this shift, at every noise level; the order of its outputs is shift, scale."""
    torch.nn.init.zeros_(modulate.weight)
    modulate.bias.data = torch.cat((shift, torch.full_like(shift, -1.0)), dim=-1).flatten()


@pytest.mark.parametrize("activation", ["relu2", "gelu"])
def test_film_is_linear_and_may_hide_all_that_a_branch_sees(activation):
    """Scaled by 0, a branch sees its shift alone, and says of it what its maps do: nothing bends FiLM's outputs."""
    backbone = _stirred(_backbone(modulation="film", activation=activation))
    block, level, shifts = backbone.blocks[0], torch.tensor([0.3, 0.8]), torch.randn(2, 64)
    _muted(block.modulate, shifts)
    bend = {"relu2": lambda h: h.relu().square(), "gelu": lambda h: torch.nn.functional.gelu(h, approximate="tanh")}
    seen = block.out(block.qkv(shifts[0])[128:]) + block.down(bend[activation](block.up(shifts[1])))
    block.canon = None  # which sums fewer places at the ends
    x, turn = torch.randn(2, L, 64), rotary(torch.arange(L)[None], 64)
    torch.testing.assert_close(block(x, backbone.time(level), turn, None), x + seen, atol=1e-4, rtol=1e-4)
    _muted(backbone.modulate, shifts[:1])
    torch.testing.assert_close(backbone(x, level, torch.arange(L)[None], None), shifts[0].expand_as(x))


@pytest.mark.parametrize("variant", ["default", "as_published"])
def test_simple_diffusion_lm_fits_the_state_that_it_samples(variant):
    model = model_of(
        apply_overrides(recipes.get("simple_diffusion_lm")(variant), ["backbone.width=64", "backbone.depth=1"]), V
    )
    denoiser = _stirred(model.denoiser)
    x, t, estimate = _state(denoiser, _ids(2))
    said = denoiser(x, t, batch=Batch(_ids(2)), self_cond=estimate)
    torch.testing.assert_close(said.x0_estimate, said.probs @ model.codec.table())
    assert torch.equal(said.mean, said.x0_estimate)
