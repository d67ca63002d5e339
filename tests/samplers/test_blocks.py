"""What is particular to sampling block after block; its law is tested in tests/exact/test_blocks.py."""

from dataclasses import replace

import pytest
import torch

from tests.models import model_of
from textdiffusion import recipes
from textdiffusion.config.overrides import apply_overrides
from textdiffusion.core.batch import Batch
from textdiffusion.core.errors import UserError
from textdiffusion.core.randomness import Rng
from textdiffusion.samplers.base import Request
from textdiffusion.samplers.blocks import BlockAncestral

VOCAB, ROWS = 9, 3


def _model(block, length=8):
    settings = [f"process.block_size={block}", f"text.length={length}", "backbone.width=64", "backbone.depth=1"]
    torch.manual_seed(0)
    model = model_of(apply_overrides(recipes.get("block_diffusion")(), settings), VOCAB)
    for p in model.denoiser.parameters():
        p.data = torch.randn(p.shape) * 0.1
    return model.eval().requires_grad_(False)


def _run(model, length, steps=None, **batch):
    request = Request.blank(ROWS, length, steps or length)
    request = replace(request, batch=replace(request.batch, **batch))
    return list(BlockAncestral()(model, request, rng=Rng.of(0, ROWS)))


@pytest.mark.parametrize(("steps", "block"), [(9, 4), (3, 4), (9, 1), (20, 2)])
def test_blocks_are_finished_one_after_the_other(steps, block):
    made = _run(_model(block, 16), 9, steps)
    assert [s.index for s in made] == list(range(steps + 1))
    blocks = -(-9 // block)
    for step in made:
        begun = (step.tokens < VOCAB).nonzero()[:, 1]
        number = int(begun.max()) // block if len(begun) else 0
        assert bool((step.tokens[:, : number * block] < VOCAB).all())  # all earlier blocks are whole
    for number in range(blocks):
        whole = made[steps * (number + 1) // blocks]
        assert bool((whole.tokens[:, : (number + 1) * block] < VOCAB).all())
        assert whole.t == pytest.approx(1 - (number + 1) / blocks)
    assert made[-1].nfe <= min(steps, 9)


@pytest.mark.parametrize("block", [1, 2, 3, 4, 8])
def test_text_may_be_longer_than_a_window(block):
    """Its beginning is that of a shorter one, and no position is used that training did not see."""
    model, seen = _model(block), []
    model.denoiser.backbone.register_forward_pre_hook(lambda m, args: seen.append((args[2].min(), args[2].max())))
    long = _run(model, 24)[-1].tokens
    assert bool((long < VOCAB).all())
    assert max(int(high) for _, high in seen) == 8 // block * block - 1
    short = _run(model, 8 // block * block)[-1].tokens
    assert torch.equal(long[:, : short.shape[1]], short)


def test_a_long_text_goes_on_from_half_a_window():
    """What follows a full window is said by the same network of a text that began with the window's last half."""
    model, said = _model(2), []
    model.denoiser.head.register_forward_hook(lambda m, args, out: said.append(out))
    steps = _run(model, 10, 5)  # a step for each block of 2: one call each
    half = Batch(steps[-1].tokens[:, 4:8])
    blank = torch.full((ROWS, 2), VOCAB)
    last = said[4]
    begun = model.denoiser.begin(blank).append(half)
    expected = begun(blank, torch.ones(ROWS), batch=Batch(blank, row_ids=torch.arange(ROWS))).logits
    torch.testing.assert_close(last.view_as(expected), expected)


def test_what_cannot_be_done_is_refused():
    model = _model(4)
    with pytest.raises(UserError, match="1 steps for 2 blocks of 4 tokens"):
        _run(model, 8, 1)
    with pytest.raises(UserError, match="Packed rows"):
        _run(model, 8, segment_ids=torch.zeros(ROWS, 8, dtype=torch.long))
