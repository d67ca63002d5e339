"""trained_classifier"""

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


@dataclass(frozen=True)
class Classifier:
    """A network, and the labels that it tells apart."""

    network: NoisyClassifier
    labels: tuple[str, ...]

    def judge(self, label: str) -> Judge:
        """log p(label | x_t). Raises UserError for a label that is none."""
        if label not in self.labels:
            raise UserError(f"The classifier has no label {label!r}; it can be {', '.join(self.labels)}.")
        number = self.labels.index(label)
        return lambda xt, t, batch: self.network(xt, t, batch)[:, number]

    def reader(self, label: str) -> Reader:
        """log p(label | clean text). Raises UserError for a label that is none."""
        self.judge(label)
        number = self.labels.index(label)
        return lambda probs, batch: self.network.soft(probs, batch)[:, number]

    def save(self, folder: Path, facts: dict[str, Any]) -> None:
        """Writes config.json and model.safetensors."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder} cannot be made: {error.strerror}.") from None
        shape = {"width": self.network.backbone.width, "depth": len(self.network.backbone.blocks)}
        about = {"kind": "classifier", "schema": 1, "labels": list(self.labels), **shape, **facts}
        (folder / "config.json").write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        save_tensors(
            {name: tensor.cpu() for name, tensor in tensors_of(self.network).items()}, folder / "model.safetensors"
        )


def load(folder: str | Path, run: Run) -> Classifier:
    """The classifier in a folder, for this run. Raises UserError where it is none, or was trained for another run."""
    path = Path(folder) / "config.json"
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        labels, width, depth = tuple(about["labels"]), about["width"], about["depth"]
        trained_for = about["run"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{folder} is no classifier; textdiffusion train-classifier makes one.") from None
    for name, value in run_fingerprint(run).items():
        if trained_for.get(name) != value:
            raise UserError(
                f"The classifier {folder} was trained for a run with another {name}; train one for this run."
            )
    model = run.model.unadapted
    network = NoisyClassifier(model.process, model.codec, labels=len(labels), width=width, depth=depth)
    load_weights(network, Path(folder) / "model.safetensors")
    place = next(model.parameters()).device
    return Classifier(network.eval().requires_grad_(False).to(place), labels)


def run_fingerprint(run: Run) -> dict[str, Any]:
    """What a classifier shares with its run: tokenizer, states and noise."""
    model = run.model.unadapted
    states = model.codec.table() if isinstance(model.codec, TableCodec) else torch.empty(0)
    table = hashlib.sha256(states.detach().cpu().numpy().tobytes()).hexdigest()[:16]
    config = {"process": to_dict(run.config.process), "codec": {**to_dict(run.config.codec), "table": table}}
    return {"tokenizer": fingerprint(run.tokenizer), **json.loads(json.dumps(config))}


Judge = Callable[[Tensor, Tensor, Batch], Tensor]
"""log p(label | x_t) in nats [b] of states x_t, t [b] and a batch.

States of token ids come as ids [b, l], or as weights over them [b, l, vocab + 1], of which the last is the mask's.
"""


Reader = Callable[[Tensor, Batch], Tensor]
"""log p(label | text) in nats [b] of a clean text that may be soft, weights over tokens [b, l, v], and a batch."""
