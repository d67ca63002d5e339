"""A model's weights as a safetensors file, with a checksum and the identity of the run they belong to."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.modules import module as registration

from ..core.errors import UserError
from ..core.reading import open_regular, parse_json
from ..core.shards import full, local, part_like

METADATA = "textdiffusion"
"""The one key of the file's metadata, so that equal weights give equal files: JSON with `sha256` and `identity`."""

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}

RESTORE = (
    "Restore it from a copy; in the folder of a training run, repeat the train command, which writes it again from a "
    "checkpoint."
)


class TensorInfo(NamedTuple):
    """Shape and dtype (safetensors' name) of a tensor."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Header:
    """What a file of weights says about itself before any tensor is read."""

    path: Path
    tensors: dict[str, TensorInfo]
    sha256: str = ""
    """The checksum of the tensors (empty: the file has none)."""
    identity: dict[str, Any] = field(default_factory=dict)
    """What the weights belong to (empty: the file does not say)."""


NETWORK = "denoiser.backbone.network."
"""What the names of a language model's parameters begin with."""


def network_parameters(model: nn.Module) -> dict[str, Tensor]:
    """The parameters of a model's language model, each once, by their names without an adapter; not the adapter's."""
    return {
        name.replace(".base_layer.", "."): parameter
        for name, parameter in model.named_parameters()
        if name.startswith(NETWORK) and "lora_" not in name
    }


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers, each once, under the first of its names.

    Those that a part of the module lists in `referenced_parameters`, a method, are left out: files elsewhere hold them.
    """
    persistent = module.state_dict().keys()
    parts: list[Any] = [part for part in module.modules() if hasattr(part, "referenced_parameters")]
    referenced = {id(parameter) for part in parts for parameter in part.referenced_parameters()}
    named = dict(module.named_parameters()) | dict(module.named_buffers())
    named = {name: tensor for name, tensor in named.items() if id(tensor) not in referenced}
    return {name: tensor.detach() for name, tensor in named.items() if name in persistent}


def rounded(module: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """`tensors_of` with floating-point parameters in `dtype`, unless theirs is shorter already.

    Buffers, such as counts, keep their own type.
    """
    wider = {name for name, p in module.named_parameters() if p.is_floating_point() and p.itemsize > dtype.itemsize}
    return {name: tensor.to(dtype) if name in wider else tensor for name, tensor in tensors_of(module).items()}


def save_tensors(tensors: Mapping[str, Tensor], path: Path, identity: Mapping[str, Any] | None = None) -> None:
    """Writes a safetensors file, not atomically (see `core.files.atomic`), with the permissions of any new file.

    With `identity`, JSON that says what the tensors belong to, the file also has their checksum.
    """
    header: dict[str, Any] = {}
    if identity is not None:
        about = {"sha256": _checksum(tensors), "identity": identity}
        header["__metadata__"] = {METADATA: json.dumps(about, sort_keys=True, allow_nan=False)}
    # Wide elements first, so that each tensor is aligned in the file.
    order, offset = _file_order(tensors), 0
    for name in order:
        size = tensors[name].numel() * tensors[name].element_size()
        shape = list(tensors[name].shape)
        header[name] = {"dtype": _NAMES[tensors[name].dtype], "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little"))
        file.write(raw)
        for name in order:
            file.write(_raw_bytes(tensors[name]))


def join_saving(tensors: Mapping[str, Tensor]) -> None:
    """Takes part in `save_tensors` of divided tensors, which the first rank writes one by one."""
    for name in _file_order(tensors):
        full(tensors[name])


def _file_order(tensors: Mapping[str, Tensor]) -> list[str]:
    return sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))


def read_header(path: Path) -> Header:
    """The names, shapes and metadata in a safetensors file. Raises UserError if it is missing or damaged."""
    open_regular(path).close()
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            tensors = {name: TensorInfo(tuple(s.get_shape()), s.get_dtype()) for name, s in slices.items()}
            metadata = (file.metadata() or {}).get(METADATA)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged: {error}. {RESTORE}") from None
    if metadata is None:
        return Header(path, tensors)
    about = parse_json(metadata, f"The metadata of {path}")
    sha256, identity = (about.get(name) if isinstance(about, dict) else None for name in ("sha256", "identity"))
    if not isinstance(sha256, str) or not sha256 or not isinstance(identity, dict):
        raise UserError(f"{path} is damaged: its metadata has no checksum and identity. {RESTORE}")
    return Header(path, tensors, sha256, identity)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Reads a safetensors file. Raises UserError if it is missing or damaged, or if a checksum in it is wrong."""
    header = read_header(path)
    if unknown := [f"{name} ({info.dtype})" for name, info in header.tensors.items() if info.dtype not in DTYPES]:
        raise UserError(f"{path} has tensors of a type that is not supported: {_abbreviated(unknown)}.")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in header.tensors}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged: {error}. {RESTORE}") from None
    if header.sha256 and _checksum(tensors) != header.sha256:
        raise UserError(f"{path} is damaged: the checksum of its weights is wrong. {RESTORE}")
    return tensors


def check_fits(module: nn.Module, header: Header, *, exclude: str | tuple[str, ...] = ()) -> None:
    """Raises UserError where the tensors of a file have other names, shapes or kinds of numbers than the module's.

    The module may be on the meta device: nothing is read or allocated. Names that begin with one of `exclude` do not
    count.
    """
    check_tensors_fit(
        _selected(tensors_of(module), exclude), replace(header, tensors=_selected(header.tensors, exclude))
    )


def check_tensors_fit(target: Mapping[str, Tensor], header: Header) -> None:
    """Raises UserError where tensors of a file have other names, shapes or kinds of numbers than those of `target`."""
    source = header.tensors
    problem = f"{header.path} does not fit this model"
    if names := sorted(source.keys() - target.keys()):
        raise UserError(f"{problem}, which has no {_abbreviated(names)}.")
    if names := sorted(target.keys() - source.keys()):
        raise UserError(f"{problem}: it lacks {_abbreviated(names)}.")
    if names := sorted(name for name in target if tuple(target[name].shape) != source[name].shape):
        shapes = f"{list(source[names[0]].shape)} instead of {list(target[names[0]].shape)}"
        raise UserError(f"{problem}: {_abbreviated(names)} has shape {shapes}.")
    if names := sorted(name for name in target if not _is_convertible(source[name].dtype, target[name].dtype)):
        dtypes = f"{source[names[0]].dtype} instead of {_NAMES[target[names[0]].dtype]}"
        raise UserError(f"{problem}: {_abbreviated(names)} has numbers of type {dtypes}.")


def check_outline(build: Callable[[], nn.Module], header: Header | None, base: Header | None = None) -> None:
    """Raises UserError, before anything is allocated, if the network that `build` makes does not fit files of weights.

    It is built on the meta device, whose tensors have no data. torch's generator is left alone. `base` describes the
    files that a language model refers to (None: none), and `header` the others (None: there are none).
    """
    headers = [each for each in (header, base) if each]
    with torch.random.fork_rng(devices=[]), torch.device("meta"), _no_more_than(headers):
        module = build()
    if base:
        check_tensors_fit(network_parameters(module), base)
    if header:
        check_fits(module, header)


@torch.no_grad()
def load_weights(module: nn.Module, path: Path, *, exclude: str | tuple[str, ...] = ()) -> None:
    """Loads the weights in `path` into `module`, except those whose names begin with one of `exclude`.

    Raises UserError if the file is damaged, if names, shapes or kinds of numbers differ, or if a weight is not finite.
    """
    check_fits(module, read_header(path), exclude=exclude)
    source = _selected(load_tensors(path), exclude)
    check_finite(source, path)
    slots = ParameterSlots(module)
    for name, tensor in source.items():
        slots.set(name, tensor)


@torch.no_grad()
def load_into(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Loads a file of weights into tensors; of a divided one, only the rows of this process are read.

    Raises UserError as `load_weights` does; some tensors may have changed then.
    """
    check_tensors_fit(tensors, read_header(path))
    for name, source in load_tensors(path).items():  # it maps the file into memory, so this reads nothing yet
        part = local(part_like(source, tensors[name]))
        check_finite({name: part}, path)
        local(tensors[name]).copy_(part)


class ParameterSlots:
    """The tensors of a module, to be set one by one. A parameter that has no storage becomes the given tensor."""

    def __init__(self, module: nn.Module, tensors: Mapping[str, Tensor] | None = None) -> None:
        """`tensors` are the module's parameters by other names (None: `tensors_of` the module)."""
        self._tensors = tensors_of(module) if tensors is None else tensors
        self._parameters = dict(module.named_parameters()) if tensors is None else tensors
        self._owners: dict[int, list[tuple[nn.Module, str]]] = {}
        """The places of every parameter; tied ones have several."""
        for owner in module.modules():
            for name, parameter in owner._parameters.items():
                self._owners.setdefault(id(parameter), []).append((owner, name))

    def set(self, name: str, tensor: Tensor) -> None:
        """Sets one tensor, in the type that it has in the module."""
        target = self._tensors[name]
        if not target.is_meta:
            target.copy_(tensor)
            return
        old = self._parameters[name]
        self.replace(old, tensor.to(target.dtype))

    def replace(self, parameter: Tensor, tensor: Tensor) -> None:
        """Puts a new parameter of these values in all places of `parameter`."""
        new = nn.Parameter(tensor, requires_grad=parameter.requires_grad)
        for owner, attribute in self._owners[id(parameter)]:
            setattr(owner, attribute, new)


def check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raises UserError if a tensor, also as float32, has a number that is not finite."""
    floats = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    if names := sorted(name for name, tensor in floats.items() if not _is_finite(tensor)):
        raise UserError(f"{path} cannot be used: {_abbreviated(names)} has numbers that are NaN or infinite. {RESTORE}")


def _is_finite(tensor: Tensor) -> bool:
    if tensor.dtype == torch.float64:
        tensor = tensor.float()
    return not tensor.numel() or all(extreme.isfinite() for extreme in tensor.aminmax())


@contextmanager
def _no_more_than(headers: list[Header]) -> Iterator[None]:
    """Inside, building a network far larger than a file of weights raises UserError at once.

    Otherwise a config.json with a billion blocks would fill the memory even on the meta device.
    """
    sizes = [math.prod(info.shape) for header in headers for info in header.tensors.values()]
    tensors, elements = 4 * len(sizes) + 1000, 4 * sum(sizes) + (1 << 24)  # some are shared, computed or not saved

    def count(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        nonlocal tensors, elements
        if tensor is not None and tensor.is_meta:
            tensors, elements = tensors - 1, elements - tensor.numel()
        if tensors < 0 or elements < 0:
            raise UserError(
                f"The config.json beside {headers[0].path} describes a far larger network than these weights; restore "
                "the file that was replaced or edited."
            )

    hooks: list[Callable[..., Any]] = [
        registration.register_module_parameter_registration_hook,
        registration.register_module_buffer_registration_hook,
    ]
    handles = [register(count) for register in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _selected(tensors: Mapping[str, Any], exclude: str | tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in tensors.items() if not name.startswith(exclude)}


def _is_convertible(source: str, target: torch.dtype) -> bool:
    dtype = DTYPES.get(source)
    return dtype is not None and (dtype == target or (dtype.is_floating_point and target.is_floating_point))


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        sha.update(f"{name} {_NAMES[tensor.dtype]} {list(tensor.shape)}\n".encode())
        sha.update(_raw_bytes(tensor))
    return sha.hexdigest()


def _raw_bytes(tensor: Tensor) -> memoryview:
    return full(tensor).detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def _abbreviated(names: Iterable[str]) -> str:
    first, *others = names
    return first + (f" (and {len(others)} more)" if others else "")
