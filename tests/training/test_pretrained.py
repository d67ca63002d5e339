"""Runs that begin with weights of others."""

from dataclasses import replace

import pytest
import torch

from textdiffusion import TextDiffusion
from textdiffusion.diffusion.table_codecs import Embeddings
from textdiffusion.training.run import train

from .tiny import tiny


def _row(run, token):
    names = [run.tokenizer.token_text(i) for i in range(run.tokenizer.vocab_size)]
    return run.model.codec.weight[names.index(token)]


@pytest.mark.parametrize("learned", [True, False])
def test_a_run_begins_with_its_vectors_and_needs_the_file_no_more(tmp_path, learned):
    config = tiny("diffusion_lm", tmp_path, steps=2, eval_every=2)
    vectors = tmp_path / "v.txt"
    vectors.write_text("a 1 2 2\nn 0 0 3\n", encoding="utf-8")
    codec = Embeddings(dim=3, init_std=1.0, norm="none", pretrained=str(vectors), learned=learned)
    config = replace(config, codec=codec)
    train(config, tmp_path / "run", cache=tmp_path / "cache", device="cpu")
    vectors.unlink()
    run = TextDiffusion.from_pretrained(tmp_path / "run", weights="raw")
    factor = torch.tensor([1.0, 2.0, 2.0, 0.0, 0.0, 3.0]).square().mean().rsqrt()
    row = _row(run, "a")
    moved = float((row - torch.tensor([1.0, 2.0, 2.0]) * factor).abs().max())
    assert moved < 0.1 if learned else moved < 1e-6
    assert (moved > 1e-6) == learned
    longer = replace(config, training=replace(config.training, steps=3))
    assert train(longer, tmp_path / "run", cache=tmp_path / "cache", device="cpu").step == 3
