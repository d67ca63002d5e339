"""Tensors whose rows are divided among processes (`DTensor`), and plain ones, treated alike.

They are told apart by their methods: importing `torch.distributed.tensor` takes a second.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor


def is_sharded(tensor: Tensor) -> bool:
    """Whether this process holds only a part of the tensor."""
    return hasattr(tensor, "to_local")


def full(tensor: Tensor) -> Tensor:
    """The complete tensor. If it is divided, every rank must call this, for the same tensors in the same order."""
    sharded: Any = tensor
    return sharded.full_tensor() if is_sharded(tensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """The rows of the tensor that this process holds, in the same memory."""
    sharded: Any = tensor.detach()
    return sharded.to_local() if is_sharded(tensor) else sharded


def part_like(tensor: Tensor, like: Tensor) -> Tensor:
    """A complete tensor, divided as `like` of the same shape is; the rows are copied. Plain if `like` is plain."""
    if not is_sharded(like):
        return tensor
    sharded: Any = like
    rows = -(-len(tensor) // sharded.device_mesh.size())  # of every rank, except that the last ones may have fewer
    start = rows * sharded.device_mesh.get_local_rank()
    part = tensor[start : start + len(local(like))].to(like.device, copy=True)
    return with_local(part, like)


def with_local(part: Tensor, like: Tensor) -> Tensor:
    """A tensor divided as `like` is, of which this process holds the rows `part`."""
    sharded: Any = like
    shape = {"shape": like.shape, "stride": like.stride()}
    return type(sharded).from_local(part, sharded.device_mesh, sharded.placements, run_check=False, **shape)
