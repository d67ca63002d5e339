"""One table for bits, one-hot vectors, simplices and embeddings."""

import math
from typing import get_args

import pytest
import torch

from textdiffusion.diffusion.codecs import TokenCodec
from textdiffusion.diffusion.table_codecs import BitCodec, EmbeddingCodec, Normalisation, SimplexCodec, TableCodec, bits

TABLES = {"bits": bits(5), "one-hot": torch.eye(5), "random": torch.randn(5, 7)}


@pytest.mark.parametrize("weight", TABLES.values(), ids=TABLES)
@pytest.mark.parametrize("normalise", get_args(Normalisation))
def test_encode_and_mean_read_the_same_table(weight, normalise):
    if normalise in ("layer", "affine"):
        weight = weight + torch.arange(weight.shape[1])  # a row of equal bits has no variance to normalise
    codec = EmbeddingCodec(weight, normalise=normalise)
    ids = torch.tensor([[4, 0, 2], [1, 3, 3]])
    state = codec.encode(ids)
    torch.testing.assert_close(state, codec.table()[ids])
    torch.testing.assert_close(codec.mean(torch.nn.functional.one_hot(ids, 5).float()), state)
    torch.testing.assert_close(codec.norm, float(codec.table().square().sum(-1).mean().sqrt()))
    if normalise != "none":
        torch.testing.assert_close(state.norm(dim=-1), torch.full((2, 3), math.sqrt(codec.dim)))


@pytest.mark.parametrize(("vocab_size", "width"), [(2, 1), (3, 2), (4, 2), (5, 3), (27, 5), (256, 8), (257, 9)])
def test_bits_are_the_binary_digits(vocab_size, width):
    table = bits(vocab_size, scale=2.0)
    assert table.shape == (vocab_size, width)
    assert set(table.unique().tolist()) <= {-2.0, 2.0}
    back = ((table > 0).long() * 2 ** torch.arange(width - 1, -1, -1)).sum(-1)
    assert torch.equal(back, torch.arange(vocab_size))


@pytest.mark.parametrize("code", ["base", "gray", "random"])
@pytest.mark.parametrize("vocab_size", [2, 3, 5, 8, 27, 300])
def test_code_words_belong_to_one_token_each(code, vocab_size):
    table = bits(vocab_size, 0.5, code)
    assert table.shape == bits(vocab_size).shape
    assert table.abs().unique().tolist() == [0.5]
    assert len(table.unique(dim=0)) == vocab_size
    codec = BitCodec(table, 0.5)
    assert codec.norm == pytest.approx(TableCodec(table).norm)
    assert codec.scale == pytest.approx(0.5)
    ids = torch.arange(vocab_size)[None]
    # A state with less noise than half of the distance of two words is read back.
    noisy = codec.encode(ids) + 0.2 * (2 * torch.rand(1, vocab_size, codec.dim) - 1)
    assert torch.equal(codec.evidence(noisy, torch.ones(())).argmax(-1), ids)


def test_neighbours_in_gray_code_differ_in_one_bit():
    assert ((bits(300, code="gray").diff(dim=0) != 0).sum(-1) == 1).all()
    assert not ((bits(300).diff(dim=0) != 0).sum(-1) == 1).all()


def test_simplex_is_almost_one_hot_logits_less_a_constant():
    assert (SimplexCodec(3, 5.0).table() - 5.0).tolist() == [[5, -5, -5], [-5, 5, -5], [-5, -5, 5]]


def test_only_learned_tables_learn_and_their_norm_does_not_grow():
    assert not any(p.requires_grad for p in TableCodec(bits(4)).parameters())
    codec = EmbeddingCodec(torch.randn(4, 6) * 1e-3, learned=True, normalise="l2")
    state = codec.encode(torch.tensor([[1, 1, 2]]))
    (gradient,) = torch.autograd.grad((state * torch.randn(6)).sum(), codec.weight)
    torch.testing.assert_close((gradient * codec.weight).sum(-1), torch.zeros(4), atol=1e-3, rtol=0)
    assert bool((gradient[[0, 3]] == 0).all())


@pytest.mark.parametrize("std", [1e-9, 1e-3, 1.0])
def test_layer_normed_rows_have_unit_variance_however_small_the_table_is(std):
    """An eps of 1e-5 under the root leaves the seed's initial table of 0.001 at a standard deviation of 0.3."""
    weight = torch.randn(5, 16, generator=torch.Generator().manual_seed(0)) * std
    rows = EmbeddingCodec(weight, normalise="layer").table()
    torch.testing.assert_close(rows.mean(-1), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(rows.std(-1, unbiased=False), torch.ones(5))
    torch.testing.assert_close(rows, torch.nn.functional.layer_norm(weight.double(), (16,), eps=0.0).float())
    assert torch.equal(EmbeddingCodec(weight, normalise="affine").table(), rows)


def test_gain_and_shift_learn_with_the_table_and_leave_the_unit_of_noise():
    codec = EmbeddingCodec(torch.randn(4, 6), learned=True, normalise="affine")
    codec.load_state_dict({**codec.state_dict(), "gain": torch.full((6,), 0.5), "shift": torch.full((6,), 2.0)})
    plain = EmbeddingCodec(codec.weight.detach(), normalise="layer").table()
    torch.testing.assert_close(codec.table(), 0.5 * plain + 2.0)
    assert codec.norm == math.sqrt(6)
    codec.encode(torch.tensor([[1]])).square().sum().backward()
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in codec.parameters())
    assert not any(p.requires_grad for p in EmbeddingCodec(torch.randn(4, 6), normalise="affine").parameters())


def test_tokens_are_their_own_state():
    ids = torch.tensor([[1, 2]])
    assert TokenCodec(3).encode(ids) is ids
