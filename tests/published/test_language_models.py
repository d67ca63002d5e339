"""Language models in published layouts: converted, they say what transformers says of the same weights."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from textdiffusion import TextDiffusion
from textdiffusion.cli import main
from textdiffusion.core.batch import Batch
from textdiffusion.core.errors import UserError
from textdiffusion.networks.language_model import LanguageModelConfig
from textdiffusion.networks.lm_denoiser import LMVocabularyConfig
from textdiffusion.published.conversion import convert
from textdiffusion.storage.weight_files import WeightFiles

from .language_models import BYTES, CONFIGS, write_model

MASK, GAP = BYTES + 3, BYTES + 4
V = BYTES + 6  # up to the token after the gap
BLOCKS = {"sdar": 4, "fast_dllm_v2": 8}
SHIFTED = ("dream", "fast_dllm_v2", "causal")


def _batch(length=16, rows=3):
    x0 = torch.randint(0, BYTES, (rows, length), generator=torch.Generator().manual_seed(1))
    xt = x0.clone()
    xt[:, [0, 3, 4, 8, 15]] = V
    return x0, xt


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_those_of_transformers(tmp_path, name):
    network = write_model(tmp_path / "published", name, shards=3 if name in ("llada", "sdar") else 1)
    run = convert(tmp_path / "published", tmp_path / "run", block=0)
    x0, xt = _batch()
    with torch.no_grad():
        expected = network(input_ids=torch.where(xt == V, MASK, xt)).logits[..., :V]
        logits = run.model.denoiser(xt, torch.zeros(3), batch=Batch(x0)).logits
    if name in SHIFTED:
        expected = torch.cat((expected[:, :1], expected[:, :-1]), dim=1)
    assert run.config.variant == name
    assert isinstance(run.config.denoiser, LMVocabularyConfig)
    assert run.config.denoiser.shift == (name in SHIFTED)
    assert torch.isinf(logits).nonzero()[:, 2].unique().tolist() == [MASK, GAP]
    assert torch.equal(logits.masked_fill(logits.isinf(), 0.0), expected.index_fill(-1, torch.tensor([MASK, GAP]), 0.0))


@pytest.mark.parametrize("name", ["llada", "dream", "sdar", "fast_dllm_v2", "modernbert"])
def test_a_converted_run_does_everything(tmp_path, name):
    write_model(tmp_path / "published", name)
    run = convert(tmp_path / "published", tmp_path / "run")
    assert getattr(run.config.process, "block_size", 0) == BLOCKS.get(name, 0)
    sampled = run.generate(2, length=8, seed=1)
    batch = run.empty_batch(2, 8)
    *_, step = run.stream(batch=batch, seed=1)
    assert not torch.isin(step.tokens, torch.tensor([MASK, GAP, V])).any()
    (matched,) = run.infill("[MASK:4] pear", guides=["regex:pattern=[a-d]{4} pear"])
    assert set(matched[:4]) <= set("abcd")
    assert matched.endswith(" pear")
    assert run.score(["A"], draws=2)[0].bits > 0
    if name not in BLOCKS:
        assert run.score(["Ab"], order="confidence")[0].bits > 0
    saved = TextDiffusion.from_pretrained(run.save_pretrained(tmp_path / "saved"))
    assert saved.generate(2, length=8, seed=1) == sampled
    assert "language" in run.card("x") or name in run.card("x")


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_from_the_cache_are_those_of_one_pass(tmp_path, name):
    write_model(tmp_path / "published", name)
    run = convert(tmp_path / "published", tmp_path / "run")
    denoiser, block, (x0, xt) = run.model.denoiser, BLOCKS[name], _batch()
    valid = torch.ones_like(x0, dtype=torch.bool)
    valid[1, 13:] = False
    with torch.no_grad():
        one_pass = denoiser(xt, torch.zeros(3), batch=Batch(x0, valid_mask=valid)).logits
        cache, cached = denoiser.begin(x0), []
        for start in range(0, 16, block):
            part = Batch(x0, valid_mask=valid, row_ids=torch.arange(3)).slice(start, start + block)
            cached.append(cache(xt[:, start : start + block], torch.zeros(3), batch=part).logits)
            cache = cache.append(part)
    difference = (torch.cat(cached, dim=1) - one_pass)[valid]
    assert float(difference.nan_to_num(0.0).abs().max()) <= 1e-5  # of logits up to 40


@pytest.mark.parametrize("name", ["dream", "sdar", "bert", "modernbert"])
def test_padding_changes_nothing(tmp_path, name):
    write_model(tmp_path / "published", name)
    run = convert(tmp_path / "published", tmp_path / "run")
    x0, xt = _batch(rows=1)
    padded, clean = torch.nn.functional.pad(xt, (4, 3), value=7), torch.nn.functional.pad(x0, (4, 3), value=9)
    valid = torch.nn.functional.pad(torch.ones_like(xt, dtype=torch.bool), (4, 3))
    denoiser, t = run.model.denoiser, torch.zeros(1)
    with torch.no_grad():
        alone = denoiser(xt, t, batch=Batch(x0)).logits
        inside = denoiser(padded, t, batch=Batch(clean, valid_mask=valid)).logits[:, 4:-3]
    torch.testing.assert_close(inside, alone, atol=1e-4, rtol=1e-5)


def test_weights_keep_their_type_and_are_referred_to(tmp_path):
    write_model(tmp_path / "published", "sdar", torch.bfloat16, shards=2)
    run = convert(tmp_path / "published", tmp_path / "run")
    assert {p.dtype for p in run.model.denoiser.parameters()} == {torch.bfloat16}
    assert run.dtype == "bfloat16"
    assert not list((tmp_path / "run").glob("*.safetensors"))
    assert isinstance(run.config.backbone, LanguageModelConfig)
    assert "auto_map" not in run.config.backbone.architecture
    assert run.generate(1, length=8)
    saved = run.save_pretrained(tmp_path / "saved") / "model.safetensors"
    size = sum(f.stat().st_size for f in (tmp_path / "published").glob("*.safetensors"))
    assert saved.stat().st_size < 1.3 * size  # not as float32
    (tmp_path / "published/model-00001-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match="safetensors is missing: this run refers to the weights"):
        TextDiffusion.from_pretrained(tmp_path / "run")


@pytest.mark.parametrize("shards", [1, 2])
def test_a_copy_needs_nothing_else(tmp_path, shards):
    write_model(tmp_path / "published", "llada", shards=shards)
    expected = convert(tmp_path / "published", tmp_path / "run", copy=True).generate(1, length=8)
    (tmp_path / "run").rename(tmp_path / "moved")
    (tmp_path / "published").rename(tmp_path / "gone")
    assert TextDiffusion.from_pretrained(tmp_path / "moved").generate(1, length=8) == expected
    assert WeightFiles.read(tmp_path / "moved").source == "weights"


@pytest.mark.parametrize(("name", "body"), [("bert", "bert."), ("modernbert", "model.")])
@pytest.mark.parametrize("is_bare", [True, False])
def test_an_encoder_gets_a_head_that_starts_from_the_embedding(tmp_path, name, body, is_bare):
    """Files of sentence embeddings are the body alone; its last layer, normalised, is compared with the embedding."""
    network = write_model(tmp_path / "published", name)
    path = tmp_path / "published/model.safetensors"
    own = {key: tensor for key, tensor in load_file(path).items() if key.startswith(body)}
    save_file({key.removeprefix(body) if is_bare else key: tensor for key, tensor in own.items()}, path)
    run = convert(tmp_path / "published", tmp_path / "run")
    x0, xt = _batch()
    with torch.no_grad():
        hidden = network.base_model(input_ids=torch.where(xt == V, MASK, xt))[0]
        normed = torch.nn.functional.layer_norm(torch.nn.functional.gelu(hidden), (32,), eps=1e-12)
        logits = run.model.denoiser(xt, torch.zeros(3), batch=Batch(x0)).logits
    expected = normed @ network.get_input_embeddings().weight[:V].T
    finite = logits.isfinite()
    torch.testing.assert_close(logits[finite], expected[finite], atol=2e-3, rtol=1e-3)  # eps differs between the two


def test_what_a_chat_needs_is_beside_the_run(tmp_path):
    write_model(tmp_path / "published", "dream")
    convert(tmp_path / "published", tmp_path / "run")
    assert (tmp_path / "run/chat_template.jinja").read_text().startswith("{% for message")
    special = json.loads((tmp_path / "run/special_tokens.json").read_text())
    assert special["stop_tokens"] == ["<|im_end|>", "<|endoftext|>"]
    assert special["mask_token"] == "<|mask|>"


def test_a_vocabulary_of_two_files_is_qwens(tmp_path):
    """Dream's repository has no tokenizer.json."""
    folder = tmp_path / "published"
    write_model(folder, "dream")
    saved = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").unlink()
    ids = {token["content"]: token["id"] for token in saved["added_tokens"] if token["content"] != "<|extra|>"}
    vocab = {token: i for token, i in saved["model"]["vocab"].items() if i < BYTES}
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "added_tokens.json").write_text(json.dumps(ids))
    run = convert(folder, tmp_path / "run")
    text = "It's 2026,\n a pear!"
    assert run.tokenizer.decode(run.tokenizer.encode(text)) == text
    assert run.tokenizer.vocab_size == BYTES + 4


def test_a_repository_is_known_by_its_commit(tmp_path, monkeypatch):
    cache = tmp_path / "cache/4f2a"
    cache.parent.mkdir()
    write_model(cache, "llada")
    asked: list[dict[str, object]] = []

    def snapshot_download(repo_id: str, **options: object) -> str:
        asked.append({"repo_id": repo_id, **options})
        return str(cache)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    convert("GSAI-ML/LLaDA-8B-Instruct", tmp_path / "run")
    files = WeightFiles.read(tmp_path / "run")
    assert (files.source, files.revision) == ("GSAI-ML/LLaDA-8B-Instruct", "4f2a")
    assert TextDiffusion.from_pretrained(tmp_path / "run").generate(1, length=4)
    assert asked[-1] == {
        "repo_id": "GSAI-ML/LLaDA-8B-Instruct",
        "allow_patterns": ["model.safetensors"],
        "revision": "4f2a",
    }


def test_a_prompt_takes_one_pass_and_no_step(tmp_path):
    """The steps are those of the blocks to write, and what they say is what they would say without a cache."""
    write_model(tmp_path / "published", "sdar")
    run = convert(tmp_path / "published", tmp_path / "run")
    lengths: list[int] = []
    run.model.denoiser.backbone.register_forward_pre_hook(lambda module, args: lengths.append(args[0].shape[1]))
    batch = run.infill_batch("The red pear is [MASK:8]")
    *_, step = run.stream(batch=batch, steps=4)
    assert batch.tokens.shape[1] == 24
    assert lengths[0] == 16  # four blocks of the prompt
    assert set(lengths[1:]) == {4}
    assert step.total == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llada2_moe"}, "is of type 'llada2_moe': LLaDA2's mixture of experts has no class"),
        ({"quantization_config": {"bits": 4}}, "quantised weights cannot be read"),
        ({"mask_token_id": 4000}, r"mask_id is 4000, but the embedding has 288 rows"),
        ({"vocab_size": 400}, r"has shape \[288, 32\] instead of \[400, 32\]"),
        ({"num_hidden_layers": 3}, "it lacks .*layers.2"),
        ({"layer_types": ["linear_attention"] * 2}, "has layers of type linear_attention, so it cannot"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, change, message):
    write_model(tmp_path / "published", "dream")
    (tmp_path / "published/config.json").write_text(json.dumps(CONFIGS["dream"] | change))
    with pytest.raises(UserError, match=message):
        convert(tmp_path / "published", tmp_path / "run")


def test_the_command(tmp_path, capsys):
    write_model(tmp_path / "published", "causal")
    main(["convert", str(tmp_path / "published"), "--out", str(tmp_path / "run")])
    captured = capsys.readouterr()
    assert "(causal)" in captured.out
    assert "yet to learn to denoise" in captured.err
    main(["sample", str(tmp_path / "run"), "--num", "1", "--length", "8", "--json"])
    assert json.loads(capsys.readouterr().out)["temperature"] == 0.0
