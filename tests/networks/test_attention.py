"""Masks against their definition in loops; rotary positions; the two attention backends."""

import pytest
import torch

from textdiffusion.core.batch import Batch, position_ids
from textdiffusion.networks.attention import attend, attention_mask, rotary, rotate

REAL = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0]]).bool()
SEGMENTS = torch.tensor([[0, 0, 0, 1, 1, 2], [0, 1, 1, 1, 2, 2], [0, 0, 0, 0, 0, 0]])
EQUAL = torch.tensor([[0, 0, 1, 1, 2, 2]]).expand(3, 6)  # what the seed's masks, matched by length, took for one
BATCHES = {
    "plain": Batch(torch.zeros(3, 6, dtype=torch.long)),
    "padded": Batch(torch.zeros(3, 6, dtype=torch.long), valid_mask=REAL),
    "packed": Batch(torch.zeros(3, 6, dtype=torch.long), segment_ids=SEGMENTS),
    "packed, equal in length": Batch(torch.zeros(3, 6, dtype=torch.long), segment_ids=EQUAL),
    "packed and padded": Batch(torch.zeros(3, 6, dtype=torch.long), valid_mask=REAL, segment_ids=SEGMENTS),
}


def _may_look(kind, i, j, block, copies):
    """Whether query i may look at key j of its example, padding aside; `copies` are theirs in two_stream, 0 or 1."""
    if kind == "full":
        return True
    if kind == "causal":
        return j <= i
    query, key = i // block, j // block
    if kind == "block_causal":
        return key <= query
    # A noised query: its own noised block, and clean blocks before it.
    return {(0, 0): key == query, (0, 1): key < query, (1, 0): False, (1, 1): key <= query}[copies]


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize(
    ("kind", "block"), [("full", 1), ("causal", 1), ("block_causal", 2), ("block_causal", 4), ("two_stream", 2)]
)
def test_masks_are_their_definition(kind, block, batch):
    mask = attention_mask(kind, batch, block)
    if kind == "full" and batch.valid_mask is None and batch.segment_ids is None:
        assert mask is None
        return
    assert mask is not None
    rows, length = batch.tokens.shape
    size = 2 * length if kind == "two_stream" else length
    mask = mask.expand(rows, 1, size, size)
    for b in range(rows):
        for i in range(size):
            for j in range(size):
                x, y = i % length, j % length
                first = [0, 0]  # where the examples of the two positions begin
                if batch.segment_ids is not None:
                    first = [int((batch.segment_ids[b] == batch.segment_ids[b, at]).nonzero()[0]) for at in (x, y)]
                expected = _may_look(kind, x - first[0], y - first[1], block, (i // length, j // length))
                if batch.segment_ids is not None:
                    expected &= bool(batch.segment_ids[b, x] == batch.segment_ids[b, y])
                if batch.valid_mask is not None and x != y:
                    expected &= bool(batch.valid_mask[b, y])
                assert bool(mask[b, 0, i, j]) == expected, (b, i, j)
    assert bool(mask.any(-1).all())  # nobody is left with nothing to look at


def test_positions_count_from_zero_in_each_segment():
    assert position_ids(BATCHES["plain"]).tolist() == [[0, 1, 2, 3, 4, 5]]
    assert position_ids(BATCHES["packed"]).tolist() == [[0, 1, 2, 0, 1, 0], [0, 0, 1, 2, 0, 1], [0, 1, 2, 3, 4, 5]]


def test_rotary_scores_depend_on_the_distance_alone():
    draw = torch.Generator().manual_seed(0)
    q, k = torch.randn(1, 1, 1, 64, generator=draw), torch.randn(1, 1, 1, 64, generator=draw)

    def score(i, j):
        turned = [rotate(x, rotary(torch.tensor([[at]]), 64)) for x, at in ((q, i), (k, j))]
        return float((turned[0] * turned[1]).sum())

    for distance in (-7, 0, 1, 30):
        scores = [score(at, at + distance) for at in (10, 55, 400)]
        assert scores == pytest.approx([scores[0]] * 3, abs=1e-3)
    assert score(3, 3) == pytest.approx(float((q * k).sum()), abs=1e-4)
    assert score(3, 4) != pytest.approx(score(4, 3), abs=1e-3)
    turned = rotate(q, rotary(torch.tensor([[123]]), 64))
    torch.testing.assert_close(turned.norm(), q.norm())


@pytest.mark.parametrize("masked", [False, True])
def test_both_backends_attend_alike(masked):
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(3, 2, 6, 8, generator=draw).requires_grad_() for _ in range(3))
    mask = attention_mask("causal", BATCHES["padded"]) if masked else None
    plain = attend(q, k, v, mask)  # with gradients on a CPU: matrix products
    with torch.no_grad():
        fused = attend(q, k, v, mask)
    torch.testing.assert_close(plain.detach(), fused)
    allowed = torch.ones(3, 1, 6, 6, dtype=torch.bool) if mask is None else mask
    weights = torch.exp(q @ k.transpose(-1, -2) / 8**0.5) * allowed
    torch.testing.assert_close(plain, weights / weights.sum(-1, keepdim=True) @ v)
    reference = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    weight = torch.randn(3, 2, 6, 8, generator=draw)
    grads = [torch.autograd.grad((x * weight).sum(), (q, k, v)) for x in (plain, reference)]
    torch.testing.assert_close(*grads)
