"""Several processes as one run: torchrun starts one per device, DistributedDataParallel averages the gradients."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..core.devices import choose_device

T = TypeVar("T")


class SingleProcess:
    """A run of one process, which needs no communication."""

    rank = local_rank = 0
    size = 1
    shards = False
    """Every rank holds a part of each tensor of the model, and all must do the same with it at the same time."""

    def device(self, name: str) -> torch.device:
        """The device of this process (see `choose_device`); makes a GPU the current one."""
        device = choose_device(name, self.local_rank)
        if device.type == "cuda":  # otherwise code that names no index, such as NCCL, takes memory on the first GPU
            torch.cuda.set_device(device)
        return device

    def wrap(self, step: nn.Module, device: torch.device) -> nn.Module:
        """A module whose backward pass averages the gradients over the ranks."""
        return step

    def no_sync(self, step: nn.Module) -> AbstractContextManager[object]:
        """Inside, backward passes only accumulate gradients on each rank."""
        return nullcontext()

    def call(self, function: Callable[..., T], *arguments: object) -> T:
        """The value of a function that uses the model outside the training step; nothing is learned from it."""
        return function(*arguments)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Averages the gradients of parameters over the ranks, unless the backward pass has done so."""

    def sum(self, values: Tensor) -> Tensor:
        """The sum over ranks, on every rank. `values` are on the CPU."""
        return values

    def barrier(self) -> None:
        """Waits for all ranks."""


class Distributed(SingleProcess):
    """One of the processes that torchrun started. All runs of these processes share one process group."""

    def __init__(self) -> None:
        import torch.distributed as dist

        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        if not dist.is_initialized():  # a second group would wait forever at the first one's addresses
            dist.init_process_group(backend)
            atexit.register(dist.destroy_process_group)
        self.dist = dist
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.local_rank = int(os.environ["LOCAL_RANK"])

    def wrap(self, step: nn.Module, device: torch.device) -> nn.Module:
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(step, device_ids=[device.index] if device.type == "cuda" else None)

    def no_sync(self, step: nn.Module) -> AbstractContextManager[object]:
        no_sync = getattr(step, "no_sync", nullcontext)  # absent while a rank tests its step unwrapped
        return no_sync()

    def sum(self, values: Tensor) -> Tensor:
        values = values.clone()
        self.dist.all_reduce(values)
        return values

    def barrier(self) -> None:
        self.sum(torch.zeros(1))


def is_distributed() -> bool:
    """Whether torchrun started this process: its environment variables are set."""
    return "LOCAL_RANK" in os.environ and "WORLD_SIZE" in os.environ


def process_group() -> SingleProcess:
    """The processes this one belongs to: torchrun's, else itself alone."""
    return Distributed() if is_distributed() else SingleProcess()
