"""Where blocks begin, and the times inside them."""

import pytest
import torch

from textdiffusion.core.batch import Batch
from textdiffusion.core.randomness import Rng
from textdiffusion.diffusion.alpha_schedules import CosineAlpha, Linear
from textdiffusion.diffusion.blocks import BlockProcess

IDS = torch.zeros(2, 7, dtype=torch.long)
SEGMENTS = torch.tensor([[0, 0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1, 2]])


def _process(block, schedule=None):
    return BlockProcess(5, schedule or Linear(), block)


def test_blocks_begin_with_their_example():
    assert _process(3).block_starts(Batch(IDS)).tolist() == [[0, 0, 0, 3, 3, 3, 6]]
    packed = Batch(IDS, segment_ids=SEGMENTS)
    assert _process(2).block_starts(packed).tolist() == [[0, 0, 2, 3, 3, 5, 5], [0, 1, 1, 3, 3, 5, 6]]
    assert _process(9).block_starts(packed).tolist() == [[0, 0, 0, 3, 3, 3, 3], [0, 1, 1, 1, 1, 1, 6]]


def test_text_is_masked_from_the_right_a_block_at_a_time():
    process, rows = _process(2), 4000
    ids = torch.ones(rows, 7, dtype=torch.long)
    for t, shares in ((1.0, [1] * 7), (0.625, [0, 0, 0.5, 0.5, 1, 1, 1]), (0.5, [0, 0, 0, 0, 1, 1, 1]), (0.0, [0] * 7)):
        masked = (process.add_noise(ids, torch.full((rows,), t), rng=Rng.of(0, rows)) == 5).float().mean(0)
        torch.testing.assert_close(masked, torch.tensor(shares, dtype=torch.float32), atol=0.03, rtol=0)
        nats = process.log_likelihood(torch.full_like(ids, 5), ids, torch.full((rows,), t))[0]
        torch.testing.assert_close(nats.exp(), torch.tensor(shares, dtype=torch.float32))


def test_one_block_is_the_absorbing_process():
    process, ids, t = _process(7, CosineAlpha()), IDS + 1, torch.tensor([0.3, 0.8])
    rng = Rng.of(0, 2)
    assert torch.equal(process.add_noise(ids, t, rng=rng), process.inside.add_noise(ids, t, rng=rng))
    assert torch.equal(
        process.stratified_uniforms(Batch(ids), rng=rng),
        process.inside.stratified_uniforms(Batch(ids), rng=rng).expand(2, 7),
    )


@pytest.mark.parametrize("block", [2, 3, 7])
def test_levels_are_spread_over_blocks_and_rows(block):
    rows, blocks = 50, -(-7 // block)
    batch = Batch(torch.zeros(rows, 7, dtype=torch.long))
    levels = _process(block).stratified_uniforms(batch, rng=Rng.of(0, rows))
    first = levels[:, ::block]
    assert torch.equal(levels, first.repeat_interleave(block, dim=1)[:, :7])  # one for each block
    gaps = first.flatten().sort().values.diff()
    torch.testing.assert_close(gaps, torch.full_like(gaps, 1 / (rows * blocks)), atol=1e-5, rtol=0)
    inside = first.sort(1).values * blocks - torch.arange(blocks)  # each row has one in each share
    assert bool(((inside >= 0) & (inside <= 1)).all())
    assert first.mean(0).tolist() == pytest.approx([0.5] * blocks, abs=0.15)  # no block is always early
    part = Batch(batch.tokens[:2], row_ids=torch.tensor([4, 9]), global_batch_size=rows)
    assert torch.equal(_process(block).stratified_uniforms(part, rng=Rng.of(0, torch.tensor([4, 9]))), levels[[4, 9]])


def test_levels_of_packed_rows_are_one_for_each_block_and_do_not_depend_on_other_rows():
    packed = Batch(IDS, segment_ids=SEGMENTS, global_batch_size=2)
    levels, starts = _process(2).stratified_uniforms(packed, rng=Rng.of(0, 2)), _process(2).block_starts(packed)
    for row in range(2):
        assert len(set(levels[row].tolist())) == len(set(starts[row].tolist()))
        alone = Batch(IDS[[row]], segment_ids=SEGMENTS[[row]], global_batch_size=2)
        assert torch.equal(_process(2).stratified_uniforms(alone, rng=Rng.of(0, torch.tensor([row]))), levels[[row]])
