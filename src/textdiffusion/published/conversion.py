"""Published weights as a run of this package: the same network, name for name."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import recipes
from ..config.build import build_model
from ..config.config import Config
from ..core.errors import UserError
from ..data.config import TextConfig
from ..data.tokenizers.base import Bytes, Tokenizer
from ..data.tokenizers.loading import load_any
from ..diffusion.model import DiffusionModel
from ..inference.api import TextDiffusion
from ..networks.transformer import heads
from ..parts import (
    Absorbing,
    LogLinear,
    MaskDenoiserConfig,
    MaskedELBO,
    ObjectivePart,
    ScoreDenoiserConfig,
    ScoreEntropy,
    TransformerConfig,
)
from ..storage.foreign import Settings, settings_in
from ..storage.weights import tensors_of
from .tensors import read, weights_file

NAMES = {  # ours, and the published ones
    "denoiser.embedding.tokens.weight": "vocab_embed.embedding",
    "denoiser.trunk.time.": "sigma_map.",
    "denoiser.trunk.norm.": "output_layer.norm_final.",
    "denoiser.trunk.modulate.": "output_layer.adaLN_modulation.",
    "denoiser.trunk.blocks.": "blocks.",
    "denoiser.head.": "output_layer.linear.",
    ".qkv.": ".attn_qkv.",
    ".out.": ".attn_out.",
    ".up.": ".mlp.0.",
    ".down.": ".mlp.2.",
    ".modulate.": ".adaLN_modulation.",
}
HEAD = "output_layer.linear."  # its last row is the mask's, which is never predicted


def convert(
    source: str | Path, out: str | Path, *, tokenizer: str | Path = "", allow_pickle: bool = False
) -> TextDiffusion:
    """Makes a run in the folder `out` of published weights in the layout of SEDD, MDLM or RADD.

    `source` is a folder or file with its config.json or .hydra/config.yaml; `tokenizer` a vocabulary's file or folder,
    or `bytes` (empty: one in the source's folder). Only with `allow_pickle` is anything but safetensors read, and then
    tensors alone. Raises UserError where something is missing, unknown or does not fit, naming the first such thing.
    """
    source, out = Path(source), Path(out)
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out} is not empty; choose another folder for the run.")
    path = weights_file(source)
    settings = _settings(source)
    settings.check()
    tensors, prefixed = read(path, allow_pickle)
    vocab_size = _shape(path, tensors, "vocab_embed.embedding", 2)[0] - 1
    words, text = _tokenizer(tokenizer, settings.path.parent, vocab_size)
    config = _config(path, settings, tensors, prefixed, text)
    model = build_model(config, vocab_size)
    _fill(model, path, tensors)
    made = TextDiffusion(model.eval().requires_grad_(False), words, config)
    made.save_pretrained(out)
    return made


def _settings(source: Path) -> Settings:
    folders = (source,) if source.is_dir() else (source.parent, source.parent.parent)
    found = next(filter(None, map(settings_in, folders)), None)
    if found is None:
        raise UserError(f"There is no config.json or .hydra/config.yaml with {source}, which say how to read it.")
    return found


def _config(path: Path, settings: Settings, tensors: dict[str, Tensor], prefixed: bool, text: dict[str, Any]) -> Config:
    """What was published, with the sizes of these tensors."""
    backbone = _backbone(path, settings, tensors)
    timed = backbone.modulation != "none"
    if timed and not prefixed:
        base = replace(
            _recipe(ScoreEntropy),
            denoiser=ScoreDenoiserConfig(scale_by_sigma=settings.get(bool, "model.scale_by_sigma")),
        )
    else:
        # Without time conditioning MDLM's network has the adaptive norms all the same and reads 0; RADD's has none.
        time = timed and settings.get(bool, "time_conditioning")
        process = Absorbing(schedule=LogLinear(), time_input="sigma" if time else "mask_prob")
        base = replace(_recipe(MaskedELBO), process=process, denoiser=MaskDenoiserConfig(time=time))
    data = f"hf:{settings.get(str, 'data.train', default='openwebtext')}"
    length = settings.get(int, "model.length", "model_length")
    return replace(base, backbone=backbone, text=TextConfig(data=data, field="text", length=length, **text))


def _recipe(objective: type[ObjectivePart]) -> Config:
    """The recipe that was published with this objective and masks."""
    found = (recipes.get(name)("as_published") for name in recipes.names() if "as_published" in recipes.variants(name))
    return next(c for c in found if isinstance(c.objective, objective) and isinstance(c.process, Absorbing))


def _backbone(path: Path, settings: Settings, tensors: dict[str, Tensor]) -> TransformerConfig:
    _, width = _shape(path, tensors, "vocab_embed.embedding", 2)
    if (count := settings.get(int, "model.n_heads", "n_heads")) != heads(width):
        raise UserError(f"{settings.path}: {count} heads of {width} features; there can be {heads(width)}, 64 wide.")
    blocks = [int(found[1]) for name in tensors if (found := re.match(r"blocks\.(\d+)\.", name))]
    timed = any(name.startswith("sigma_map.") for name in tensors)
    return TransformerConfig(
        width=width,
        depth=max(blocks, default=0) + 1,
        mlp_ratio=_shape(path, tensors, "blocks.0.mlp.0.weight", 2)[0] // width,
        modulation="adaln" if timed else "none",
        cond_dim=_shape(path, tensors, "sigma_map.mlp.2.weight", 2)[0] if timed else 1,
        activation="gelu",
        qk_norm=False,
        absolute_positions=False,
        bias=True,
        norm_weight=True,
        norm_bias=not timed,
        time_frequency=1.0,
        dropout=settings.get(float, "model.dropout", "dropout", default=0.0),
    )


def _tokenizer(given: str | Path, folder: Path, vocab_size: int) -> tuple[Tokenizer, dict[str, Any]]:
    """The tokenizer, and the settings of text that name it."""
    if given == "bytes":
        found, text = Bytes(), {"tokenizer": "bytes"}
    elif given or any((folder / name).exists() for name in ("tokenizer.json", "vocab.json")):
        path = Path(given or folder)
        found, text = load_any(path, ()), {"tokenizer": "file", "tokenizer_path": str(path)}
    else:
        raise UserError(
            f"{folder} has no tokenizer: give --tokenizer FOLDER with GPT-2's vocab.json and merges.txt or with the "
            "tokenizer.json the weights were trained with, or --tokenizer bytes."
        )
    if found.vocab_size != vocab_size:
        raise UserError(
            f"The tokenizer has {found.vocab_size:,} tokens, the weights have {vocab_size:,} (and the mask); "
            "give --tokenizer the one they were trained with."
        )
    return found, text


def _fill(model: DiffusionModel, path: Path, tensors: dict[str, Tensor]) -> None:
    target = {_published(name): tensor for name, tensor in tensors_of(model).items()}
    if missing := [name for name in target if name not in tensors]:
        raise UserError(f"{path} lacks {missing[0]}{_others(missing)}: it is in none of the known layouts.")
    if unknown := [name for name in tensors if name not in target]:
        raise UserError(f"{path} has an unknown {unknown[0]}{_others(unknown)}: it is in none of the known layouts.")
    for name, tensor in target.items():
        expected = [len(tensor) + name.startswith(HEAD), *tensor.shape[1:]]
        if [*tensors[name].shape] != expected:
            raise UserError(f"{path}: {name} has shape {[*tensors[name].shape]}, not {expected}.")
        with torch.no_grad():
            tensor.copy_(tensors[name][: len(tensor)])


def _published(name: str) -> str:
    for ours, theirs in NAMES.items():
        name = name.replace(ours, theirs)
    return name


def _shape(path: Path, tensors: dict[str, Tensor], name: str, axes: int) -> list[int]:
    if name not in tensors:
        raise UserError(f"{path} lacks {name}: it is in none of the known layouts.")
    if tensors[name].ndim != axes:
        raise UserError(f"{path}: {name} has shape {[*tensors[name].shape]}; it must have {axes} axes.")
    return [*tensors[name].shape]


def _others(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
