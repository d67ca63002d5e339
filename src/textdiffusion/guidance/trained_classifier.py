"""Trained classifiers in folders: saved, loaded for the run they were trained for, and asked for log probabilities."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.batch import Batch
from ..core.errors import UserError
from ..core.registry import to_dict
from ..data.tokenizers.base import fingerprint
from ..diffusion.codecs import TableCodec
from ..networks.classifier import NoisyClassifier
from ..samplers.base import Run
from ..storage.weights import load_weights, save_tensors, tensors_of

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
        """Writes config.json and model.safetensors. Raises UserError if the folder cannot be created."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"The folder {folder} cannot be created: {error.strerror}.") from None
        shape = {"width": self.network.backbone.width, "depth": len(self.network.backbone.blocks)}
        config = {"kind": "classifier", "schema": 1, "labels": list(self.labels), **shape, **metadata}
        (folder / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        weights = {name: tensor.cpu() for name, tensor in tensors_of(self.network).items()}
        save_tensors(weights, folder / "model.safetensors")


def load(folder: str | Path, run: Run) -> TrainedClassifier:
    """The classifier in a folder. Raises UserError if there is none, or if it was trained for another run."""
    path = Path(folder) / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        labels, width, depth = tuple(config["labels"]), config["width"], config["depth"]
        trained_for = config["run"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{folder} is not a classifier; make one with textdiffusion train-classifier.") from None
    for name, value in run_fingerprint(run).items():
        if trained_for.get(name) != value:
            problem = f"The classifier {folder} was trained for a run with another {name}"
            raise UserError(f"{problem}; train one for this run.")
    model = run.model.unadapted
    network = NoisyClassifier(model.process, model.codec, labels=len(labels), width=width, depth=depth)
    load_weights(network, Path(folder) / "model.safetensors")
    device = next(model.parameters()).device
    return TrainedClassifier(network.eval().requires_grad_(False).to(device), labels)


def run_fingerprint(run: Run) -> dict[str, Any]:
    """What a classifier has in common with its run: tokenizer, process and codec."""
    model = run.model.unadapted
    states = model.codec.table() if isinstance(model.codec, TableCodec) else torch.empty(0)
    table_hash = hashlib.sha256(states.detach().cpu().numpy().tobytes()).hexdigest()[:16]
    config = {"process": to_dict(run.config.process), "codec": {**to_dict(run.config.codec), "table": table_hash}}
    return {"tokenizer": fingerprint(run.tokenizer), **json.loads(json.dumps(config))}
