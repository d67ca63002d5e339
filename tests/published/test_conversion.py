"""Published layouts: the network we make of them says what the network they describe says."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor, nn

from tests.models import model_of
from textdiffusion import TextDiffusion, recipes
from textdiffusion.cli import main
from textdiffusion.config.overrides import apply_overrides
from textdiffusion.core.batch import Batch
from textdiffusion.core.errors import UserError
from textdiffusion.published.conversion import _published, convert
from textdiffusion.published.tensors import find_weights
from textdiffusion.storage.weights import tensors_of
from textdiffusion.training.run import train

from .reference import Reference, random_reference

V = 256  # bytes
MODEL = {"hidden_size": 128, "n_blocks": 2, "n_heads": 2, "length": 32, "dropout": 0.1, "scale_by_sigma": True}
SEDD = {"tokens": V, "graph": {"type": "absorb"}, "noise": {"type": "loglinear"}, "model": MODEL}
MDLM = {
    "model_type": "mdlm",
    "vocab_size": V + 1,
    "model_length": 32,
    "hidden_dim": 128,
    "cond_dim": 129,
    "n_blocks": 2,
    "n_heads": 2,
    "dropout": 0.1,
    "time_conditioning": False,
}
BD3LM = MDLM | {"model_type": "bd3lm", "block_size": 32, "cross_attn": True, "adaln": True, "causal": False}
HYDRA = """ngpus: 8
tokens: 256
graph:
  type: absorb
  file: data
noise:
  type: loglinear
  sigma_min: 0.0001
model:
  hidden_size: 128
  n_heads: 2
  n_blocks: 2
  length: 32
  dropout: 0.1
  scale_by_sigma: true
"""


def tensors(reference: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in reference.state_dict().items()}


def averages(reference: nn.Module) -> dict[str, Any]:
    return {"decay": 0.9999, "num_updates": 7, "shadow_params": list(reference.parameters())}


def hub(folder: Path, config: dict[str, Any], weights: dict[str, Tensor]) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors")
    return folder


def hydra(folder: Path, saved: dict[str, Any], name: str, settings: str) -> Path:
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra/config.yaml").write_text(settings)
    (folder / name).parent.mkdir()
    torch.save(saved, folder / name)
    return folder


def sedd_hub(folder: Path, reference: Reference, other: Reference) -> Path:
    return hub(folder, SEDD, tensors(reference))


def sedd_unscaled(folder: Path, reference: Reference, other: Reference) -> Path:
    return hub(folder, SEDD | {"model": MODEL | {"scale_by_sigma": False}}, tensors(reference))


def sedd_bin(folder: Path, reference: Reference, other: Reference) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(SEDD))
    torch.save(tensors(reference), folder / "pytorch_model.bin")
    return folder


def sedd_local(folder: Path, reference: Reference, other: Reference) -> Path:
    """The raw weights are `other`'s, so that taking them instead of the averages shows."""
    saved = {"optimizer": {"state": {}}, "model": tensors(other), "ema": averages(reference), "step": 7}
    return hydra(folder, saved, "checkpoints-meta/checkpoint.pth", HYDRA)


def mdlm_hub(folder: Path, reference: Reference, other: Reference) -> Path:
    return hub(folder, MDLM, tensors(reference, "backbone."))


def mdlm_timed(folder: Path, reference: Reference, other: Reference) -> Path:
    return hub(folder, MDLM | {"time_conditioning": True}, tensors(reference, "backbone."))


def mdlm_lightning(folder: Path, reference: Reference, other: Reference) -> Path:
    saved = {"state_dict": tensors(other, "backbone."), "ema": averages(reference), "loops": {}, "sampler": {}}
    settings = HYDRA + "backbone: dit\nparameterization: subs\ntime_conditioning: false\nT: 0\n"
    return hydra(folder, saved, "checkpoints/last.ckpt", settings) / "checkpoints/last.ckpt"


def radd_hub(folder: Path, reference: Reference, other: Reference) -> Path:
    return hub(folder, SEDD, tensors(reference))


def bd3lm_hub(folder: Path, reference: Reference, other: Reference) -> Path:
    """One block is as long as the text, so attention is full."""
    buffers = {f"backbone.sampling_eps_{end}": torch.tensor(value) for end, value in (("min", 1e-3), ("max", 1.0))}
    return hub(folder, BD3LM, tensors(reference, "backbone.") | buffers)


Writer = Callable[[Path, Reference, Reference], Path]
SEDD_WRITERS: list[Writer] = [sedd_hub, sedd_unscaled, sedd_bin, sedd_local]
MASKED_WRITERS: list[Writer] = [mdlm_hub, mdlm_timed, mdlm_lightning, radd_hub, bd3lm_hub]


def converted(source: Path, out: Path) -> TextDiffusion:
    main(["convert", str(source), "--out", str(out), "--tokenizer", "bytes", "--allow-pickle", "--debug"])
    return TextDiffusion.from_pretrained(out, device="cpu")


def noised() -> tuple[Tensor, Tensor]:
    """Rows of bytes with masks at several noise levels, and the levels."""
    generator = torch.Generator().manual_seed(1)
    t = torch.tensor([0.02, 0.3, 0.8, 1.0])
    ids = torch.randint(V, (4, 20), generator=generator)
    return torch.where(torch.rand(4, 20, generator=generator) < t[:, None], V, ids), t


@pytest.mark.parametrize("write", [*SEDD_WRITERS, *MASKED_WRITERS], ids=lambda write: write.__name__)
def test_the_network_is_the_published_one(write: Writer, tmp_path: Path):
    timed = write is not radd_hub
    reference = random_reference(V + 1, timed=timed)
    source = write(tmp_path / "there", reference, random_reference(V + 1, seed=9, timed=timed))
    model = converted(source, tmp_path / "run").model
    ids, t = noised()
    sigma = -torch.log1p(-(1 - 1e-3) * t)
    reads_sigma = write in (*SEDD_WRITERS, mdlm_timed)
    with torch.no_grad():
        prediction = model.denoiser(ids, t, batch=Batch(ids))
        published = reference(ids, sigma if reads_sigma else torch.zeros_like(t))
        elsewhere = reference(ids, 2.0 * sigma)
    if write in SEDD_WRITERS:
        if write is not sedd_unscaled:
            published = published - torch.log(torch.expm1(sigma))[:, None, None] - math.log(V)
        published = published.scatter(-1, ids[..., None], torch.zeros(*ids.shape, 1))
        ours = prediction.log_score(model.process.graph, ids, t[:, None].expand(ids.shape))
    else:
        ours = prediction.logits
    torch.testing.assert_close(ours, published[..., :V], atol=1e-5, rtol=0)
    assert ours.std() > 0.5
    if timed:  # what the network reads of the noise matters
        assert (reference(ids, sigma) - elsewhere).abs().max() > 0.01
    assert model.denoiser.time_independent != reads_sigma


def test_at_masks_the_clean_law_is_the_softmax_of_sedds_output(tmp_path: Path):
    """There the published log score is f - ln(e^sigma - 1) - ln V; an ideal one is ln p - ln(e^sigma - 1).

    So p = softmax f whatever the noise; that exp f need not sum to V is the network's own error, which only SEDD's
    samplers see.
    """
    reference = random_reference(V + 1)
    model = converted(sedd_hub(tmp_path / "there", reference, reference), tmp_path / "run").model
    ids, t = noised()
    with torch.no_grad():
        published = reference(ids, -torch.log1p(-(1 - 1e-3) * t))[..., :V].softmax(-1)
        probs = model.denoiser(ids, t, batch=Batch(ids)).probs
    torch.testing.assert_close(probs[ids == V], published[ids == V])


@pytest.mark.parametrize("write", [sedd_local, mdlm_hub, radd_hub, bd3lm_hub], ids=lambda write: write.__name__)
def test_what_was_converted_writes_fills_and_scores(write: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    reference = random_reference(V + 1, timed=write is not radd_hub)
    model = converted(write(tmp_path / "there", reference, reference), tmp_path / "run")
    assert "textdiffusion sample" in capsys.readouterr().out
    assert len(model.empty_batch(1, None).tokens[0]) == 32
    assert model.generate(num=2, length=8, steps=3) == model.generate(num=2, length=8, steps=3)
    assert model.infill("The [MASK:3].", steps=2)[0].startswith("The ")
    assert math.isfinite(model.score(["The pear."], draws=2)[0].bits)


def test_the_vocabulary_may_be_gpt2s(tmp_path: Path):
    words = tmp_path / "gpt2"
    words.mkdir()
    (words / "vocab.json").write_text(
        json.dumps({token: i for i, token in enumerate([*sorted(ByteLevel.alphabet()), "th"])})
    )
    (words / "merges.txt").write_text("#version: 0.2\nt h\n")
    reference = random_reference(V + 2)
    source = hub(tmp_path / "there", MDLM, tensors(reference, "backbone."))
    model = convert(source, tmp_path / "run", tokenizer=words)
    assert [model.tokenizer.token_text(int(i)) for i in model.tokenizer.encode("the")] == ["th", "e"]
    assert TextDiffusion.from_pretrained(tmp_path / "run", device="cpu").generate(length=4, steps=2)
    for path in words.iterdir():
        path.rename(source / path.name)
    assert convert(source, tmp_path / "beside").tokenizer.vocab_size == 257


@pytest.mark.parametrize(
    ("recipe", "settings", "timed", "count", "elements"),
    [
        ("mdlm", [], True, 131, 169_627_218),
        ("sedd", [], True, 131, 169_627_218),
        ("sedd", ["backbone.width=1024", "backbone.depth=24"], True, 251, 424_477_010),
        ("mdlm", ["backbone.modulation=none", "backbone.norm_bias=true"], False, 126, 162_265_714 - 32),
    ],
    ids=["mdlm", "sedd small", "sedd medium", "radd small"],
)
def test_tensors_as_published(recipe: str, settings: list[str], timed: bool, count: int, elements: int):
    """Names, shapes and counts; the counts with 32 more are those of files in which the buffer was counted."""
    config = apply_overrides(recipes.get(recipe)("as_published"), settings)
    with torch.device("meta"):
        reference = Reference(50_258, config.backbone.width, config.backbone.depth, timed=timed)
        ours = tensors_of(model_of(config, 50_257))
        del ours["step"]  # a count, not a weight
    named = {name: [*tensor.shape] for name, tensor in reference.state_dict().items()}
    assert len(named) == count
    assert sum(p.numel() for p in reference.parameters()) == elements
    del named["rotary_emb.inv_freq"]
    for name in ("output_layer.linear.weight", "output_layer.linear.bias"):
        named[name][0] -= 1  # the mask's row
    assert {_published(name): [*tensor.shape] for name, tensor in ours.items()} == named


def test_a_published_folder_is_not_taken_for_a_run(tmp_path: Path, tiny_run: Callable[..., Path]):
    reference = random_reference(V + 1)
    config = TextDiffusion.from_pretrained(tiny_run("mdlm"), device="cpu").config
    for write in (sedd_hub, mdlm_hub, sedd_local):
        source = write(tmp_path / write.__name__, reference, reference)
        with pytest.raises(
            UserError, match=f"holds published weights, not a run.*textdiffusion convert {source} --out"
        ):
            TextDiffusion.from_pretrained(source)
        with pytest.raises(UserError, match="textdiffusion convert"):
            train(config, tmp_path / "run", init=source)


CHANGES: list[tuple[str, dict[str, Any], str]] = [
    ("lacks", {"blocks.1.attn_out.weight": None}, r"lacks blocks\.1\.attn_out\.weight"),
    ("lacks the first", {"vocab_embed.embedding": None}, r"lacks vocab_embed\.embedding"),
    ("more", {"sampling_eps_min": torch.zeros(1)}, "an unknown sampling_eps_min: "),
    ("shape", {"blocks.0.norm2.weight": torch.ones(64)}, r"blocks\.0\.norm2\.weight has shape \[64\], not \[128\]"),
    ("head", {"output_layer.linear.bias": torch.ones(V)}, r"output_layer\.linear\.bias has shape \[256\], not \[257\]"),
    ("axes", {"vocab_embed.embedding": torch.ones(V)}, "must have 2 axes"),
    ("angles", {"rotary_emb.inv_freq": torch.ones(32)}, "base 10000"),
]


@pytest.mark.parametrize(("change", "says"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES])
def test_tensors_that_do_not_fit_are_named(change: dict[str, Any], says: str, tmp_path: Path):
    source = hub(tmp_path / "there", SEDD, tensors(random_reference(V + 1)))
    weights = load_file(source / "model.safetensors") | change
    save_file({name: tensor for name, tensor in weights.items() if tensor is not None}, source / "model.safetensors")
    with pytest.raises(UserError, match=says):
        convert(source, tmp_path / "run", tokenizer="bytes")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (SEDD | {"graph": {"type": "uniform"}}, "graph.type is 'uniform'; .* 'absorb'"),
        (SEDD | {"noise": {"type": "geometric"}}, "noise.type is 'geometric'"),
        (MDLM | {"model_type": "duo"}, "model_type is 'duo'; only weights with 'mdlm' or 'bd3lm'"),
        (BD3LM | {"time_conditioning": True}, "time_conditioning is true"),
        (BD3LM | {"cross_attn": False}, "cross_attn is False; only weights with True"),
        (SEDD | {"model": MODEL | {"n_heads": 4}}, "4 heads of 128 features; it must have 2, 64 wide"),
        (SEDD | {"model": MODEL | {"n_heads": "2"}}, "model.n_heads is '2'; it must be of type int"),
        (SEDD | {"data": {"train": 8}}, "data.train is 8; it must be of type str"),
        (SEDD | {"model": {}}, "has no model.n_heads or n_heads"),
    ],
)
def test_settings_that_do_not_fit_are_named(config: dict[str, Any], says: str, tmp_path: Path):
    with pytest.raises(UserError, match=says):
        convert(hub(tmp_path / "there", config, tensors(random_reference(V + 1))), tmp_path / "run", tokenizer="bytes")


def test_what_a_source_lacks_is_said(tmp_path: Path):
    source = hub(tmp_path / "there", SEDD, tensors(random_reference(V + 1)))
    with pytest.raises(UserError, match="no tokenizer: give --tokenizer FOLDER"):
        convert(source, tmp_path / "run")
    (source / "tokenizer.json").write_text(json.dumps({"kind": "bytes", "version": 1, "specials": ["[END]"]}))
    with pytest.raises(UserError, match="tokenizer has 257 tokens, the weights have 256"):
        convert(source, tmp_path / "run")
    with pytest.raises(UserError, match="not empty"):
        convert(source, tmp_path, tokenizer="bytes")
    (source / "config.json").unlink()
    with pytest.raises(UserError, match=r"no config\.json or \.hydra/config\.yaml"):
        convert(source, tmp_path / "run", tokenizer="bytes")
    with pytest.raises(UserError, match=r"There is no folder or file .*nowhere"):
        convert(tmp_path / "nowhere", tmp_path / "run")


def test_pickles_are_read_when_asked_and_then_tensors_alone(tmp_path: Path):
    reference = random_reference(V + 1)
    source = sedd_local(tmp_path / "there", reference, reference)
    path = source / "checkpoints-meta/checkpoint.pth"
    with pytest.raises(UserError, match=r"is a pickle, which can hold programs.*--allow-pickle"):
        convert(source, tmp_path / "run", tokenizer="bytes")
    whole = {"model": tensors(reference), "ema": averages(reference)}
    for saved, says in (
        (whole | {"program": print}, "more than tensors"),
        (whole | {"ema": {"shadow_params": [torch.ones(1)]}}, "1 averages for 30 tensors"),
        (whole | {"ema": {"shadow_params": [p.flatten() for p in reference.parameters()]}}, "average of vocab_embed"),
        ([1], "no weights by name but a list"),
        ({"step": 7}, "step is not a tensor"),
    ):
        torch.save(saved, path)
        with pytest.raises(UserError, match=says):
            convert(source, tmp_path / "run", tokenizer="bytes", allow_pickle=True)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="damaged"):
        convert(source, tmp_path / "run", tokenizer="bytes", allow_pickle=True)


@pytest.mark.parametrize("wrapper", ["_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module."])
def test_names_of_wrapped_modules_are_read(wrapper: str, tmp_path: Path):
    """What torch.compile and DistributedDataParallel put before the names when a model is saved while wrapped."""
    weights = tensors(random_reference(V + 1))
    plain = convert(hub(tmp_path / "plain", SEDD, weights), tmp_path / "one", tokenizer="bytes")
    wrapped = {wrapper + name: tensor for name, tensor in weights.items()}
    run = convert(hub(tmp_path / "wrapped", SEDD, wrapped), tmp_path / "two", tokenizer="bytes")
    for name, tensor in tensors_of(plain.model).items():
        assert torch.equal(tensors_of(run.model)[name], tensor)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path):
    weights = tensors(random_reference(V + 1))
    weights["vocab_embed.embedding"][3, 5] = torch.nan
    with pytest.raises(UserError, match=r"vocab_embed\.embedding has numbers that are NaN or infinite"):
        convert(hub(tmp_path / "there", SEDD, weights), tmp_path / "run", tokenizer="bytes")
    assert not (tmp_path / "run").exists()


def test_weights_of_other_names_are_found_or_named(tmp_path: Path):
    source = hub(tmp_path / "there", SEDD, {})
    (source / "model.safetensors").unlink()
    (source / "checkpoints").mkdir()
    best, other = source / "checkpoints/best.ckpt", source / "checkpoints/epoch3.ckpt"
    best.touch()
    assert find_weights(source) == best
    other.touch()
    with pytest.raises(UserError, match=r"has 2 files of weights; name one of them, such as .*best\.ckpt"):
        find_weights(source)
    (source / "checkpoints/last.ckpt").touch()
    assert find_weights(source).name == "last.ckpt"
