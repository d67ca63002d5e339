"""A pretended accelerator: tensors that say that they are on another device and compute on the CPU.

Without a GPU this finds what would fail on one: an operation on tensors of two devices raises `MixedDevices`, and so
does `numpy()` of a tensor on the device. It also counts what makes the host wait for the device:

    with pretended_device() as syncs:
        model = on_device(build_model(config, vocab_size))
        config.objective(model, batch.to(DEVICE), rng=rng).total.backward()
    print(syncs)

It rests on `torch.utils.backend_registration`, which is experimental, so it is for tests only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_setup_privateuseone_for_python_backend("pretended")
DEVICE = torch.device("pretended", 0)

_aten = torch.ops.aten
_COPIES = {_aten._to_copy.default, _aten.copy_.default, _aten.set_.source_Tensor}
_TAKE_HOST_INDICES = {
    _aten.index.Tensor,
    _aten.index_put.default,
    _aten.index_put_.default,
    _aten._index_put_impl_.default,
}
_WAITS = {
    _aten._local_scalar_dense.default: "item",
    _aten.equal.default: "equal",
    _aten.nonzero.default: "nonzero",
    _aten.masked_select.default: "nonzero",
    _aten.repeat_interleave.Tensor: "repeat_interleave",
    _aten._unique2.default: "unique",
}

M = TypeVar("M", bound=nn.Module)

Syncs = Counter[str]
"""How often the host waited for the device, by the reason."""

_counts: list[Syncs] = []


class MixedDevices(RuntimeError):
    """Tensors of two devices met in one operation."""


class DeviceTensor(Tensor):
    """A tensor of the CPU, `host`, that reports the pretended device as its own."""

    host: Tensor

    @staticmethod
    def __new__(cls, host: Tensor) -> DeviceTensor:
        wrapper = torch.Tensor._make_wrapper_subclass(
            cls,
            host.size(),
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            layout=host.layout,
            device=DEVICE,
            requires_grad=False,
        )
        wrapper.host = host
        return wrapper

    def __repr__(self, **options: Any) -> str:
        return f"DeviceTensor({self.host})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # pyrefly: ignore
        return _compute(func, args, kwargs or {})


@contextmanager
def pretended_device() -> Iterator[Syncs]:
    """In the block, tensors can move to `DEVICE`. Yields the counts of what the host waits for.

    Gradients are computed on the calling thread: the engine's own device threads would abort the process at its end.
    """
    _counts.append(Counter())
    try:
        with torch.autograd.set_multithreading_enabled(False), _Dispatch(), _Functions():
            yield _counts[-1]
    finally:
        _counts.pop()


def on_device(module: M) -> M:
    """The module with its parameters and buffers on the device; `Module.to` cannot move to a device of this kind."""
    moved: dict[Tensor, nn.Parameter] = {}  # modules may share parameters
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                if parameter not in moved:
                    moved[parameter] = nn.Parameter(_upload(parameter), requires_grad=parameter.requires_grad)
                part._parameters[name] = moved[parameter]
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = _upload(buffer)
    return module


def _upload(tensor: Tensor) -> Tensor:
    return tensor if isinstance(tensor, DeviceTensor) else DeviceTensor(tensor.detach().clone())


def _is_device(device: Any) -> bool:
    return device is not None and torch.device(device).type == DEVICE.type


def _count(reason: str) -> None:
    if _counts:
        _counts[-1][reason] += 1


def _compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The operation on the CPU's tensors; its result is on the device if any argument is, or if it asks for that."""
    tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
    uses_device = any(isinstance(t, DeviceTensor) for t in tensors)
    # A 0-dimensional tensor of the CPU may act as a number in an operation of the device.
    host_shapes = [tuple(t.shape) for t in tensors if not isinstance(t, DeviceTensor) and t.ndim]
    if uses_device and host_shapes and func not in _COPIES | _TAKE_HOST_INDICES:
        raise MixedDevices(f"{func} has tensors of the device, and of the CPU those of shapes {host_shapes}.")
    if uses_device and func in _WAITS:
        _count(_WAITS[func])
    if _indexes_by_mask(func, args):
        _count("nonzero")
    target = kwargs.get("device")
    if _is_device(target):
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if kwargs.get("pin_memory"):
        kwargs = {**kwargs, "pin_memory": False}
    result = func(*tree_map(_host_of, args), **tree_map(_host_of, kwargs))
    if (written := _written_argument(func, args, result)) is not None:
        return written
    if func is _aten._local_scalar_dense.default or not (uses_device if target is None else _is_device(target)):
        return result
    return tree_map(
        lambda t: DeviceTensor(t) if isinstance(t, Tensor) and not isinstance(t, DeviceTensor) else t, result
    )


def _wrapped(value: Any) -> Any:
    return DeviceTensor(value) if isinstance(value, Tensor) and not isinstance(value, DeviceTensor) else value


def _indexes_by_mask(func: Any, args: Any) -> bool:
    """Whether an index is a mask on the device, whose positions the host must count (not to fill in one number)."""
    if func not in _TAKE_HOST_INDICES or (func is not _aten.index.Tensor and args[2].numel() == 1):
        return False
    return any(isinstance(index, DeviceTensor) and index.dtype is torch.bool for index in args[1])


def _host_of(value: Any) -> Any:
    return value.host if isinstance(value, DeviceTensor) else value


def _written_argument(func: Any, args: Any, result: Any) -> Tensor | None:
    """The argument that an in-place operation writes to and returns (None: it is not in place)."""
    if func is _aten.copy_.default:
        return args[0]
    if isinstance(result, (tuple, list)) or not func._schema.returns:
        return None
    for number, argument in enumerate(func._schema.arguments[: len(args)]):
        if argument.alias_info is not None and argument.alias_info.is_write and not argument.kwarg_only:
            return args[number]
    return None


class _Dispatch(TorchDispatchMode):
    """Sends operations without tensors, such as `torch.zeros(2, device=DEVICE)`, to `_compute` too."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """Handles what never reaches the dispatcher: moves between devices, new tensors from lists, `numpy`, `tolist`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.Tensor.to, torch.Tensor.cpu):
            return self._moved(func, args, kwargs)
        if func in (torch.tensor, torch.as_tensor) and _is_device(kwargs.get("device")):
            if isinstance(args[0], DeviceTensor):
                return args[0]
            return DeviceTensor(func(*args, **{**kwargs, "device": "cpu"}))
        if func in (torch.Tensor.numpy, torch.Tensor.tolist) and isinstance(args[0], DeviceTensor):
            if func is torch.Tensor.numpy:
                raise MixedDevices("numpy() of a tensor on the device; move it to the CPU first.")
            _count("tolist")
            return args[0].host.tolist()
        if func is torch.Tensor.untyped_storage and isinstance(args[0], DeviceTensor):
            return args[0].host.untyped_storage()  # safetensors compares addresses
        return func(*args, **kwargs)

    @staticmethod
    def _moved(func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        x, device, dtype = args[0], kwargs.get("device"), kwargs.get("dtype")
        for argument in args[1:]:
            if isinstance(argument, (torch.device, str)):
                device = argument
            elif isinstance(argument, torch.dtype):
                dtype = argument
            elif isinstance(argument, Tensor):
                device, dtype = argument.device, argument.dtype
        device = "cpu" if func is torch.Tensor.cpu else device
        if device is None or (not _is_device(device) and not isinstance(x, DeviceTensor)):
            return func(*args, **kwargs)
        if not isinstance(x, DeviceTensor):
            host = x.detach()
            return DeviceTensor(host.clone() if dtype is None else host.to(dtype))
        if _is_device(device):
            return x if dtype is None else func(x, dtype)
        _count("copy to the host")
        host = x.host.detach()
        return host.clone() if dtype is None else host.to(dtype)
