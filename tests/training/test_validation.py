"""The bound on held-out windows."""

import math

import pytest
import torch

from tests.models import model_of
from textdiffusion.data.prepare import prepare
from textdiffusion.objectives.base import Likelihood
from textdiffusion.training.distributed import SingleProcess
from textdiffusion.training.validation import validate

from .tiny import LENGTH, tiny


class Drawn(Likelihood):
    """A likelihood of log 2 nats per character on average, times noise of mean 1."""

    processes = (object,)

    def __init__(self):
        self.draws = []

    def __call__(self, model, batch, *, rng):
        self.draws.append((batch.tokens, batch.row_ids, batch.global_batch_size))
        return -math.log(2) * LENGTH * torch.log(rng.fork("x").uniform())


class ExactlyDrawn(Drawn):
    exact = True


def test_a_short_text_is_repeated_until_there_are_enough_draws(tmp_path):
    """Else the validation of plaid on 20 windows was off by 0.4 bits, one way at all steps of a run."""
    config = tiny("mdlm", tmp_path)
    corpus = prepare(config.text, tmp_path / "cache", seed=0)
    assert corpus.valid is not None
    count = len(corpus.valid)
    model = model_of(config, corpus.tokenizer.vocab_size)
    model.likelihood = drawn = Drawn()
    found = [
        validate(model, model.likelihood, corpus.valid, 50 * count, 64, seed, SingleProcess()) for seed in range(8)
    ]
    assert {f.windows for f in found} == {count}
    assert max(abs(f.bits - 1.0) for f in found) < 4 / math.sqrt(50 * count)
    assert found[0].error == pytest.approx(1 / math.sqrt(50 * count), rel=0.5)
    ids, rows, totals = zip(*drawn.draws[: len(drawn.draws) // 8], strict=True)
    assert torch.equal(torch.cat(rows), torch.arange(50 * count))
    assert set(totals) == {50 * count}
    assert torch.equal(torch.cat(ids), torch.cat([corpus.valid.windows(range(count)).tokens] * 50))
    model.likelihood = exact = ExactlyDrawn()
    validate(model, model.likelihood, corpus.valid, 50 * count, 64, 0, SingleProcess())
    assert sum(len(ids) for ids, _, _ in exact.draws) == count
