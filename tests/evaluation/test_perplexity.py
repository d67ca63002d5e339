"""Generative perplexity under a model of transformers and under a run of our own, with its entropy."""

import json
import math

import pytest
import torch

from textdiffusion import TextDiffusion
from textdiffusion.core.errors import UserError
from textdiffusion.evaluation.perplexity import judged_by_pretrained, judged_by_run

SAMPLES = ["The red fig is old.", "The ripe plum is sweet.", "red red red"]


def test_under_an_autoregressive_run(tiny_run):
    model = TextDiffusion.from_pretrained(tiny_run("autoregressive"))
    found = judged_by_run(model, [*SAMPLES, ""], "ours")
    scores = model.score(SAMPLES)
    nats = sum(score.bits * score.characters for score in scores) * math.log(2)
    assert found.tokens == sum(map(len, SAMPLES))  # characters
    assert found.perplexity == pytest.approx(math.exp(nats / found.tokens), rel=1e-5)
    assert found.bits_per_character == pytest.approx(nats / math.log(2) / sum(map(len, SAMPLES)), rel=1e-5)
    assert 2 < found.entropy < 4
    assert "entropy" in str(found)
    assert "ours" in str(found)
    with pytest.raises(UserError, match="no exact likelihood"):
        judged_by_run(TextDiffusion.from_pretrained(tiny_run("mdlm")), SAMPLES)


def test_under_a_pretrained_model(tmp_path):
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models

    vocabulary = {character: i for i, character in enumerate(sorted({c for text in SAMPLES for c in text}))}
    end = len(vocabulary)
    plain = Tokenizer(models.BPE(vocab={**vocabulary, "<end>": end}, merges=[]))
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=plain, bos_token="<end>", eos_token="<end>")
    fast.save_pretrained(tmp_path)
    torch.manual_seed(0)
    shape = {"n_positions": 32, "n_embd": 16, "n_layer": 1, "n_head": 2}
    config = transformers.GPT2Config(vocab_size=end + 1, bos_token_id=end, eos_token_id=end, **shape)
    model = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        model.transformer.wte.weight.mul_(20)
    model.save_pretrained(tmp_path)

    nats = 0.0
    for text in SAMPLES:  # one at a time, without padding
        ids = torch.tensor([[end, *(vocabulary[c] for c in text)]])
        logs = model(ids).logits[0, :-1].detach().log_softmax(-1)
        nats -= float(logs.gather(1, ids[0, 1:, None]).sum())
    found = judged_by_pretrained(tmp_path, SAMPLES, batch_size=2)
    assert found.tokens == sum(map(len, SAMPLES))
    assert math.log(found.perplexity) == pytest.approx(nats / found.tokens, rel=1e-4)
    assert abs(math.log(found.perplexity) - math.log(end + 1)) > 0.1
    with pytest.raises(UserError, match="at most 32"):
        judged_by_pretrained(tmp_path, ["red " * 10])
    with pytest.raises(UserError, match="not a causal language model"):
        judged_by_pretrained(tmp_path / "nothing", SAMPLES)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "unknown"}))
    with pytest.raises(UserError, match="not a causal language model"):
        judged_by_pretrained(tmp_path, SAMPLES)
