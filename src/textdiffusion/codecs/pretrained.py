"""Pretrained vectors for the tokens of a tokenizer, from files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import UserError
from ..text.tokenizers import Tokenizer
from ..training.weights import load_tensors
from .table import TableCodec

WORDS = "word_embeddings.weight"  # how the table of a BERT-type encoder's file ends


@torch.no_grad()
def begin_with(codec: TableCodec, path: Path, tokenizer: Tokenizer) -> str:
    """Fills the rows of `codec` whose tokens `path` has a vector for, and says how many these are.

    `path` is a .txt file with a token and its numbers on each line (word2vec's, GloVe's), a .safetensors file with one
    table in the order of the tokenizer, or the folder of a pretrained encoder. Vectors are matched by the token's text
    without spaces around it, and scaled together to the root mean square that clean states begin with. Raises UserError
    where there are none, or none of the right length.
    """
    if path.suffix == ".safetensors":
        rows = _only_table(path)
        if len(rows) != tokenizer.vocab_size:
            raise UserError(f"{path} has {len(rows)} vectors, but the tokenizer has {tokenizer.vocab_size} tokens.")
        found = dict(enumerate(rows))
    else:
        ids: dict[str, list[int]] = {}
        for i in range(tokenizer.vocab_size):
            ids.setdefault(_name(tokenizer.token_text(i)), []).append(i)
        named = _of_folder(path) if path.is_dir() else _of_lines(path)
        found = {i: row for name, row in named for i in ids.get(name, [])}
    if not found:
        raise UserError(f"{path} has no vector for any token of the tokenizer.")
    for row in found.values():
        if len(row) != codec.dim:
            raise UserError(f"{path} has vectors of {len(row)} numbers; set codec.dim={len(row)}.")
    values = torch.stack(list(found.values())).float().to(codec.weight.device)
    scale = codec.norm / codec.dim**0.5 / values.square().mean().sqrt()
    codec.weight[list(found)] = values * scale
    return f"{len(found):,} of {tokenizer.vocab_size:,} tokens begin with the vectors of {path}."


def _name(text: str) -> str:
    return text.strip() or text


def _only_table(path: Path) -> Float[Tensor, "n d"]:
    tables = [tensor for tensor in load_tensors(path).values() if tensor.ndim == 2]
    if len(tables) != 1:
        raise UserError(f"{path} has {len(tables)} tables; it must have one, a row for each token.")
    return tables[0]


def _of_folder(path: Path) -> Iterator[tuple[str, Tensor]]:
    from ..text.subwords import load_any

    tables = [tensor for name, tensor in load_tensors(path / "model.safetensors").items() if name.endswith(WORDS)]
    if not tables:
        raise UserError(f"{path} is no pretrained encoder: its model.safetensors has no {WORDS}.")
    vocabulary = load_any(path, ())
    for i in range(min(vocabulary.vocab_size, len(tables[0]))):
        yield _name(vocabulary.token_text(i)), tables[0][i]


def _of_lines(path: Path) -> Iterator[tuple[str, Tensor]]:
    number = 0
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                name, *values = line.rstrip().split(" ")
                if number > 1 or len(values) > 1:  # word2vec's first line has the counts of words and numbers
                    yield _name(name), torch.tensor([float(value) for value in values])
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The vectors {path} cannot be read: {error}.") from None
    except ValueError:
        raise UserError(f"Line {number} of {path} is no token with its numbers.") from None
