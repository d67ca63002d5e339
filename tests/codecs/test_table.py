"""One table for bits, one-hot vectors, simplices and embeddings."""

import math

import pytest
import torch

from textdiffusion.codecs.table import TableCodec, bits, one_hot, simplex
from textdiffusion.codecs.tokens import TokenCodec

TABLES = {"bits": bits(5), "one-hot": one_hot(5), "simplex": simplex(5), "random": torch.randn(5, 7)}


@pytest.mark.parametrize("weight", TABLES.values(), ids=TABLES)
@pytest.mark.parametrize("normalise", [False, True])
def test_encode_and_mean_read_the_same_table(weight, normalise):
    codec = TableCodec(weight, normalise=normalise)
    ids = torch.tensor([[4, 0, 2], [1, 3, 3]])
    state = codec.encode(ids)
    torch.testing.assert_close(state, codec.table()[ids])
    torch.testing.assert_close(codec.mean(torch.nn.functional.one_hot(ids, 5).float()), state)
    torch.testing.assert_close(codec.norm, float(codec.table().square().sum(-1).mean().sqrt()))
    if normalise:
        torch.testing.assert_close(state.norm(dim=-1), torch.full((2, 3), math.sqrt(codec.dim)))


@pytest.mark.parametrize(("vocab", "width"), [(2, 1), (3, 2), (4, 2), (5, 3), (27, 5), (256, 8), (257, 9)])
def test_bits_are_the_binary_digits(vocab, width):
    table = bits(vocab, scale=2.0)
    assert table.shape == (vocab, width)
    assert set(table.unique().tolist()) <= {-2.0, 2.0}
    back = ((table > 0).long() * 2 ** torch.arange(width - 1, -1, -1)).sum(-1)
    assert torch.equal(back, torch.arange(vocab))


def test_simplex_is_almost_one_hot_logits():
    assert simplex(3, 5.0).tolist() == [[5, -5, -5], [-5, 5, -5], [-5, -5, 5]]
    assert torch.equal(one_hot(3), torch.eye(3))


def test_only_learned_tables_learn_and_their_norm_does_not_grow():
    assert not any(p.requires_grad for p in TableCodec(bits(4)).parameters())
    codec = TableCodec(torch.randn(4, 6) * 1e-3, learned=True, normalise=True)
    state = codec.encode(torch.tensor([[1, 1, 2]]))
    (gradient,) = torch.autograd.grad((state * torch.randn(6)).sum(), codec.weight)
    torch.testing.assert_close((gradient * codec.weight).sum(-1), torch.zeros(4), atol=1e-3, rtol=0)
    assert bool((gradient[[0, 3]] == 0).all())


def test_tokens_are_their_own_state():
    ids = torch.tensor([[1, 2]])
    assert TokenCodec(3).encode(ids) is ids
