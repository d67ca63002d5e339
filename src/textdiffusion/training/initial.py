"""Starting a run from the weights of another one."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config.config import Config, loads
from ..config.identity import check_identity, differences
from ..core.errors import UserError
from ..core.hashing import json_hash
from ..core.reading import read_object, read_text
from ..core.registry import to_dict
from ..data.config import TextConfig
from ..objectives.distillation import Distillation
from ..storage.weights import check_fits, load_weights, read_header
from .trainer import Trainer

NETWORK = ("codec", "backbone", "denoiser")
"""The settings that `with_network_of` takes from another run."""
SHAPES = (*NETWORK, "process", "time_density")
"""The settings that decide the shapes of weights, apart from the length of the text."""


def with_network_of(config: Config, run: Path) -> Config:
    """The configuration with the network of another run. Raises UserError where it does not fit the other parts."""
    other = config_of(run)
    return replace(config, **{name: getattr(other, name) for name in NETWORK})


def load_initial(trainer: Trainer, run: Path) -> None:
    """Loads the weights of another run into a new one, which counts its steps from 0.

    Raises UserError if the other run's files do not belong together; where its weights do not fit, with the settings
    that differ and how to take them over.
    """
    path, other = run / "model.safetensors", config_of(run)
    header = read_header(path)
    check_identity(header.identity, other, json_hash(read_object(run / "tokenizer.json")), path)
    try:
        check_fits(trainer.model, header, exclude="step")
    except UserError as error:
        changes = [change for change in differences(_shapes(other), _shapes(trainer.config)) if change[1] is not None]
        if not changes:
            raise
        differing = "; ".join(f"{key} is {old!r} there and {new!r} here" for key, old, new in changes[:8])
        settings = " ".join(f"{key}={_as_text(old)}" for key, old, _ in changes[:8])
        raise UserError(
            f"{error} The network of {run} is another: {differing}. Take it with --init-network, or with "
            f"--set {settings}"
        ) from None
    for model in (trainer.model, trainer.ema.model):
        load_weights(model, path, exclude="step")


def keep_teacher(trainer: Trainer, saved: Path | None) -> None:
    """Gives the student of a distillation its teacher: the weights that `saved` has, or those it starts with (None)."""
    if not isinstance(trainer.config.objective, Distillation):
        return
    teacher = copy.deepcopy(trainer.ema.model)
    if saved is not None:
        load_weights(teacher, saved)
    trainer.learn_from(teacher)


def config_of(run: Path) -> Config:
    """The configuration in a run's folder."""
    path = run / "config.json"
    return loads(read_text(path), str(path))


def _shapes(config: Config) -> dict[str, Any]:
    data = to_dict(config)
    return {name: data[name] for name in SHAPES} | {"text": {"length": config.text.length}}


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def with_text_of(text: TextConfig, start: Path) -> TextConfig:
    """The settings with what they leave to the text (`auto`, a length of 0) as in the run in the folder `start`."""
    if "auto" not in (text.tokenizer, text.layout) and text.length:
        return text
    other = config_of(start).text
    names = [name for name, undecided in (("layout", "auto"), ("length", 0)) if getattr(text, name) == undecided]
    if text.tokenizer == "auto":
        names += ["tokenizer", "tokenizer_path", "vocab_size"]
    if "layout" in names:
        names.append("model_padding")
    return replace(text, **{name: getattr(other, name) for name in names})
