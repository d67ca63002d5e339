"""A BERT-type encoder as the backbone, and token vectors that others trained."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.errors import UserError
from ..core.reading import read_object
from ..core.registry import builds, check_bounds
from ..core.types import AttentionMask, Hidden, NoiseTimes, PositionIds
from ..data.tokenizers.base import Tokenizer
from ..data.tokenizers.loading import load_any
from ..diffusion.table_codecs import TableCodec
from ..storage.weights import load_tensors
from .backbone import BackboneConfig, Modulation
from .layers import Linear, TimeEmbedding, zero_init


@dataclass(frozen=True)
class BertConfig(BackboneConfig):
    """The encoder of BERT from the package `transformers`; the defaults are the size of BERT-base.

    A new run begins with the weights in the folder `pretrained`, if any; `frozen` keeps them fixed.
    """

    modulation: ClassVar[Modulation] = "added"

    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: int = 4
    positions: int = 512
    cond_dim: int = 128
    time_frequency: float = 1000.0
    dropout: float = 0.1
    pretrained: str = ""
    frozen: bool = False

    def __post_init__(self) -> None:
        check_bounds(self, depth=(1, None), heads=(1, None), mlp_ratio=(1, None), positions=(1, None))
        check_bounds(self, cond_dim=(1, None), dropout=(0.0, 0.99), time_frequency=(1e-6, None))
        if self.width < 1 or self.width % self.heads:
            raise UserError(f"backbone.width is {self.width}; it must be a multiple of backbone.heads, {self.heads}.")
        if self.frozen and not self.pretrained:
            raise UserError("backbone.frozen keeps pretrained weights fixed; set backbone.pretrained to their folder.")

    def load_pretrained(self, backbone: BertBackbone) -> str | None:
        return backbone.load_pretrained(Path(self.pretrained)) if self.pretrained else None


@builds(BertConfig)
class BertBackbone(nn.Module):
    """Features in, features out through the encoder of BERT (Devlin et al. 2019) as `transformers` builds it.

    An embedding of the noise level is added to the features, as are the encoder's learned positions. If `frozen`, the
    encoder's own weights are not trained.
    """

    modulation: Modulation = "added"

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.width, self.positions, self.compute_dtype = config.width, config.positions, torch.float32
        self.shape = {
            "hidden_size": config.width,
            "num_hidden_layers": config.depth,
            "num_attention_heads": config.heads,
            "intermediate_size": config.mlp_ratio * config.width,
            "max_position_embeddings": config.positions,
        }
        dropout = {"hidden_dropout_prob": config.dropout, "attention_probs_dropout_prob": config.dropout}
        settings = transformers().BertConfig(vocab_size=1, **self.shape, **dropout)
        bert = transformers().BertModel(settings, add_pooling_layer=False)
        bert.embeddings.word_embeddings = nn.Identity()  # it never sees ids
        self.embeddings, self.encoder, self.blocks = bert.embeddings, bert.encoder, bert.encoder.layer
        if config.frozen:
            bert.requires_grad_(False)
        self.time = TimeEmbedding(config.cond_dim, max_frequency=config.time_frequency)
        self.time_proj = zero_init(Linear(config.cond_dim, config.width))

    def forward(
        self, x: Hidden, noise_level: NoiseTimes | None, positions: PositionIds, mask: AttentionMask | None
    ) -> Hidden:
        """`noise_level` is that of rows or positions (None: not added). Raises UserError at rows that are too long."""
        if x.shape[1] > self.positions:
            raise UserError(f"{x.shape[1]} tokens are too many for the encoder, which has {self.positions} positions.")
        if noise_level is not None:
            x = x + self.time_proj(self.time(noise_level))
        autocast = self.compute_dtype != torch.float32
        with torch.autocast(x.device.type, dtype=self.compute_dtype, enabled=autocast):
            hidden = self.embeddings(inputs_embeds=x, position_ids=positions)
            dtype = hidden.dtype
            penalty = None if mask is None else torch.where(mask, 0.0, torch.finfo(dtype).min).to(dtype)
            return self.encoder(hidden, attention_mask=penalty)[0].to(self.compute_dtype)

    def load_pretrained(self, folder: Path) -> str:
        """Copies the weights of a pretrained encoder and reports it. Raises UserError if its shape differs."""
        try:
            config = read_object(folder / "config.json")
            if config.get("model_type") != "bert":
                raise UserError(f"{folder} has a model of type {config.get('model_type')!r}; it must be 'bert'.")
            options = {"local_files_only": True, "use_safetensors": True, "add_pooling_layer": False}
            encoder = transformers().BertModel.from_pretrained(folder, **options)
        except (OSError, ValueError) as error:
            raise UserError(f"{folder} has no pretrained encoder: {str(error).splitlines()[0]}") from None
        shape = {name: getattr(encoder.config, name) for name in self.shape}
        if shape != self.shape:
            width = shape["hidden_size"]
            raise UserError(
                f"The encoder in {folder} has a different shape; set backbone.width={width} "
                f"backbone.depth={shape['num_hidden_layers']} backbone.heads={shape['num_attention_heads']} "
                f"backbone.mlp_ratio={shape['intermediate_size'] // width} "
                f"backbone.positions={shape['max_position_embeddings']}."
            )
        encoder.embeddings.word_embeddings = nn.Identity()
        self.embeddings.load_state_dict(encoder.embeddings.state_dict())
        self.encoder.load_state_dict(encoder.encoder.state_dict())
        return f"The encoder starts from the weights in {folder}."


def transformers() -> Any:
    """The package `transformers`. Raises UserError if it is not installed."""
    try:
        return importlib.import_module("transformers")
    except ImportError:
        raise UserError("A pretrained network needs transformers: pip install 'textdiffusion[pretrained]'.") from None


WORD_EMBEDDINGS = "word_embeddings.weight"  # the end of the name that BERT-type encoders give their table


@torch.no_grad()
def load_pretrained_embeddings(codec: TableCodec, path: Path, tokenizer: Tokenizer) -> str:
    """Copies the vectors in `path` to the rows of `codec` by token, and reports how many tokens have one.

    `path` is a .txt file with a token and its numbers on each line (as word2vec and GloVe write), a .safetensors file
    with one table in the order of the tokenizer, or the folder of a pretrained encoder. Tokens are matched by their
    text without surrounding spaces. One factor scales all vectors to the root mean square of clean states. Raises
    UserError if no token has a vector, or vectors have the wrong length.
    """
    if path.suffix == ".safetensors":
        table = _only_table(path)
        if len(table) != tokenizer.vocab_size:
            raise UserError(f"{path} has {len(table)} vectors, but the tokenizer has {tokenizer.vocab_size} tokens.")
        vectors = dict(enumerate(table))
    else:
        ids: dict[str, list[int]] = {}
        for i in range(tokenizer.vocab_size):
            ids.setdefault(_stripped(tokenizer.token_text(i)), []).append(i)
        named = _encoder_vectors(path) if path.is_dir() else _text_vectors(path)
        vectors = {i: vector for name, vector in named for i in ids.get(name, [])}
    if not vectors:
        raise UserError(f"{path} has no vector for any token of the tokenizer.")
    for vector in vectors.values():
        if len(vector) != codec.dim:
            raise UserError(f"{path} has vectors of {len(vector)} numbers; set codec.dim={len(vector)}.")
    values = torch.stack(list(vectors.values())).float().to(codec.weight.device)
    scale = codec.norm / codec.dim**0.5 / values.square().mean().sqrt()
    codec.weight[list(vectors)] = values * scale
    return f"{len(vectors):,} of {tokenizer.vocab_size:,} tokens start from the vectors in {path}."


def _stripped(text: str) -> str:
    return text.strip() or text


def _only_table(path: Path) -> Float[Tensor, "n d"]:
    tables = [tensor for tensor in load_tensors(path).values() if tensor.ndim == 2]
    if len(tables) != 1:
        raise UserError(f"{path} has {len(tables)} tables; it must have one, with a row per token.")
    return tables[0]


def _encoder_vectors(path: Path) -> Iterator[tuple[str, Tensor]]:
    tensors = load_tensors(path / "model.safetensors")
    tables = [tensor for name, tensor in tensors.items() if name.endswith(WORD_EMBEDDINGS)]
    if not tables:
        raise UserError(f"{path} is not a pretrained encoder: model.safetensors has no {WORD_EMBEDDINGS}.")
    vocabulary = load_any(path, ())
    for i in range(min(vocabulary.vocab_size, len(tables[0]))):
        yield _stripped(vocabulary.token_text(i)), tables[0][i]


def _text_vectors(path: Path) -> Iterator[tuple[str, Tensor]]:
    number = 0
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                name, *values = line.rstrip().split(" ")
                if number > 1 or len(values) > 1:  # word2vec's first line has the counts of words and numbers
                    yield _stripped(name), torch.tensor([float(value) for value in values])
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The vectors {path} cannot be read: {error}.") from None
    except ValueError:
        raise UserError(f"Line {number} of {path} is not a token followed by numbers.") from None
