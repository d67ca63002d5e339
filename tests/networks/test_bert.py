"""A BERT-type encoder as the backbone, from a folder made here."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.models import model_of
from textdiffusion.core.batch import Batch
from textdiffusion.core.errors import UserError
from textdiffusion.core.randomness import Rng
from textdiffusion.core.registry import build
from textdiffusion.networks import bert as module
from textdiffusion.networks.bert import BertConfig
from textdiffusion.recipes import get

SMALL: dict[str, Any] = {"width": 32, "depth": 2, "heads": 2, "mlp_ratio": 2, "positions": 12, "cond_dim": 8}


def test_without_transformers_a_sentence_says_what_to_install(monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(module.importlib, "import_module", absent)
    with pytest.raises(UserError, match=r"pip install 'textdiffusion\[pretrained\]'"):
        build(BertConfig(**SMALL))


def test_settings_without_effect_are_refused():
    with pytest.raises(UserError, match=r"set backbone\.pretrained"):
        BertConfig(frozen=True)
    with pytest.raises(UserError, match=r"multiple of backbone\.heads"):
        BertConfig(width=30, heads=4)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A tiny random BERT in a folder."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(3)
    config = transformers.BertConfig(
        vocab_size=9,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=12,
    )
    model = transformers.BertModel(config, add_pooling_layer=False).eval()
    folder = tmp_path_factory.mktemp("bert")
    model.save_pretrained(folder)
    return folder, model


def _inputs():
    torch.manual_seed(0)
    return torch.randn(2, 5, 32), torch.tensor([0.3, 0.7]), torch.arange(5)[None]


@pytest.mark.parametrize("frozen", [False, True])
def test_it_computes_what_the_pretrained_encoder_does(bert, frozen):
    folder, original = bert
    part = BertConfig(**SMALL, pretrained=str(folder), frozen=frozen)
    backbone: Any = build(part)
    backbone.eval()
    assert "starts from the weights" in (part.load_pretrained(backbone) or "")
    x, level, at = _inputs()
    mask = torch.ones(2, 1, 5, 5, dtype=torch.bool)
    mask[1, ..., 3:] = False
    with torch.no_grad():
        expected = original(inputs_embeds=x, attention_mask=mask[:, 0, 0].long()).last_hidden_state
        said = backbone(x, level, at, mask)  # told of the noise only once it has learned to be
        whole = backbone(x, level, at, None)
    torch.testing.assert_close(said[0], expected[0])
    torch.testing.assert_close(said[1, :3], expected[1, :3])
    torch.testing.assert_close(whole[0], expected[0])
    learning = {name.split(".")[0] for name, p in backbone.named_parameters() if p.requires_grad}
    assert learning == ({"time", "time_proj"} if frozen else {"time", "time_proj", "embeddings", "encoder"})


def test_a_model_with_it_learns_and_its_noise_level_matters(bert):
    part = BertConfig(**SMALL, pretrained=str(bert[0]), dropout=0.0)
    config = replace(get("diffusion_lm")(), backbone=part)
    model = model_of(config, 9)
    part.load_pretrained(model.denoiser.backbone)
    batch = Batch(torch.randint(9, (4, 8)))
    torch.nn.init.normal_(model.denoiser.output_head.output.weight)
    model.objective(model, batch, rng=Rng.of(0, 4)).total.backward()
    assert all(p.grad is not None for p in model.denoiser.backbone.parameters() if p.requires_grad)
    with pytest.raises(UserError, match="13 tokens are too many"):
        model.objective(model, Batch(torch.zeros(1, 13, dtype=torch.long)), rng=Rng.of(0, 1))


def test_an_encoder_of_another_shape_or_kind_is_refused(bert, tmp_path):
    part = replace(BertConfig(**SMALL, pretrained=str(bert[0])), depth=1)
    with pytest.raises(
        UserError, match=r"set backbone.width=32 backbone.depth=2 backbone.heads=2 backbone.mlp_ratio=2 backbone.pos"
    ):
        part.load_pretrained(build(part))
    part = BertConfig(**SMALL, pretrained=str(tmp_path))
    with pytest.raises(UserError, match=r"config\.json is missing"):
        part.load_pretrained(build(part))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}), encoding="utf-8")
    with pytest.raises(UserError, match="of type 'gpt2'; it must be 'bert'"):
        part.load_pretrained(build(part))
