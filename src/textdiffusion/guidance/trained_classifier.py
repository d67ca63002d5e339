"""Trained classifiers in folders: saved, loaded for the run they were trained for, and asked for log probabilities."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.batch import Batch
from ..core.errors import MissingFile, UserError
from ..core.files import atomic, check_new_folder, make_folder, write_text
from ..core.reading import read_object
from ..core.registry import from_dict, to_dict
from ..data.tokenizers.base import fingerprint
from ..diffusion.table_codecs import TableCodec
from ..networks.classifier import NoisyClassifier
from ..samplers.base import Run
from ..storage.weights import check_outline, load_weights, read_header, save_tensors, tensors_of

LogProbFn = Callable[[Tensor, Tensor, Batch], Tensor]
"""log p(label | x_t) in nats [b], from states x_t, times t [b] and a batch.

States of token ids are ids [b, l] or weights over them [b, l, vocab + 1]; the last weight is the mask's.
"""

CleanLogProbFn = Callable[[Tensor, Batch], Tensor]
"""log p(label | text) in nats [b], from clean texts given as weights over tokens [b, l, v], and a batch."""


@dataclass(frozen=True)
class TrainedClassifier:
    """A classifier network and the labels that it distinguishes."""

    network: NoisyClassifier
    labels: tuple[str, ...]

    def noisy_log_prob(self, label: str) -> LogProbFn:
        """log p(label | x_t). Raises UserError for an unknown label."""
        number = self._number(label)
        return lambda xt, t, batch: self.network(xt, t, batch)[:, number]

    def clean_log_prob(self, label: str) -> CleanLogProbFn:
        """log p(label | clean text). Raises UserError for an unknown label."""
        number = self._number(label)
        return lambda probs, batch: self.network.soft(probs, batch)[:, number]

    def _number(self, label: str) -> int:
        if label not in self.labels:
            raise UserError(f"The classifier has no label {label!r}; it can be {', '.join(self.labels)}.")
        return self.labels.index(label)

    def save(self, folder: Path, metadata: dict[str, Any]) -> None:
        """Writes model.safetensors, and then config.json.

        Raises UserError if the folder is not empty or cannot be written.
        """
        check_new_folder(folder, "the classifier")
        make_folder(folder)
        shape = {"width": self.network.backbone.width, "depth": len(self.network.backbone.blocks)}
        config = {"kind": "classifier", "schema": 1, "labels": list(self.labels), **shape, **metadata}
        weights = {name: tensor.cpu() for name, tensor in tensors_of(self.network).items()}
        with atomic(folder / "model.safetensors") as partial:
            save_tensors(weights, partial, {"classifier": _about(self.labels, metadata.get("run"))})
        write_text(folder / "config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")


def load(folder: str | Path, run: Run) -> TrainedClassifier:
    """The classifier in a folder. Raises UserError if there is none, or if it was trained for another run."""
    config = _read_config(Path(folder))
    for name, value in run_fingerprint(run).items():
        if config.run.get(name) != value:
            problem = f"The classifier {folder} was trained for a run with another {name}"
            raise UserError(f"{problem}; train one for this run.")
    header = read_header(Path(folder) / "model.safetensors")
    if header.identity and header.identity != {"classifier": _about(config.labels, config.run)}:
        raise UserError(f"The weights {header.path} belong to another classifier than the config.json beside them.")
    model = run.model.unadapted

    def build() -> NoisyClassifier:
        return NoisyClassifier(
            model.process, model.codec, labels=len(config.labels), width=config.width, depth=config.depth
        )

    check_outline(build, header)
    network = build()
    load_weights(network, header.path)
    device = next(model.parameters()).device
    return TrainedClassifier(network.eval().requires_grad_(False).to(device), config.labels)


@dataclass(frozen=True)
class _Config:
    """The config.json of a classifier."""

    labels: tuple[str, ...]
    width: int
    depth: int
    run: dict[str, Any]


def _read_config(folder: Path) -> _Config:
    path = folder / "config.json"
    try:
        data = read_object(path)
    except MissingFile:
        data = {}
    if data.get("kind") != "classifier":
        raise UserError(f"{folder} is not a classifier; make one with textdiffusion train-classifier.")
    config: _Config = from_dict(_Config, {f.name: data[f.name] for f in fields(_Config) if f.name in data}, str(path))
    unit = 64 if config.width > 64 else 2
    if len({*config.labels}) < 2 or min(config.width, config.depth) < 1 or config.width % unit:
        raise UserError(f"{path} is damaged: it describes no classifier of two or more labels.")
    return config


def _about(labels: tuple[str, ...], run: Any) -> dict[str, Any]:
    """What the weights of a classifier belong to."""
    return {"labels": list(labels), "run": run}


def run_fingerprint(run: Run) -> dict[str, Any]:
    """What a classifier has in common with its run: tokenizer, process and codec."""
    model = run.model.unadapted
    states = model.codec.table() if isinstance(model.codec, TableCodec) else torch.empty(0)
    table_hash = hashlib.sha256(states.detach().cpu().numpy().tobytes()).hexdigest()[:16]
    config = {"process": to_dict(run.config.process), "codec": {**to_dict(run.config.codec), "table": table_hash}}
    return {"tokenizer": fingerprint(run.tokenizer), **json.loads(json.dumps(config))}
