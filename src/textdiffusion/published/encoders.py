"""Encoders of BERT's type without a head for masked tokens, such as those of sentence embeddings, get one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..core.files import atomic, make_folder
from ..storage.weight_files import SINGLE, WeightFiles, record_files
from ..storage.weights import NETWORK

FOLDER = "weights"
"""The folder of a run with its copy of published weights."""

_BODIES = {"bert": "bert.", "modernbert": "model."}
_EMBEDDINGS = ("embeddings.word_embeddings.weight", "embeddings.tok_embeddings.weight")
_MAPS = {"bert": "cls.predictions.transform.dense.weight", "modernbert": "head.dense.weight"}
_SCALES = {"bert": "cls.predictions.transform.LayerNorm.weight", "modernbert": "head.norm.weight"}
_BIASES = {
    "bert": ("cls.predictions.transform.dense.bias", "cls.predictions.transform.LayerNorm.bias"),
    "modernbert": (),
}
_TOKEN_BIASES = {"bert": "cls.predictions.bias", "modernbert": "decoder.bias"}


def with_body_prefix(files: WeightFiles, folder: Path, model_type: str) -> WeightFiles:
    """The files of a bare encoder with the names that it has within a masked language model; others as they are."""
    body = _BODIES.get(model_type, "")
    return (
        files if any(name.startswith(body) for name in _names(files, folder)) else replace(files, prefix=NETWORK + body)
    )


def lacks_head(files: WeightFiles, folder: Path, model_type: str) -> bool:
    """Whether the files are an encoder's without a head for masked tokens."""
    return model_type in _MAPS and _MAPS[model_type] not in _names(files, folder)


def copied_with_head(files: WeightFiles, folder: Path, out: Path, model_type: str) -> WeightFiles:
    """Copies the weights of an encoder to the run `out`, with a head that begins as the tied embedding.

    Its map is the identity, its scale is 1 and its biases are 0.
    """
    paths = [folder / name for name in files.files]
    tensors = {name.removeprefix(NETWORK): tensor for name, tensor in files.tensors(paths)}
    embedding = next(tensor for name, tensor in tensors.items() if name.endswith(_EMBEDDINGS))
    make_folder(out / FOLDER)
    with atomic(out / FOLDER / SINGLE) as partial:
        save_file(tensors | _head(model_type, embedding), partial, metadata={"format": "pt"})
    return WeightFiles(FOLDER, record_files(out / FOLDER), prefix=NETWORK)


def _head(model_type: str, embedding: Tensor) -> dict[str, Tensor]:
    rows, width = embedding.shape
    like = {"dtype": embedding.dtype}
    return {
        _MAPS[model_type]: torch.eye(width, **like),
        _SCALES[model_type]: torch.ones(width, **like),
        _TOKEN_BIASES[model_type]: torch.zeros(rows, **like),
    } | {name: torch.zeros(width, **like) for name in _BIASES[model_type]}


def _names(files: WeightFiles, folder: Path) -> set[str]:
    tensors = files.header([folder / name for name in files.files]).tensors
    return {name.removeprefix(NETWORK) for name in tensors}
