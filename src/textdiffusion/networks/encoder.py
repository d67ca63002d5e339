"""A BERT-type encoder as the trunk, from random or pretrained weights."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..errors import UserError
from .transformer import Linear, TimeEmbedding
from .trunk import Modulation


class Encoder(nn.Module):
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
        expansion: int,
        positions: int,
        conditioning: int,
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
            "intermediate_size": expansion * width,
            "max_position_embeddings": positions,
        }
        config = {**self.shape, "hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
        bert = transformers().BertModel(transformers().BertConfig(vocab_size=1, **config), add_pooling_layer=False)
        bert.embeddings.word_embeddings = nn.Identity()  # it never sees ids
        self.embeddings, self.encoder, self.blocks = bert.embeddings, bert.encoder, bert.encoder.layer
        if frozen:
            bert.requires_grad_(False)
        self.time = TimeEmbedding(conditioning, fastest=time_frequency)
        self.told = Linear(conditioning, width)
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

    def begin_with(self, folder: Path) -> str:
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
                f"The encoder in {folder} has another shape; set trunk.width={width} "
                f"trunk.depth={wanted['num_hidden_layers']} trunk.heads={wanted['num_attention_heads']} "
                f"trunk.expansion={wanted['intermediate_size'] // width} "
                f"trunk.positions={wanted['max_position_embeddings']}."
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
