"""The chunked head says exactly what whole logits say."""

import pytest
import torch
import torch.nn.functional as F

from textdiffusion.diffusion import prediction
from textdiffusion.diffusion.prediction import LazyPrediction, Prediction
from textdiffusion.diffusion.table_codecs import BitCodec, TableCodec, bits
from textdiffusion.diffusion.vector_predictions import BitPrediction, X0Prediction
from textdiffusion.networks.heads import BitHead, LinearHead, RoundingHead

B, L, W, V, D = 3, 5, 8, 11, 4


def _parts(seed=0):
    draw = torch.Generator().manual_seed(seed)
    head = LinearHead(W, V)
    head.weight.data = torch.randn(V, W, generator=draw)
    head.bias.data = torch.randn(V, generator=draw)
    hidden = torch.randn(B, L, W, generator=draw).requires_grad_()
    table = torch.randn(V, D, generator=draw).requires_grad_()
    ids = torch.randint(V, (B, L), generator=draw)
    where = torch.rand(B, L, generator=draw) < 0.6
    return head, hidden, table, ids, where


@pytest.fixture(params=[1, 2, 4, 1 << 25], ids=lambda n: f"{n} positions")
def chunks(request, monkeypatch):
    """Chunks of so many positions."""
    monkeypatch.setattr(prediction, "CHUNK_ELEMENTS", request.param * V)


def test_probs_and_mean_are_the_plain_formulas():
    _, _, table, ids, where = _parts()
    logits = torch.randn(B, L, V)
    said = Prediction(logits, table)
    torch.testing.assert_close(said.probs, torch.exp(logits) / torch.exp(logits).sum(-1, keepdim=True))
    torch.testing.assert_close(said.mean, torch.einsum("blv,vd->bld", logits.softmax(-1), table))
    expected = -logits.log_softmax(-1).gather(-1, ids[..., None])[..., 0] * where
    torch.testing.assert_close(said.nll(ids, where), expected)
    assert bool((said.nll(ids, where)[~where] == 0).all())


def test_chunked_nll_equals_whole_in_value_and_gradient(chunks):
    head, hidden, _, ids, where = _parts()
    nats = LazyPrediction(hidden, head).nll(ids, where)
    logits = hidden @ head.weight.T + head.bias
    whole = F.cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="none").view(B, L) * where
    torch.testing.assert_close(nats, whole)
    weight = torch.randn(B, L)
    sources = (hidden, head.weight, head.bias)
    torch.testing.assert_close(*(torch.autograd.grad((x * weight).sum(), sources) for x in (nats, whole)))


def test_chunked_mean_equals_whole_in_value_and_gradient(chunks):
    head, hidden, table, _, _ = _parts()
    mean = LazyPrediction(hidden, head, table).mean
    whole = (hidden @ head.weight.T + head.bias).softmax(-1) @ table
    torch.testing.assert_close(mean, whole)
    weight, sources = torch.randn(B, L, D), (hidden, head.weight, head.bias, table)
    torch.testing.assert_close(*(torch.autograd.grad((x * weight).sum(), sources) for x in (mean, whole)))


def test_logits_on_request_are_the_head_of_every_position():
    head, hidden, table, _, _ = _parts()
    said = LazyPrediction(hidden, head, table)
    torch.testing.assert_close(said.logits, hidden @ head.weight.T + head.bias)
    torch.testing.assert_close(said.probs @ table, said.mean)


def test_nll_at_no_position_is_zero_and_has_a_gradient(chunks):
    head, hidden, _, ids, where = _parts()
    nats = LazyPrediction(hidden, head).nll(ids, torch.zeros_like(where))
    assert torch.equal(nats, torch.zeros(B, L))
    nats.sum().backward()
    assert hidden.grad is not None
    assert float(hidden.grad.abs().max()) == 0.0


def test_no_rows_at_all(chunks):
    """A batch of one row may have nobody to self-condition."""
    head, hidden, table, ids, where = _parts()
    said = LazyPrediction(hidden[:0], head, table)
    assert said.mean.shape == (0, L, D)
    assert said.nll(ids[:0], where[:0]).shape == (0, L)


def test_low_precision_features_give_float32_answers(chunks):
    head, hidden, table, ids, where = _parts()
    said = LazyPrediction(hidden.bfloat16(), head, table)
    assert said.nll(ids, where).dtype == said.mean.dtype == said.logits.dtype == torch.float32


@pytest.mark.parametrize("interpolated", [False, True])
def test_a_regressed_state_is_fitted_and_what_is_read_from_it_may_go_on(interpolated):
    """Near the first of two rows, the mean of what was read is nearer to it, and the fitted state stays where it is."""
    codec = TableCodec(torch.tensor([[-4.0, 0.0], [4.0, 0.0]]))
    state = torch.tensor([[[-0.5, 1.0]]], requires_grad=True)
    said = X0Prediction(state, RoundingHead(codec), codec.table(), interpolated)
    assert said.x0_estimate is state
    odds = torch.tensor(-4.0).sigmoid()  # squared distances of 13.25 and 21.25, halved
    expected = torch.tensor([[[8.0 * odds - 4.0, 0.0]]]) if interpolated else state
    torch.testing.assert_close(said.mean, expected)
    torch.testing.assert_close(said.probs[0, 0, 1], odds)
    plain = Prediction(said.logits, codec.table())
    assert plain.x0_estimate is plain.mean


@pytest.mark.parametrize("code", ["base", "gray", "random"])
def test_bits_predict_words_and_only_those_of_tokens_are_read(code):
    """Against all 16 words by enumeration, of which 11 belong to a token."""
    codec = BitCodec(bits(V, 1.5, code), 1.5)
    odds = (3.0 * torch.randn(B, L, codec.dim)).requires_grad_()
    said = BitPrediction(odds, BitHead(codec), codec.table(), codec.scale)
    words = bits(16)
    law = torch.sigmoid(words * odds[..., None, :]).prod(-1)  # [b, l, 16]
    torch.testing.assert_close(law.sum(-1), torch.ones(B, L))
    torch.testing.assert_close(said.mean, 1.5 * law @ words)
    index = (codec.table()[:, None] == 1.5 * words).all(-1).long().argmax(-1)  # the word of each token
    used = law[..., index]
    torch.testing.assert_close(said.probs, used / used.sum(-1, keepdim=True))
    assert said.logits.shape[-1] == V
    ids, where = torch.randint(V, (B, L)), torch.rand(B, L) < 0.6
    nats = said.nll(ids, where)
    torch.testing.assert_close(nats, torch.where(where, -torch.log(used.gather(-1, ids[..., None])[..., 0]), 0.0))
    (gradient,) = torch.autograd.grad(nats.sum(), odds)
    assert bool(((gradient != 0).any(-1) == where).all())
