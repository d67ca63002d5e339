"""Models that do not fit into one GPU: every process holds a part of each tensor (FSDP2, `fully_shard`).

The weights of a block are gathered when it runs and given up after it; gradients, optimizer state and averages stay
divided. Noise parameters (a few numbers that are used outside the blocks) are complete everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..config.config import Config
from ..core.batch import Batch
from ..core.randomness import Rng
from ..core.shards import is_sharded, local, with_local
from ..diffusion.model import DiffusionModel
from ..objectives.base import Loss
from ..storage.weights import ParameterSlots, tensors_of
from .distributed import Distributed
from .memory import StateBytes
from .optimizers import EMA, named_tensors, noise_parameters

T = TypeVar("T")


def must_shard(config: Config, vocab_size: int, device: torch.device) -> bool:
    """Whether `training.parallel` asks for a divided model, or leaves it to the size of the model and the GPU."""
    if config.training.parallel != "auto" or device.type != "cuda":
        return config.training.parallel == "fsdp"
    total = torch.cuda.get_device_properties(device).total_memory
    return StateBytes.of(config, vocab_size).total > 0.5 * total


class Sharded(Distributed):
    """One of the processes of torchrun, among which the model is divided."""

    shards = True

    def shard(self, model: DiffusionModel, device: torch.device) -> None:
        """Divides a model among the ranks and moves it to the device. Only the first rank's weights count.

        Those of the other ranks may be on the meta device. A rank holds its part of the model and, for a moment, one
        block, or all that is outside the blocks.
        """
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(device.type, (self.size,))
        for module in model.modules():
            for name, buffer in module._buffers.items():
                module._buffers[name] = None if buffer is None else self._from_first(buffer, device)
        slots = ParameterSlots(model)
        self._root = _Root(model)
        for unit in (*model.denoiser.backbone.blocks, self._root):
            for parameter in [p for p in unit.parameters() if not is_sharded(p)]:
                slots.replace(parameter, self._from_first(parameter.detach(), device))
            fully_shard(unit, mesh=mesh, ignored_params=set(noise_parameters(model)))

    def _from_first(self, tensor: Tensor, device: torch.device) -> Tensor:
        value = tensor.to(device) if self.rank == 0 else torch.empty_like(tensor, device=device)
        self.dist.broadcast(value, 0)
        return value

    def wrap(self, step: nn.Module, device: torch.device) -> nn.Module:
        return _ShardedStep(self._root, step)

    def no_sync(self, step: nn.Module) -> AbstractContextManager[object]:
        """Gradients are averaged after every part of a batch: complete ones would take as much memory as the model."""
        return nullcontext()

    @torch.no_grad()
    def call(self, function: Callable[..., T], *arguments: object) -> T:
        result = self._root(function, *arguments)
        self._root.reshard()
        return result

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        for parameter in parameters:
            if parameter.grad is not None:
                self.dist.all_reduce(parameter.grad)
                parameter.grad /= self.size


class _Root(nn.Module):
    """Runs functions that use a model while what is outside its blocks is complete."""

    reshard: Callable[[], None]  # of what `fully_shard` turns it into

    def __init__(self, model: DiffusionModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)


class _ShardedStep(nn.Module):
    def __init__(self, root: _Root, step: nn.Module) -> None:
        super().__init__()
        self.root, self.training_step = root, step

    def forward(self, batch: Batch, rng: Rng) -> Loss:
        return Loss(*self.root(self._tensors, batch, rng))

    def _tensors(self, batch: Batch, rng: Rng) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss in a form in which `fully_shard` sees the tensor that the backward pass begins with."""
        loss = self.training_step(batch, rng)
        return loss.total, loss.parts


class ShardedEMA(EMA):
    """The average of a divided model: only its numbers, which change places with the model's where they are used."""

    def __init__(self, model: DiffusionModel, decay: float) -> None:
        self.model, self.decay = model, decay
        frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
        source = {name: local(tensor) for name, tensor in named_tensors(model).items() if name not in frozen}
        self._average = {name: tensor.clone() for name, tensor in source.items()}
        self._follow(source, self._average)

    def tensors(self) -> dict[str, Tensor]:
        named = tensors_of(self.model)
        average = {name: self._average.get(name, tensor) for name, tensor in named.items()}
        return {name: with_local(average[name], t) if is_sharded(t) else average[name] for name, t in named.items()}

    @contextmanager
    def applied(self) -> Iterator[DiffusionModel]:
        was_training = self.model.training
        self._exchange()
        try:
            yield self.model.eval()
        finally:
            self._exchange()
            self.model.train(was_training)

    def _exchange(self) -> None:
        pairs = [*zip(self._source, self._target, strict=True), *self._copied]
        for one, other in pairs:
            previous = one.clone()
            one.copy_(other)
            other.copy_(previous)
