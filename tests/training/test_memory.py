"""The memory that `textdiffusion plan` prints, against that of real steps."""

from dataclasses import replace

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from tests.models import model_of
from textdiffusion.config.overrides import apply_overrides
from textdiffusion.core.batch import Batch
from textdiffusion.core.randomness import Rng
from textdiffusion.training.memory import ActivationBytes, StateBytes, layouts
from textdiffusion.training.optimizers import EMA, Optimizers

from .tiny import tiny

VOCAB, LENGTH = 24, 64
SETTINGS = {
    "mdlm": ("backbone.depth=3",),
    "cdcd": ("backbone.depth=3",),
    "block_diffusion": ("backbone.depth=3", "process.block_size=16"),
    "adapted": ("backbone.depth=3",),
}


def config_of(recipe, folder, *settings):
    config = tiny(recipe, folder)
    config = replace(config, text=replace(config.text, length=LENGTH))
    return apply_overrides(config, [*SETTINGS[recipe], *settings])


def saved_bytes(model, config, rows: int) -> int:
    """What a real step keeps for its backward pass, besides parameters."""
    sizes: dict[int, tuple[int, torch.Tensor]] = {}

    def keep(tensor):
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes(), tensor
        return tensor

    tokens = torch.randint(VOCAB, (rows, LENGTH), generator=torch.Generator().manual_seed(0))
    batch = Batch(tokens, row_ids=torch.arange(rows), global_batch_size=rows)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        config.objective(model, batch, rng=Rng.of(0, rows))
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    return sum(size for key, (size, _) in sizes.items() if key not in parameters)


@pytest.mark.parametrize("recipe", SETTINGS)
def test_activations_are_those_of_a_real_step(recipe, tmp_path):
    config = config_of(recipe, tmp_path)
    model = model_of(config, VOCAB).train()
    predicted = ActivationBytes.of(config, VOCAB, torch.float32)
    measured = saved_bytes(model, config, 8) - saved_bytes(model, config, 4)
    assert 4 * predicted.row == pytest.approx(measured, rel=0.15)


@pytest.mark.parametrize("settings", [(), ("training.optimizer=muon",), ("backbone.lora_rank=2",)])
def test_the_state_is_that_of_a_real_training(settings, tmp_path):
    recipe = "adapted" if "lora" in str(settings) else "mdlm"
    config = config_of(recipe, tmp_path, *settings)
    model = model_of(config, VOCAB)
    optimizers, average = Optimizers(model, config.training), EMA(model, 0.9)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    gradients = sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    optimizers.step(1.0)
    state = StateBytes.of(config, VOCAB)
    assert state.parameters == sum(p.numel() for p in model.parameters())
    assert state.weights == sum(p.nbytes for p in model.parameters())
    assert state.gradients == gradients
    assert state.optimizer == sum(t.nbytes for t in optimizers.tensors().values() if t.ndim)
    own = {p.data_ptr() for p in model.parameters()}
    assert state.average == sum(p.nbytes for p in average.model.parameters() if p.data_ptr() not in own)


def test_more_fits_the_more_is_divided(tmp_path):
    config = config_of("mdlm", tmp_path)
    state, activations = StateBytes.of(config, VOCAB), ActivationBytes.of(config, VOCAB, torch.bfloat16)
    enough = int(1.2 * state.total / 0.9)
    one, ddp, fsdp = layouts(state, activations, 4, enough)
    assert one.free == int(0.9 * enough) - state.total - activations.once
    assert ddp.free == one.free - state.gradients  # reduced in buckets beside the gradients
    assert fsdp.weights == -(-state.weights // 4)
    assert not ddp.fits
    assert fsdp.rows_checkpointed > fsdp.rows > one.rows
    assert [plan.name for plan in layouts(state, activations, 1, enough)] == ["one GPU"]
