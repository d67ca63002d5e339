"""How much memory a training takes on one GPU and on several: what it holds, and what a row of the batch adds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from ..config.build import build_outline
from ..config.config import Config
from ..core.registry import build
from ..diffusion.blocks import BlockAbsorbing
from .optimizers import block_matrices

USABLE = 0.9  # of a GPU: the rest is for its context, workspaces and gaps between tensors
_LOGITS_BYTES = 12  # of one logit at the peak: itself, its log probability and its gradient, in float32


@dataclass(frozen=True)
class StateBytes:
    """Bytes that do not depend on the batch, of the complete model.

    `block` and `outside` are those of the weights and gradients of the largest block and of all that is outside the
    blocks.
    """

    parameters: int
    trainable: int
    weights: int
    gradients: int
    optimizer: int
    average: int
    block: int
    outside: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.average

    @property
    def gathered(self) -> int:
        """What a rank of a divided model holds complete for a moment: two blocks, and what is outside the blocks."""
        return 2 * self.block + self.outside

    @staticmethod
    def of(config: Config, vocab_size: int) -> StateBytes:
        """Those of a configuration. Nothing is allocated."""
        model = build_outline(config, vocab_size)
        parameters = list(model.parameters())
        trained = [p for p in parameters if p.requires_grad]
        matrices = block_matrices(model) if config.training.optimizer == "muon" else {}
        blocks = [_weights_and_gradients(block.parameters()) for block in model.denoiser.backbone.blocks]
        return StateBytes(
            parameters=sum(p.numel() for p in parameters),
            trainable=sum(p.numel() for p in trained),
            weights=_bytes(parameters),
            gradients=_bytes(trained),
            optimizer=sum(_bytes([p]) * (1 if p in matrices else 2) for p in trained),
            average=_bytes(trained),
            block=max(blocks),
            outside=_weights_and_gradients(parameters) - sum(blocks),
        )


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _weights_and_gradients(parameters: Iterable[nn.Parameter]) -> int:
    return sum(_bytes([p]) * (2 if p.requires_grad else 1) for p in parameters)


@dataclass(frozen=True)
class ActivationBytes:
    """Bytes kept for the backward pass: by each row of a batch, and once (weights in a shorter type)."""

    row: int
    row_checkpointed: int
    """With gradient checkpointing: the input of every block, and all of one block."""
    row_logits: int
    """The logits of a row, all of whose tokens are predicted."""
    once: int

    @staticmethod
    def of(config: Config, vocab_size: int, dtype: torch.dtype) -> ActivationBytes:
        """Those of a configuration computed in `dtype`. The backbone runs on tensors that have shapes but no numbers.

        Networks of one and two blocks, and batches of one and two rows, give the rest: all blocks are alike.
        """
        small, deeper, wider = (
            _saved_bytes(config, vocab_size, dtype, depth, rows) for depth, rows in ((1, 1), (2, 1), (1, 2))
        )
        both = _saved_bytes(config, vocab_size, dtype, 2, 2)
        row_block, row = both - deeper - (wider - small), wider - small
        block, others = row_block, row - row_block
        once_block = deeper - small - row_block
        depth, tokens = config.backbone.depth, config.text.length
        inputs = _copies(config) * tokens * config.backbone.width * dtype.itemsize
        passes = _passes(config)
        return ActivationBytes(
            row=passes * (others + depth * block),
            row_checkpointed=passes * (others + depth * inputs) + block,
            row_logits=passes * tokens * vocab_size * _LOGITS_BYTES,
            once=small - row + (depth - 1) * once_block,
        )


def _passes(config: Config) -> int:
    """How many times a step runs the network on a row."""
    return 2 if getattr(config.objective, "complementary", False) else 1


def _copies(config: Config) -> int:
    """How many copies of a text the network reads at once."""
    return 2 if isinstance(config.process, BlockAbsorbing) else 1


def _saved_bytes(config: Config, vocab_size: int, dtype: torch.dtype, depth: int, rows: int) -> int:
    """What the backward pass of a backbone of `depth` blocks keeps of `rows` rows, besides parameters."""
    from torch._subclasses import FakeTensorMode

    settings = config.backbone.resized(depth)
    # Checkpointed activations would not be seen, and `peft` cannot move tensors without numbers: for an adapter these
    # are the activations of training all weights.
    changed: dict[str, Any] = {"gradient_checkpointing": False, "lora_rank": 0, "lora_alpha": 0.0, "lora_targets": ()}
    settings = replace(settings, **{name: value for name, value in changed.items() if hasattr(settings, name)})
    storages: dict[int, tuple[int, Any]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage._cdata] = storage.nbytes(), tensor
        return tensor

    length = _copies(config) * config.text.length
    with FakeTensorMode():
        backbone = build(settings, vocab_size=vocab_size)
        backbone.compute_dtype = dtype
        x = torch.empty(rows, length, settings.width, requires_grad=True)
        noise_level = None if backbone.modulation == "none" else torch.zeros(rows)
        positions = torch.arange(length)[None]
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            hidden = backbone(x, noise_level, positions, None)
        parameters = {p.untyped_storage()._cdata for p in backbone.parameters()}
        del hidden
    return sum(size for key, (size, _) in storages.items() if key not in parameters)


@dataclass(frozen=True)
class Layout:
    """The bytes of one GPU under a way to use several of them, and how many rows fit beside them."""

    name: str
    weights: int
    gradients: int
    optimizer: int
    average: int
    gathered: int
    """Complete weights and gradients that a rank of a divided model holds for a moment."""
    free: int
    """Of the usable memory; negative if it does not suffice."""
    rows: int
    """Rows of a micro-batch that fit."""
    rows_checkpointed: int

    @property
    def fits(self) -> bool:
        return max(self.rows, self.rows_checkpointed) > 0


def layouts(state: StateBytes, activations: ActivationBytes, gpus: int, memory: int) -> list[Layout]:
    """One GPU of `memory` bytes, and `gpus` of them with complete models (ddp) and with a divided one (fsdp)."""
    result = []
    for name, parts, gathered in (("one GPU", 1, 0), ("ddp", 1, state.gradients), ("fsdp", gpus, state.gathered)):
        if gpus == 1 and name != "one GPU":
            continue
        once = activations.once if parts == 1 else min(activations.once, 2 * state.block)
        free = int(USABLE * memory) - -(-state.total // parts) - gathered - once
        rows, checkpointed = (
            max(0, free // (row + activations.row_logits)) for row in (activations.row, activations.row_checkpointed)
        )
        names = ("weights", "gradients", "optimizer", "average")
        sizes = {part: -(-getattr(state, part) // parts) for part in names}
        result.append(Layout(name, **sizes, gathered=gathered, free=free, rows=rows, rows_checkpointed=checkpointed))
    return result
