"""What is particular to the U-Net; that it keeps what every denoiser must is shown in test_denoisers."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.models import model_of
from textdiffusion import recipes
from textdiffusion.config.overrides import apply_overrides
from textdiffusion.core.batch import Batch
from textdiffusion.core.errors import UserError
from textdiffusion.core.registry import build
from textdiffusion.networks.attention import attention_mask
from textdiffusion.networks.backbone import Backbone
from textdiffusion.networks.unet import UNetConfig

L = 13


def _stirred(**options) -> Any:
    torch.manual_seed(0)
    net: Any = build(UNetConfig(width=32, **options))
    for p in net.parameters():
        p.data = torch.randn_like(p) * 0.2
    return net


@pytest.mark.parametrize("depth", [1, 3, 4])
@pytest.mark.parametrize("multipliers", [(1,), (1, 2), (1, 1, 2)])
def test_rows_of_any_length_keep_their_shape_and_see_all_of_themselves(multipliers, depth):
    net = _stirred(depth=depth, multipliers=multipliers)
    assert isinstance(net, Backbone)
    for length in (1, 2, 7, 8):
        x = torch.randn(2, length, 32, requires_grad=True)
        out = net(x, torch.rand(2), torch.arange(length)[None], None)
        assert out.shape == x.shape
        (gradient,) = torch.autograd.grad(out[:, 0].square().sum(), x)
        assert bool((gradient.abs().sum(-1) > 0).all())


def test_every_block_and_every_map_has_an_effect():
    """No dead block, as in the network this one replaces, and skips from each level."""
    net = _stirred()
    out = net(torch.randn(2, L, 32), torch.rand(2), torch.arange(L)[None], None)
    out.square().sum().backward()
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in net.parameters())
    seen = {
        name for name, p in net.named_parameters() if name.startswith("blocks") and name.endswith("shortcut.weight")
    }
    assert len(seen) == 4  # the blocks on the way up join what they get with what was kept


def test_the_noise_level_and_only_a_timed_network_reads_it():
    x, at = torch.randn(2, L, 32), torch.arange(L)[None]
    for modulation, same in (("film", False), ("none", True)):
        net = _stirred(modulation=modulation)
        early, late = (net(x, torch.full((2,), level), at, None) for level in (-1.0, 0.5))
        assert torch.equal(early, late) == same


def test_film_is_linear_and_may_hide_all_that_a_convolution_sees():
    """Scaled by 0, the second of a block sees its shift alone, bent once; so do features at the end, not bent."""
    net, level, shift = _stirred(), torch.tensor([0.3, 0.8]), torch.randn(32)
    block = net.blocks[0]
    for modulate in (block.modulate, net.modulate):
        torch.nn.init.zeros_(modulate.weight)
        modulate.bias.data = torch.cat((shift, torch.full((32,), -1.0)))
    x = torch.randn(2, L, 32)
    seen = block.conv2(torch.nn.functional.silu(shift).expand_as(x))
    torch.testing.assert_close(block(x, net.time(level), None), block.shortcut(x) + seen)
    torch.testing.assert_close(net(x, level, torch.arange(L)[None], None), shift.expand_as(x))


def test_nothing_is_seen_through_a_mask_of_segments():
    """Such rows are refused with the configuration; were one to come here, examples would still not mix."""
    net = _stirred()
    segments = torch.tensor([[0] * 6 + [1] * 7])
    mask = attention_mask("full", Batch(torch.zeros(1, L, dtype=torch.long), segment_ids=segments))
    x = torch.randn(1, L, 32)
    other = torch.where(segments[..., None] == 0, x, torch.randn_like(x))
    said, told = (net(states, torch.tensor([0.3]), torch.arange(L)[None], mask) for states in (x, other))
    torch.testing.assert_close(said[:, :6], told[:, :6])


def test_packing_and_orders_are_refused():
    config = apply_overrides(recipes.get("analog_bits")("unet"), ["text.layout=lines"])
    with pytest.raises(
        UserError, match=r"text\.packing works with backbone\.kind=transformer, not with unet: it would mix"
    ):
        replace(config, text=replace(config.text, packing=True))
    with pytest.raises(UserError, match=r"next_token_denoiser works with backbone\.kind=transformer, not with unet"):
        apply_overrides(recipes.get("autoregressive")(), ["backbone.kind=unet", "backbone.modulation=none"])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("backbone.multipliers=0", "multipliers is"),
        ("backbone.width=50", "backbone.width is 50"),
        ("backbone.depth=0", "depth"),
    ],
)
def test_sizes_that_cannot_be_are_refused(setting, message):
    with pytest.raises(UserError, match=message):
        apply_overrides(recipes.get("analog_bits")("unet"), [setting])


@pytest.mark.parametrize(
    ("part", "millions"),
    [(UNetConfig(), 1.08), (UNetConfig(width=128), 4.13), (UNetConfig(width=256, depth=6), 25.2)],
)
def test_sizes_are_those_that_are_documented(part, millions):
    with torch.device("meta"):
        assert sum(p.numel() for p in build(part).parameters()) / 1e6 == pytest.approx(millions, rel=0.01)


def test_the_matrices_of_its_blocks_are_muons():
    from textdiffusion.training.optimizers import block_matrices

    model = model_of(recipes.get("analog_bits")("unet"), 11)
    found = {name for name, p in model.denoiser.backbone.named_parameters() if p in block_matrices(model)}
    assert {"blocks.0.conv1.weight", "blocks.4.qkv.weight", "blocks.8.conv2.weight"} <= found
