"""Weights that a run refers to where they lie: files of published weights in a folder or on the hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..core.errors import UserError
from ..core.files import write_text
from ..core.hashing import file_sha256
from ..core.reading import read_object
from ..core.registry import from_dict
from .hub import download_files
from .weights import Header, ParameterSlots, check_finite, check_tensors_fit, network_parameters, read_header

FILE = "weights.json"
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"


@dataclass(frozen=True)
class FileRecord:
    """A file as it was when the run was made."""

    size: int
    sha256: str


@dataclass(frozen=True)
class WeightFiles:
    """Files of safetensors, and how the names in them become those of a model.

    `source` is a folder or a hub id, of which `revision` is a commit. In a name every text of `renamed` is replaced in
    turn, then it gets the `prefix`. `ignored` are names (after that) which the model does not have: tied or computed.
    """

    source: str
    files: dict[str, FileRecord]
    revision: str = ""
    prefix: str = ""
    renamed: dict[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    identity: dict[str, Any] = field(default_factory=dict)
    """What the weights belong to."""

    @classmethod
    def read(cls, run: Path) -> WeightFiles:
        """The record in a run's folder. Raises UserError if it is damaged."""
        return from_dict(cls, read_object(run / FILE), str(run / FILE))

    def write(self, run: Path) -> None:
        """Writes the record to a run's folder."""
        write_text(run / FILE, json.dumps(asdict(self), indent=1) + "\n")

    def name(self, published: str) -> str:
        """The model's name of a published tensor."""
        for old, new in self.renamed.items():
            published = published.replace(old, new)
        return self.prefix + published

    def paths(self, run: Path | None = None) -> list[Path]:
        """The files; a source that is no absolute path is relative to the folder `run`.

        Raises UserError if one is missing or has another size than it had.
        """
        folder = self.folder(run)
        for name, record in self.files.items():
            path = folder / name
            if not path.is_file():
                raise UserError(f"{path} is missing: this run refers to the weights of {self.source}.")
            if path.stat().st_size != record.size:
                raise UserError(
                    f"{path} has {path.stat().st_size:,} bytes instead of {record.size:,}: it has changed since this "
                    "run was converted. Convert it again."
                )
        return [folder / name for name in self.files]

    def folder(self, run: Path | None = None) -> Path:
        """Where the files lie."""
        if self.revision:
            return download_files(self.source, list(self.files), self.revision)
        return Path(self.source) if run is None else run / self.source

    def absolute(self, run: Path) -> WeightFiles:
        """The same files as another run refers to them; the identity is left out."""
        source = self.source if self.revision else str((run / self.source).resolve())
        return replace(self, source=source, identity={})

    def header(self, paths: list[Path]) -> Header:
        """The names and shapes in all files, as the model has them. Raises UserError for a name that comes twice."""
        tensors = {}
        for path in paths:
            for published, info in read_header(path).tensors.items():
                name = self.name(published)
                if name in tensors:
                    raise UserError(f"{path} is damaged: {published} comes twice.")
                if name not in self.ignored:
                    tensors[name] = info
        return Header(paths[0].parent / FILE if len(paths) > 1 else paths[0], tensors, identity=self.identity)

    def tensors(self, paths: list[Path]) -> Iterator[tuple[str, Tensor]]:
        """Names and tensors, one after the other."""
        for path in paths:
            with _opened(path) as file:
                for published in file.keys():  # noqa: SIM118 (not a dict)
                    if (name := self.name(published)) not in self.ignored:
                        yield name, file.get_tensor(published)

    @torch.no_grad()
    def load(self, model: nn.Module, paths: list[Path]) -> None:
        """Loads the weights; at no time is more than one tensor in memory twice.

        Parameters of `model` without storage become the tensors of the files. Raises UserError if names, shapes or
        kinds of numbers differ, or a weight is not finite. The model's own tensors beside the network, such as
        counters, are not in the files.
        """
        target = network_parameters(model)
        check_tensors_fit(target, self.header(paths))
        slots = ParameterSlots(model, target)
        for name, tensor in self.tensors(paths):
            check_finite({name: tensor}, paths[0].parent)
            slots.set(name, tensor)


def record_files(folder: Path) -> dict[str, FileRecord]:
    """The files of weights in a folder of published weights. Raises UserError if there are none, or one is missing."""
    if (folder / INDEX).is_file():
        weight_map = read_object(folder / INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise UserError(f"{folder / INDEX} is damaged: it has no weight_map.")
        names = sorted(set(weight_map.values()))
        if wrong := [name for name in names if Path(name).name != name]:
            raise UserError(f"{folder / INDEX} is damaged: it names {wrong[0]!r}, which is not in its folder.")
    elif (folder / SINGLE).is_file():
        names = [SINGLE]
    else:
        raise UserError(f"{folder} has no weights: neither {SINGLE} nor {INDEX}.")
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise UserError(f"{folder} lacks {missing[0]}, which {INDEX} names.")
    return {name: FileRecord((folder / name).stat().st_size, file_sha256(folder / name)) for name in names}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged: {error}.") from None
