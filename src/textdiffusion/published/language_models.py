"""Published language models as runs, which refer to their weights or hold a copy."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from .. import recipes
from ..config.config import Config, dumps
from ..config.identity import run_identity
from ..core.errors import UserError
from ..core.files import atomic, make_folder, write_text
from ..data.config import UNKNOWN, TextConfig
from ..data.tokenizers.base import fingerprint
from ..diffusion.blocks import BlockAbsorbing
from ..inference.api import TextDiffusion
from ..networks.language_model import CAUSAL_TYPES, LanguageModelConfig
from ..networks.lm_denoiser import LMBlockDenoiserConfig, LMDenoiserConfig
from ..objectives.masked import MaskedELBO
from ..storage.weight_files import INDEX, WeightFiles, record_files
from ..storage.weights import DTYPES, NETWORK
from .encoders import FOLDER as COPY
from .encoders import copied_with_head, lacks_head, with_body_prefix
from .formats import Format
from .settings import PublishedSettings
from .vocabulary import Vocabulary, read_vocabulary

TIED = "lm_head.weight"
DROPPED = ("auto_map", "architectures", "transformers_version", "is_causal", "dtype", "torch_dtype", "_name_or_path")
COMPUTED = ("rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", "embeddings.position_ids")
"""Ends of the names of tensors that follow from the settings."""
UNTRAINED = ("cls.seq_relationship.", "bert.pooler.")
"""Beginnings of the names of BERT's parts for other tasks than masked tokens."""


def convert_language_model(
    source: str,
    folder: Path,
    out: Path,
    settings: PublishedSettings,
    form: Format,
    *,
    tokenizer: str | Path = "",
    mask: str = "",
    copy: bool = False,
    revision: str = "",
) -> TextDiffusion:
    """Writes the run in the folder `out` and loads it.

    `folder` has the files of `source`, which is the folder itself or a hub id at the commit `revision`. `mask` names
    the mask's token where nothing else does. Raises UserError where something is missing or does not fit; then `out`
    has no config.json.
    """
    if "quantization_config" in settings.data:
        raise UserError(f"{settings.path}: quantised weights cannot be read; use the unquantised ones.")
    architecture = {k: v for k, v in form.network(settings).items() if k not in DROPPED}
    vocabulary = read_vocabulary(folder, tokenizer, str(architecture["model_type"]))
    files = WeightFiles(
        source=source if revision else str(folder.resolve()),
        revision=revision,
        files=record_files(folder),
        prefix=NETWORK,
        renamed=_renamed(form, architecture, folder),
    )
    model_type = str(architecture["model_type"])
    files = with_body_prefix(files, folder, model_type)
    files = replace(files, ignored=_ignored(files, folder, architecture))
    ids = {"mask_id": _mask_id(settings, form, vocabulary, mask), "shift": form.shift, "unused": vocabulary.unused}
    config = _config(str(tokenizer or source), settings, form, architecture, ids, _dtype(files, folder))
    make_folder(out)
    if lacks_head(files, folder, model_type):
        files = copied_with_head(files, folder, out, model_type)
    elif copy:
        files = _copied(files, folder, out)
    files = replace(files, identity=run_identity(config, fingerprint(vocabulary.tokenizer), {}))
    vocabulary.tokenizer.save(out / "tokenizer.json")
    vocabulary.write(out)
    files.write(out)
    try:
        write_text(out / "config.json", dumps(config))
        run = TextDiffusion.from_pretrained(out)
    except UserError:
        (out / "config.json").unlink(missing_ok=True)
        raise
    write_text(out / "README.md", run.card(out.name))
    return run


def _renamed(form: Format, architecture: dict[str, object], folder: Path) -> dict[str, str]:
    """The texts to replace in names. Files of a bare GPT-2 have no prefix."""
    if form.renamed:
        return dict(form.renamed)
    if architecture["model_type"] == "gpt2":
        bare = WeightFiles("", record_files(folder))
        names = bare.header([folder / name for name in bare.files]).tensors
        if not any(name.startswith("transformer.") for name in names):
            return {
                "wte.": "transformer.wte.",
                "wpe.": "transformer.wpe.",
                "h.": "transformer.h.",
                "ln_f.": "transformer.ln_f.",
            }
    return {}


def _ignored(files: WeightFiles, folder: Path, architecture: dict[str, object]) -> tuple[str, ...]:
    """The names of tensors that the network has no parameter of its own for."""
    names = files.header([folder / name for name in files.files]).tensors
    model_type = architecture["model_type"]
    is_tied = bool(architecture.get("tie_word_embeddings", model_type in ("gpt2", "bert", "modernbert")))
    tied = {TIED} if is_tied else set()
    if is_tied and NETWORK + TIED in names:
        _check_tied(files, folder)
    if model_type == "bert":
        tied |= {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}
    if model_type == "modernbert":
        tied |= {"decoder.weight"}
    return tuple(
        name
        for name in names
        if (bare := name.removeprefix(NETWORK)) in tied or bare.endswith(COMPUTED) or bare.startswith(UNTRAINED)
    )


def _check_tied(files: WeightFiles, folder: Path) -> None:
    """Raises UserError where a head that should be the embedding is not."""
    paths = [folder / name for name in files.files]
    pair = [
        tensor for name, tensor in files.tensors(paths) if name.endswith((TIED, "embed_tokens.weight", "wte.weight"))
    ]
    if not all(torch.equal(pair[0], tensor) for tensor in pair):
        raise UserError(f"{folder}: config.json ties the head to the embedding, but their weights differ.")


def _dtype(files: WeightFiles, folder: Path) -> str:
    """The type of the parameters: that of most tensors."""
    kinds = [info.dtype for info in files.header([folder / name for name in files.files]).tensors.values()]
    most = DTYPES[max(sorted(set(kinds)), key=kinds.count)]
    if not most.is_floating_point or most.itemsize > 4:
        raise UserError(f"{folder} has weights of type {most}; they must be float32, bfloat16 or float16.")
    return str(most).removeprefix("torch.")


def _config(
    tokenizer: str,
    settings: PublishedSettings,
    form: Format,
    architecture: dict[str, object],
    ids: dict[str, Any],
    dtype: str,
) -> Config:
    base = recipes.get("block_diffusion" if form.block_size else "mdlm")("default")
    backbone = LanguageModelConfig(architecture=dict(architecture), dtype=dtype)  # pyrefly: ignore[bad-argument-type]
    process = BlockAbsorbing(block_size=form.block_size) if form.block_size else base.process
    denoiser = LMBlockDenoiserConfig(**ids) if form.block_size else LMDenoiserConfig(**ids)
    if form.block_size and architecture["model_type"] not in CAUSAL_TYPES:
        raise UserError(f"{settings.path}: a masked language model has no blocks; leave --block out.")
    return replace(
        base,
        variant=form.name,
        text=TextConfig(data=UNKNOWN, tokenizer="file", tokenizer_path=tokenizer, length=form.length),
        process=process,
        backbone=backbone,
        denoiser=denoiser,
        objective=MaskedELBO(max_weight=0.0),
        sampler=form.sampler,
    )


def _mask_id(settings: PublishedSettings, form: Format, vocabulary: Vocabulary, mask: str) -> int:
    """The mask's row: as config.json says, or the tokenizer, or the format's authors; else the first free row."""
    if mask:
        if (i := vocabulary.id_of(mask)) is None:
            raise UserError(f"--mask is {mask!r}, which is not a token of the tokenizer.")
        return i
    known = settings.data.get("mask_token_id")
    if isinstance(known, int) and not isinstance(known, bool):
        return known
    named = vocabulary.special.get("mask_token") or "<|mask|>"
    if (i := vocabulary.id_of(named)) is not None:
        return i
    if form.mask_id is not None:
        return form.mask_id
    rows = settings.data.get("vocab_size")
    if isinstance(rows, int) and rows > vocabulary.tokenizer.vocab_size:
        return vocabulary.tokenizer.vocab_size
    raise UserError(
        f"{settings.path} names no mask: neither mask_token_id, nor a mask_token of its tokenizer, nor a row of the "
        "embedding without a token. Name a token that text never has: --mask TOKEN."
    )


def _copied(files: WeightFiles, folder: Path, out: Path) -> WeightFiles:
    make_folder(out / COPY)
    for name in files.files:
        with atomic(out / COPY / name) as partial:
            shutil.copyfile(folder / name, partial)
    if (folder / INDEX).is_file():
        shutil.copyfile(folder / INDEX, out / COPY / INDEX)
    return replace(files, source=COPY, revision="")
