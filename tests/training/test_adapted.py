"""Training language models: from causal weights, whole or by an adapter."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.models import model_of
from tests.published.language_models import plain_network, write_model
from textdiffusion import TextDiffusion, recipes
from textdiffusion.config.build import build_model
from textdiffusion.config.config import Config
from textdiffusion.config.overrides import apply_overrides
from textdiffusion.core.batch import Batch
from textdiffusion.core.errors import UserError
from textdiffusion.core.randomness import Rng
from textdiffusion.diffusion.prediction import Prediction
from textdiffusion.objectives.masked import MaskedELBO
from textdiffusion.published.conversion import convert
from textdiffusion.training.initial import load_initial
from textdiffusion.training.run import train

LORA = ("backbone.lora_rank=2", "training.lr=0.01")


def _config(tmp_path: Path, *settings: str, variant: str = "default") -> Config:
    data = tmp_path / "text.txt"
    if not data.exists():
        data.write_text("A ripe pear. A red fig. " * 300)
    small = ("text.length=16", "training.steps=4", "training.batch_size=4", "training.eval_windows=1")
    rest = (
        "training.num_samples=0",
        "training.eval_every=1000",
        "training.compile=off",
        f"text.data={data}",
        "training.dtype=float32",
    )
    return apply_overrides(recipes.get("adapted")(variant), [*small, *rest, *settings])


def _base(tmp_path: Path, name: str = "causal", **options) -> Path:
    write_model(tmp_path / "published", name, **options)
    convert(tmp_path / "published", tmp_path / "base")
    return tmp_path / "base"


def _train(tmp_path: Path, name: str, *settings: str, variant: str = "default", base: Path | None = None):
    config = _config(tmp_path, *settings, variant=variant)
    return train(config, tmp_path / name, init=base, device="cpu", cache=tmp_path / "cache")


@pytest.mark.parametrize("variant", ["default", "a2d"])
def test_a_causal_model_learns_to_denoise(tmp_path, variant):
    base = _base(tmp_path)
    _train(tmp_path, "run", "training.lr=0.02", "training.steps=8", variant=variant, base=base)
    run = TextDiffusion.from_pretrained(tmp_path / "run")
    assert run.model.denoiser.backbone.network.config.num_hidden_layers == 2  # the network of the other run
    before = TextDiffusion(_denoiser_of(base, run), run.tokenizer, run.config).score(["A red"], draws=2)[0]
    assert run.score(["A red"], draws=2)[0].bits < before.bits - 0.5


def _denoiser_of(base: Path, run: TextDiffusion):
    """The model of the run with the weights that it began with."""
    model = build_model(run.config, run.tokenizer.vocab_size)
    load_initial(model, run.config, base, print)
    return model.eval().requires_grad_(False)


class _Fixed(torch.nn.Module):
    """Predicts the same logits whatever it sees, and counts how often each position was masked."""

    def __init__(self, logits: torch.Tensor, mask: int) -> None:
        super().__init__()
        self.logits, self.mask = logits, mask
        self.asked = torch.zeros(logits.shape[:2], dtype=torch.long)

    def forward(self, xt, t, *, batch, self_cond=None):
        self.asked += (xt == self.mask).unflatten(0, (-1, len(self.asked))).sum(0)
        return Prediction(self.logits.repeat(len(xt) // len(self.asked), 1, 1))


def test_complementary_masks_predict_every_token_once():
    model = _small_model()
    batch = Batch(torch.randint(0, 9, (4, 12)))
    model.denoiser = fixed = _Fixed(torch.randn(4, 12, 9), model.process.mask)
    loss = MaskedELBO(max_weight=1.0, complementary=True)(model, batch, rng=Rng.of(0, 4))
    assert fixed.asked.eq(1).all()
    expected = torch.nn.functional.cross_entropy(fixed.logits.flatten(0, 1), batch.tokens.flatten())
    torch.testing.assert_close(loss.total, 0.5 * expected)


def _small_model(*settings: str):
    torch.manual_seed(0)
    size = ["backbone.width=32", "backbone.depth=2"]
    return model_of(apply_overrides(recipes.get("adapted")("full"), [*size, *settings]), 9)


def test_only_the_network_whose_weights_are_read_is_built_without_them():
    config = apply_overrides(recipes.get("adapted")("full"), ["backbone.width=32", "backbone.depth=2"])
    config = replace(config, text=replace(config.text, label="kind", labels=("prose", "verse")))
    model = build_model(config, 9, to_load=True)
    assert model.denoiser.backbone.network.get_input_embeddings().weight.is_meta
    labels = model.denoiser.labels.weight
    assert bool(labels[1:].ne(0.0).all())
    assert not bool(labels[0].any())


@pytest.mark.parametrize("name", ["fast_dllm_v2", "bert"])
def test_an_adapter_lies_beside_a_reference(tmp_path, name):
    variant = "full" if name == "bert" else "default"
    base = _base(tmp_path, name)
    weights = (tmp_path / "published/model.safetensors").read_bytes()
    _train(tmp_path, "run", *LORA, variant=variant, base=base)
    assert (tmp_path / "published/model.safetensors").read_bytes() == weights
    own = load_file(tmp_path / "run/model.safetensors")
    assert all("lora_" in key or key == "step" for key in own)
    run = TextDiffusion.from_pretrained(tmp_path / "run")
    texts, bits = run.generate(2, length=4), run.score(["A"], draws=2)[0].bits
    saved = TextDiffusion.from_pretrained(run.save_pretrained(tmp_path / "saved"))
    assert saved.generate(2, length=4) == texts
    merged = convert(tmp_path / "run", tmp_path / "merged")
    assert not (tmp_path / "merged/weights.json").exists()
    assert merged.score(["A"], draws=2)[0].bits == pytest.approx(bits, abs=1e-3)
    assert TextDiffusion.from_pretrained(tmp_path / "merged").generate(2, length=4) == merged.generate(2, length=4)


def test_peft_itself_loads_the_adapter(tmp_path):
    import peft

    base = _base(tmp_path)
    _train(tmp_path, "run", *LORA, variant="full", base=base)
    run = TextDiffusion.from_pretrained(tmp_path / "run")
    network = peft.PeftModel.from_pretrained(plain_network("causal"), str(tmp_path / "run/adapter")).eval()
    ids = torch.randint(0, 256, (2, 8))
    with torch.no_grad():
        ours = run.model.denoiser.backbone.network(input_ids=ids).logits
        assert torch.equal(network(input_ids=ids).logits, ours)
        assert not torch.equal(plain_network("causal")(input_ids=ids).logits, ours)


def test_a_resumed_adapter_is_the_uninterrupted_one(tmp_path):
    base = _base(tmp_path)
    _train(tmp_path, "whole", *LORA, "training.decay=constant", "training.warmup=0", base=base)
    settings = (*LORA, "training.decay=constant", "training.warmup=0")
    _train(tmp_path, "halves", *settings, "training.steps=2", base=base)
    _train(tmp_path, "halves", *settings)
    whole, halves = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "halves"))
    assert all(torch.equal(whole[key], halves[key]) for key in whole)


def test_weights_of_an_adapted_model_keep_their_type(tmp_path):
    base = _base(tmp_path, "sdar", dtype=torch.bfloat16)
    _train(tmp_path, "run", *LORA, "backbone.gradient_checkpointing=true", base=base)
    run = TextDiffusion.from_pretrained(tmp_path / "run")
    kinds = {"lora_" in name: p.dtype for name, p in run.model.denoiser.named_parameters()}
    assert kinds == {False: torch.bfloat16, True: torch.float32}


def test_gradient_checkpointing_changes_no_gradient():
    gradients = []
    for on in ("false", "true"):
        model = _small_model(f"backbone.gradient_checkpointing={on}").train()
        batch = Batch(torch.arange(24).view(2, 12) % 9)
        model.objective(model, batch, rng=Rng.of(0, 2)).total.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


def test_what_cannot_be_adapted_is_refused(tmp_path):
    base = _base(tmp_path)
    with pytest.raises(UserError, match=r"lora_rank adapts the weights of another run; name it with --init"):
        _train(tmp_path, "none", *LORA)
    with pytest.raises(UserError, match=r"lora_targets has 'pear'; it can be down_proj"):
        _train(tmp_path, "unknown", *LORA, "backbone.lora_targets=pear", base=base)
    _train(tmp_path, "run", *LORA, base=base)
    with pytest.raises(UserError, match=r"run has an adapter; merge it"):
        _train(tmp_path, "more", base=tmp_path / "run")
    with pytest.raises(UserError, match="has no adapter to merge"):
        TextDiffusion.from_pretrained(base).merged()
