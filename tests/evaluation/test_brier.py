"""The Brier n-gram score is what its expectation says, and runs of every family can be scored."""

import numpy as np
import pytest
import torch

from textdiffusion import TextDiffusion
from textdiffusion.core.batch import Batch
from textdiffusion.core.errors import UserError
from textdiffusion.evaluation.brier import brier_scores, continuation_brier


def test_continuations_that_are_the_truth_and_that_are_not():
    truth = np.array([[1, 2, 3, 4], [2, 2, 2, 2]])
    assert brier_scores(truth, truth, truth).scores == (1, 1, 1, 1)
    assert brier_scores(truth, truth, truth).mean == 1
    wrong = brier_scores(truth, truth + 1, truth + 1)
    assert wrong.scores == (-1, -1, -1, -1)
    assert wrong.mean == 0
    # A longer n-gram is right only if all its tokens are: the first token differs in the first row.
    partly = truth.copy()
    partly[0, 1] = 9
    assert brier_scores(truth, partly, truth + 5).scores == (1, 0.5, 0.5, 0.5)


def test_the_expectation_is_largest_for_the_true_distribution():
    true, sharp = np.array([0.7, 0.2, 0.1]), np.array([1.0, 0.0, 0.0])
    rng = np.random.default_rng(0)

    def score(p):
        draw = [rng.choice(3, size=(200_000, 1), p=q) for q in (true, p, p)]
        return brier_scores(*draw).scores[0]

    assert score(true) == pytest.approx((true**2).sum(), abs=0.01)
    assert score(sharp) == pytest.approx(2 * 0.7 - 1, abs=0.01)  # a mode alone: 0.40 instead of 0.54


@pytest.mark.parametrize("recipe", ["mdlm", "autoregressive", "cdcd"])
def test_runs_continue_real_text(tiny_run, recipe):
    model = TextDiffusion.from_pretrained(tiny_run(recipe))
    ids = torch.randint(model.tokenizer.vocab_size, (3, 12), generator=torch.Generator().manual_seed(0))
    batch = Batch(ids, valid_mask=torch.arange(12) < torch.tensor([[12], [10], [8]]))
    found = continuation_brier(model, batch, 6)
    assert found.prefixes == 2  # the third has no ten tokens
    assert len(found.scores) == 4
    assert found == continuation_brier(model, batch, 6)
    for prefix in (0, 9):
        with pytest.raises(UserError, match="prefix"):
            continuation_brier(model, batch, prefix)
