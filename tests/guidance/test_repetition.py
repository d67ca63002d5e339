"""Guides against repetition, on states of masked rows."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from textdiffusion.core.errors import UserError
from textdiffusion.diffusion.absorbing import AbsorbingProcess
from textdiffusion.diffusion.gaussian import GaussianProcess
from textdiffusion.diffusion.prediction import Prediction
from textdiffusion.guidance.repetition import NoRepeat, RepetitionPenalty, repeating_tokens
from textdiffusion.samplers.base import Request, incompatibility

MASK = 3
ROWS = st.lists(st.integers(0, MASK), min_size=1, max_size=9)


def repeats(row: list[int], n: int) -> set[tuple[int, ...]]:
    """The sequences of n tokens that a row has twice or more."""
    grams = [tuple(row[i : i + n]) for i in range(len(row) - n + 1)]
    return {gram for gram in grams if MASK not in gram and grams.count(gram) > 1}


@settings(max_examples=60)
@given(row=ROWS, n=st.integers(2, 4))
def test_a_token_is_forbidden_exactly_where_it_would_repeat_a_sequence(row: list[int], n: int):
    found = repeating_tokens(torch.tensor([row, row]), n, MASK)
    assert torch.equal(found[0], found[1])
    for i, token in enumerate(row):
        for new in range(MASK):
            changed = [*row[:i], new, *row[i + 1 :]]
            completed = {tuple(changed[k : k + n]) for k in range(max(0, i - n + 1), i + 1) if k + n <= len(row)}
            before = {tuple(row[k : k + n]) for k in range(len(row) - n + 1)}
            expected = token == MASK and bool({gram for gram in completed if MASK not in gram} & before)
            assert bool(found[0, i, new]) == expected


class Constant:
    """A denoiser that always predicts the same logits."""

    time_independent, self_conditioning = True, False

    def __init__(self, logits: list[float]) -> None:
        self.logits = torch.tensor(logits)

    def __call__(self, xt: Any, t: Any, *, batch: Any, self_cond: Any = None) -> Prediction:
        return Prediction(self.logits.expand(*xt.shape, -1))


def guided(guide: Any, row: list[int], logits: list[float]) -> torch.Tensor:
    denoiser: Any = Constant(logits)
    request = Request.blank(1, len(row), 1)
    return guide.wrap(denoiser, request)(torch.tensor([row]), torch.zeros(1), batch=request.batch).probs[0]


def test_what_would_repeat_has_no_probability_unless_nothing_else_is_left():
    probs = guided(NoRepeat(ngram=2), [0, 1, 0, MASK], [1.0, 2.0, 3.0])
    assert probs[3, 1] == 0
    assert probs[3].sum() == pytest.approx(1)
    assert (probs[:3] > 0).all()
    probs = guided(NoRepeat(ngram=2), [0, 0, 1, 0, 2, 0, MASK], [1.0, 2.0, 3.0])
    torch.testing.assert_close(probs[6], torch.tensor([1.0, 2.0, 3.0]).softmax(-1))


def test_a_penalty_lowers_what_the_text_has_and_more_so_the_larger_it_is():
    row, logits = [0, MASK, 0], [5.0, 4.0, -1.0]
    plain, some, much = (guided(RepetitionPenalty(penalty=p), row, logits)[1] for p in (1.0, 1.5, 3.0))
    torch.testing.assert_close(plain, torch.tensor(logits).softmax(-1))
    assert plain[0] > some[0] > much[0]
    assert some[1] / some[2] == pytest.approx(float(plain[1] / plain[2]), rel=1e-4)


def test_they_need_a_process_that_reveals_tokens():
    for guide in (NoRepeat(), RepetitionPenalty()):
        assert incompatibility(guide, AbsorbingProcess) is None
        assert "cannot act on GaussianProcess" in (incompatibility(guide, GaussianProcess) or "")
    with pytest.raises(UserError, match="ngram is 1; it must be at least 2"):
        NoRepeat(ngram=1)
    with pytest.raises(UserError, match=r"penalty is 0\.5"):
        RepetitionPenalty(penalty=0.5)
