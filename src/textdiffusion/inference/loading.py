"""A run's network, read from files that may be damaged, of another run, or made to harm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..config.build import build_model
from ..config.config import Config, loads
from ..config.identity import check_identity, text_hashes
from ..core.errors import UserError
from ..core.hashing import json_hash
from ..core.randomness import seeded
from ..core.reading import read_object, read_text
from ..data.tokenizers import loading
from ..data.tokenizers.base import Tokenizer
from ..diffusion.model import DiffusionModel
from ..storage import weight_files
from ..storage.checkpoint import RAW, Checkpoints, TrainingState
from ..storage.weight_files import WeightFiles
from ..storage.weights import check_outline, load_weights, read_header

Weights = Literal["ema", "raw"]
"""The averaged weights, or the optimizer's own."""


@dataclass(frozen=True)
class LoadedRun:
    """What the files of a run hold. `text_sha256` has the hash of each part of its text, as far as they record it."""

    model: DiffusionModel
    tokenizer: Tokenizer
    config: Config
    text_sha256: Mapping[str, str]


def load_run(folder: Path, weights: Weights) -> LoadedRun:
    """The run in a folder.

    Before anything is allocated, the network that its config.json describes is compared with the names and shapes in
    the file of weights. Raises UserError for a file that is missing, damaged, or belongs to another run.
    """
    path = folder / "config.json"
    config = loads(read_text(path), str(path))
    tokenizer_path = folder / "tokenizer.json"
    tokenizer = loading.load(tokenizer_path)
    files = WeightFiles.read(folder) if (folder / weight_files.FILE).is_file() else None
    path, state = (folder / "model.safetensors", None) if weights == "ema" else _raw_weights(folder)
    header = None if files and not path.is_file() else read_header(path)  # nothing beside the files may be trained
    paths = files.paths(folder) if files else []
    base = files.header(paths) if files else None
    about = header or base
    assert about is not None
    identity = about.identity or (state.identity if state else {})
    check_identity(identity, config, json_hash(read_object(tokenizer_path)), about.path)
    check_outline(lambda: build_model(config, tokenizer.vocab_size), header, base)
    with seeded(config.training.seed, torch.device("cpu")):  # as in training
        model = build_model(config, tokenizer.vocab_size, to_load=True)
    if files:
        files.load(model, paths)
    if header:
        load_weights(model, path)
    watch_features(model, f"the weights {about.path}")
    return LoadedRun(model, tokenizer, config, text_hashes(identity) or _text_of_checkpoints(folder, state))


def watch_features(model: DiffusionModel, source: str) -> None:
    """From now on a network whose features become NaN or infinite raises UserError, which names their source.

    Only on the CPU: elsewhere each check would wait for the device, and texts and likelihoods are checked at the end.
    """

    def check(backbone: nn.Module, inputs: Any, features: Tensor) -> None:
        if features.device.type == "cpu" and not features.isfinite().all():
            raise UserError(
                f"The network computed numbers that are NaN or infinite: {source} are damaged, or too large for "
                f"{str(features.dtype).removeprefix('torch.')}."
            )

    model.denoiser.backbone.register_forward_hook(check)


def _raw_weights(folder: Path) -> tuple[Path, TrainingState]:
    """The optimizer's weights in the latest checkpoint, which must be intact: those before it are of other steps."""
    damaged: list[str] = []
    latest = Checkpoints(folder / "checkpoints", keep=1).latest(damaged.append)
    if damaged:
        raise UserError(f"{damaged[0]} Delete it to use the checkpoint before, or use the averaged weights (ema).")
    if latest is None:
        raise UserError(f"{folder} has no checkpoint, so no raw weights; use the averaged ones (ema).")
    return latest[0] / RAW, latest[1]


def _text_of_checkpoints(folder: Path, state: TrainingState | None) -> dict[str, str]:
    """The hash of the training text in the latest checkpoint: earlier versions wrote it nowhere else."""
    if state is None:
        latest = Checkpoints(folder / "checkpoints", keep=1).latest(lambda problem: None)
        state = latest[1] if latest else None
    return {"train": state.text_sha256} if state and state.text_sha256 else {}
