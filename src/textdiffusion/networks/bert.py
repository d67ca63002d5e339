"""A BERT-type encoder as the trunk, from random or pretrained weights."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..core.errors import UserError
from ..data.tokenizers.base import Tokenizer
from ..diffusion.codecs import TableCodec
from ..storage.weights import load_tensors
from .backbone import Modulation
from .transformer import Linear, TimeEmbedding


class BertBackbone(nn.Module):
    """Features in, features out through the encoder of BERT (Devlin et al. 2019) as `transformers` builds it.

    The noise level is added to the features, and so are learned positions. With `frozen` the encoder itself learns
    nothing; what is around it does.
    """

    modulation: Modulation = "added"

    def __init__(
        self,
        width: int,
        depth: int,
        *,
        heads: int,
        mlp_ratio: int,
        positions: int,
        cond_dim: int,
        time_frequency: float,
        dropout: float,
        frozen: bool,
    ) -> None:
        super().__init__()
        self.width, self.positions, self.compute_dtype = width, positions, torch.float32
        self.shape = {
            "hidden_size": width,
            "num_hidden_layers": depth,
            "num_attention_heads": heads,
            "intermediate_size": mlp_ratio * width,
            "max_position_embeddings": positions,
        }
        config = {**self.shape, "hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
        bert = transformers().BertModel(transformers().BertConfig(vocab_size=1, **config), add_pooling_layer=False)
        bert.embeddings.word_embeddings = nn.Identity()  # it never sees ids
        self.embeddings, self.encoder, self.blocks = bert.embeddings, bert.encoder, bert.encoder.layer
        if frozen:
            bert.requires_grad_(False)
        self.time = TimeEmbedding(cond_dim, fastest=time_frequency)
        self.told = Linear(cond_dim, width)
        nn.init.zeros_(self.told.weight)
        nn.init.zeros_(self.told.bias)

    def forward(
        self,
        x: Float[Tensor, "b l w"],
        level: Float[Tensor, "b *l"] | None,
        at: Int[Tensor, "#b l"],
        mask: Bool[Tensor, "#b 1 l l"] | None,
    ) -> Float[Tensor, "b l w"]:
        """As the transformer's. Raises UserError where the window is longer than the encoder has positions."""
        if x.shape[1] > self.positions:
            raise UserError(f"{x.shape[1]} tokens are too many for the encoder, which has {self.positions} positions.")
        if level is not None:
            x = x + self.told(self.time(level if level.ndim == 2 else level[:, None]))
        low = self.compute_dtype != torch.float32
        with torch.autocast(x.device.type, dtype=self.compute_dtype, enabled=low):
            h = self.embeddings(inputs_embeds=x, position_ids=at)
            unseen = None if mask is None else torch.where(mask, 0.0, torch.finfo(h.dtype).min).to(h.dtype)
            return self.encoder(h, attention_mask=unseen)[0].to(self.compute_dtype)

    def load_pretrained(self, folder: Path) -> str:
        """Takes the weights of a pretrained encoder and says so. Raises UserError where it has another shape."""
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            if config.get("model_type") != "bert":
                raise UserError(f"{folder} holds a model of type {config.get('model_type')!r}; it must be 'bert'.")
            options = {"local_files_only": True, "use_safetensors": True, "add_pooling_layer": False}
            found = transformers().BertModel.from_pretrained(folder, **options)
        except (OSError, ValueError) as error:
            raise UserError(f"{folder} holds no pretrained encoder: {str(error).splitlines()[0]}") from None
        wanted = {name: getattr(found.config, name) for name in self.shape}
        if wanted != self.shape:
            width = wanted["hidden_size"]
            raise UserError(
                f"The encoder in {folder} has another shape; set backbone.width={width} "
                f"backbone.depth={wanted['num_hidden_layers']} backbone.heads={wanted['num_attention_heads']} "
                f"backbone.mlp_ratio={wanted['intermediate_size'] // width} "
                f"backbone.positions={wanted['max_position_embeddings']}."
            )
        found.embeddings.word_embeddings = nn.Identity()
        self.embeddings.load_state_dict(found.embeddings.state_dict())
        self.encoder.load_state_dict(found.encoder.state_dict())
        return f"The encoder begins with the weights in {folder}."


def transformers() -> Any:
    """The package. Raises UserError where it is not installed."""
    try:
        return importlib.import_module("transformers")
    except ImportError:
        raise UserError("A pretrained network needs transformers: pip install 'textdiffusion[pretrained]'.") from None


WORDS = "word_embeddings.weight"  # how the table of a BERT-type encoder's file ends


@torch.no_grad()
def load_pretrained_embeddings(codec: TableCodec, path: Path, tokenizer: Tokenizer) -> str:
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
    from ..data.tokenizers.loading import load_any

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
