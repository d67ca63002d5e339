"""Published weights as a run of this package, with the same network."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import recipes
from ..config.build import build_model
from ..config.config import Config, loads
from ..core.errors import UserError
from ..core.files import check_new_folder
from ..core.reading import read_text
from ..data.config import TextConfig
from ..data.tokenizers.base import Bytes, Tokenizer
from ..data.tokenizers.loading import load_any
from ..diffusion.absorbing import Absorbing
from ..diffusion.alpha_schedules import LogLinear
from ..diffusion.blocks import BlockAbsorbing
from ..diffusion.densities import Uniform
from ..diffusion.model import DiffusionModel
from ..inference.api import TextDiffusion
from ..networks.layers import num_heads
from ..networks.score_denoiser import ScoreDenoiserConfig
from ..networks.token_denoiser import MaskDenoiserConfig
from ..networks.transformer import TransformerConfig
from ..objectives.base import Objective
from ..objectives.masked import MaskedELBO
from ..objectives.score_entropy import ScoreEntropy
from ..samplers.blocks import BlockUnmasking
from ..storage.hub import download_files
from ..storage.weights import tensors_of
from .formats import find_format
from .language_models import convert_language_model
from .settings import PublishedSettings, find_settings
from .tensors import find_weights, read_tensors
from .vocabulary import FILES as VOCABULARY_FILES

HUB_FILES = ["config.json", "*.safetensors", "model.safetensors.index.json", ".hydra/config.yaml", *VOCABULARY_FILES]

NAMES = {  # ours and theirs; a name may match several times
    "denoiser.embedding.tokens.weight": "vocab_embed.embedding",
    "denoiser.backbone.time.": "sigma_map.",
    "denoiser.backbone.norm.": "output_layer.norm_final.",
    "denoiser.backbone.modulate.": "output_layer.adaLN_modulation.",
    "denoiser.backbone.blocks.": "blocks.",
    "denoiser.head.": "output_layer.linear.",
    ".qkv.": ".attn_qkv.",
    ".out.": ".attn_out.",
    ".up.": ".mlp.0.",
    ".down.": ".mlp.2.",
    ".modulate.": ".adaLN_modulation.",
}
HEAD = "output_layer.linear."  # its last row is the mask's, which is never predicted


def convert(
    source: str | Path,
    out: str | Path,
    *,
    tokenizer: str | Path = "",
    allow_pickle: bool = False,
    copy: bool = False,
    block: int | None = None,
    mask: str = "",
) -> TextDiffusion:
    """Converts published weights to a run in the folder `out`: of a language model, or in the layout of SEDD.

    `source` is a folder, a file of weights beside their config.json or .hydra/config.yaml, or a hub id. The run of a
    language model refers to its weights where they lie, or has a copy of them (`copy`); `block` is the block size of
    its attention (0: full, None: as published), and `mask` the name of its mask where nothing else says it. Of a run
    with an adapter, the new run has the merged weights.
    `tokenizer` is a vocabulary's file or folder, or `bytes` (empty: look in the source's folder). Files other than
    safetensors are read only with `allow_pickle`, and then only their tensors. Raises UserError for the first thing
    that is missing, unknown or does not fit.
    """
    folder, out, revision = Path(source), Path(out), ""
    check_new_folder(out, "the run")
    if not folder.exists() and str(source).count("/") == 1 and not str(source).startswith((".", "/", "~")):
        folder = download_files(str(source), HUB_FILES)
        revision = folder.name
    if not folder.exists():
        raise UserError(f"There is no folder or file {source}, and it is no hub id (owner/name).")
    settings = _settings(folder)
    if "schema" in settings.data:
        return _merged(folder, out)
    if folder.is_dir() and (form := find_format(settings, block)):
        return convert_language_model(
            str(source), folder, out, settings, form, tokenizer=tokenizer, mask=mask, copy=copy, revision=revision
        )
    path = find_weights(folder)
    settings.check()
    tensors, prefixed = read_tensors(path, allow_pickle)
    vocab_size = _shape(path, tensors, "vocab_embed.embedding", 2)[0] - 1
    run_tokenizer, text = _tokenizer(tokenizer, settings.path.parent, vocab_size)
    config = _config(path, settings, tensors, prefixed, text)
    model = build_model(config, vocab_size)
    _copy_weights(model, path, tensors)
    run = TextDiffusion(model.eval().requires_grad_(False), run_tokenizer, config)
    run.save_pretrained(out)
    return run


def _merged(folder: Path, out: Path) -> TextDiffusion:
    """The run in a folder with its adapter in its weights, written to `out`."""
    backbone = loads(read_text(folder / "config.json"), str(folder / "config.json")).backbone
    if not getattr(backbone, "lora_rank", 0):
        raise UserError(f"{folder} is a run already; convert takes published weights, or a run with an adapter.")
    merged = TextDiffusion.from_pretrained(folder).merged()
    merged.save_pretrained(out)
    return merged


def _settings(source: Path) -> PublishedSettings:
    folders = (source,) if source.is_dir() else (source.parent, source.parent.parent)
    settings = next(filter(None, map(find_settings, folders)), None)
    if settings is None:
        raise UserError(f"{source} needs the settings it was trained with: no config.json or .hydra/config.yaml here.")
    return settings


def _config(
    path: Path, settings: PublishedSettings, tensors: dict[str, Tensor], prefixed: bool, text: dict[str, Any]
) -> Config:
    """The configuration of the published model; the tensors give its sizes."""
    backbone = _backbone(path, settings, tensors)
    timed = backbone.modulation != "none"
    if settings.data.get("model_type") == "bd3lm":
        base = replace(
            recipes.get("block_diffusion")("as_published"),
            process=BlockAbsorbing(schedule=LogLinear(), block_size=settings.get(int, "block_size")),
            time_density=Uniform(),
            sampler=BlockUnmasking(order="random", top_p=0.9),  # one token a step, as first-hitting sampling draws them
        )
        if settings.get(bool, "time_conditioning", default=False):
            raise UserError(f"{settings.path}: time_conditioning is true; block diffusion here has no time input.")
    elif timed and not prefixed:
        base = replace(
            _recipe(ScoreEntropy),
            denoiser=ScoreDenoiserConfig(scale_by_sigma=settings.get(bool, "model.scale_by_sigma")),
        )
    else:
        # Without time conditioning MDLM's network still has adaptive norms and reads 0; RADD's network has none.
        time = timed and settings.get(bool, "time_conditioning")
        process = Absorbing(schedule=LogLinear(), time_input="sigma" if time else "mask_prob")
        base = replace(_recipe(MaskedELBO), process=process, denoiser=MaskDenoiserConfig(time=time))
    data = f"hf:{settings.get(str, 'data.train', default='openwebtext')}"
    length = settings.get(int, "model.length", "model_length")
    return replace(base, backbone=backbone, text=TextConfig(data=data, field="text", length=length, **text))


def _recipe(objective: type[Objective]) -> Config:
    """The published recipe with this objective and masks."""
    published = (
        recipes.get(name)("as_published") for name in recipes.names() if "as_published" in recipes.variants(name)
    )
    return next(c for c in published if isinstance(c.objective, objective) and isinstance(c.process, Absorbing))


def _backbone(path: Path, settings: PublishedSettings, tensors: dict[str, Tensor]) -> TransformerConfig:
    _, width = _shape(path, tensors, "vocab_embed.embedding", 2)
    if (count := settings.get(int, "model.n_heads", "n_heads")) != num_heads(width):
        raise UserError(
            f"{settings.path}: {count} heads of {width} features; it must have {num_heads(width)}, 64 wide."
        )
    blocks = [int(match[1]) for name in tensors if (match := re.match(r"blocks\.(\d+)\.", name))]
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
        norm_bias="blocks.0.norm1.bias" in tensors,
        time_frequency=1.0,
        dropout=settings.get(float, "model.dropout", "dropout", default=0.0),
    )


def _tokenizer(source: str | Path, folder: Path, vocab_size: int) -> tuple[Tokenizer, dict[str, Any]]:
    """The tokenizer, and the text settings that name it."""
    if source == "bytes":
        tokenizer, text = Bytes(), {"tokenizer": "bytes"}
    elif source or any((folder / name).exists() for name in ("tokenizer.json", "vocab.json")):
        path = Path(source or folder)
        tokenizer, text = load_any(path, ()), {"tokenizer": "file", "tokenizer_path": str(path)}
    else:
        raise UserError(
            f"{folder} has no tokenizer: give --tokenizer FOLDER with GPT-2's vocab.json and merges.txt or with the "
            "tokenizer.json of the weights, or --tokenizer bytes."
        )
    if tokenizer.vocab_size != vocab_size:
        raise UserError(
            f"The tokenizer has {tokenizer.vocab_size:,} tokens, the weights have {vocab_size:,} (and the mask); "
            "set --tokenizer to the one they were trained with."
        )
    return tokenizer, text


def _copy_weights(model: DiffusionModel, path: Path, tensors: dict[str, Tensor]) -> None:
    target = {_published(name): tensor for name, tensor in tensors_of(model).items() if name != "step"}
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
