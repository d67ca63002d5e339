"""Runs of language models: their adapters, and what lies beside their weights."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import torch

from ..config.build import build_model
from ..config.config import Config
from ..core.files import atomic
from ..diffusion.model import DiffusionModel
from ..networks.language_model import LanguageModel
from ..networks.lora import FOLDER, merge_adapter, save_adapter
from ..storage import weight_files
from ..storage.weight_files import WeightFiles
from ..storage.weights import NETWORK, ParameterSlots, network_parameters, tensors_of

CHAT_FILES = ("chat_template.jinja", "special_tokens.json")


def save_beside(backbone: LanguageModel, run: Path | None, folder: Path) -> None:
    """Writes to `folder` what a language model has beside its weights and the run in `run` knows."""
    if run is None:
        return
    for name in CHAT_FILES:
        if (run / name).is_file() and run.resolve() != folder.resolve():
            with atomic(folder / name) as partial:
                shutil.copyfile(run / name, partial)
    if backbone.adapter is not None:
        files = WeightFiles.read(run).absolute(run)
        files.write(folder)
        save_adapter(folder / FOLDER, backbone.network.named_parameters(), backbone.adapter, files.source)
    elif (folder / weight_files.FILE).is_file():  # the weights are in the folder now
        (folder / weight_files.FILE).unlink()


@torch.no_grad()
def merge(model: DiffusionModel, config: Config, vocab_size: int) -> DiffusionModel:
    """A model of `config`, which has no adapter, with the weights of `model` after its adapter is added to them."""
    source = copy.deepcopy(model)
    merge_adapter(source.denoiser.backbone.network)
    merged = build_model(config, vocab_size, to_load=True)
    others = {name: tensor for name, tensor in tensors_of(source).items() if not name.startswith(NETWORK)}
    slots = ParameterSlots(merged)
    for name, tensor in (network_parameters(source) | others).items():
        slots.set(name, tensor)
    return merged
