"""Scores of texts revealed in an order: exact, comparable only with their like, refused where there is no order."""

from collections.abc import Callable
from pathlib import Path

import pytest

from textdiffusion import TextDiffusion
from textdiffusion.core.errors import UserError
from textdiffusion.scoring.protocol import check_comparable

MakeRun = Callable[..., Path]
TEXTS = ["The red pear is old.", "The green plum is sweet."]


@pytest.mark.parametrize("recipe", [("mdlm",), ("cdcd", "text.mask=random")], ids=["masks", "vectors"])
def test_scores_in_an_order_are_exact(tiny_run: MakeRun, recipe: tuple[str, ...]):
    model = TextDiffusion.from_pretrained(tiny_run(*recipe), device="cpu")
    scores = model.score(TEXTS, order="entropy", per_step=4)
    assert scores == model.score(TEXTS, order="entropy", per_step=4)
    for text, score in zip(TEXTS, scores, strict=True):
        assert score.exact
        assert (score.draws, score.monte_carlo_error) == (1, 0.0)
        assert (score.protocol["order"], score.protocol["per_step"]) == ("entropy", 4)
        assert score.characters == len(text)
    assert not model.model.training


def test_scores_of_different_orders_are_not_comparable(tiny_run: MakeRun):
    model = TextDiffusion.from_pretrained(tiny_run("mdlm"), device="cpu")
    entropy, left, together = (
        model.score(TEXTS[:1], order=order, per_step=per_step)[0].protocol
        for order, per_step in (("entropy", 1), ("left", 1), ("left", 2))
    )
    with pytest.raises(UserError, match="the order of revealing is 'entropy' for a and 'left' for b"):
        check_comparable({"a": entropy, "b": left})
    with pytest.raises(UserError, match="the number of positions revealed together is 1 for a and 2 for b"):
        check_comparable({"a": left, "b": together})


def test_a_prefix_is_given(tiny_run: MakeRun):
    """Its positions take no step and count no bits."""
    model = TextDiffusion.from_pretrained(tiny_run("mdlm"), device="cpu")
    given, alone = (model.score(["is old."], prefix=prefix, order="left")[0] for prefix in ("The red pear ", ""))
    assert given.exact
    assert given.characters == alone.characters == 7
    assert given.bits != alone.bits


@pytest.mark.parametrize(
    ("recipe", "options", "says"),
    [
        (("mdlm",), {"order": "random", "per_step": 2}, "per_step=2 has no effect on the order random"),
        (("mdlm",), {"order": "easiest"}, "The order is 'easiest'"),
        (("mdlm",), {"order": "left", "per_step": 0}, "per_step is 0; it must be at least 1"),
        (("mdlm",), {"per_step": 2}, "per_step=2 has no effect without an order"),
        (("udlm",), {"order": "left"}, "OrderLikelihood cannot act on UniformProcess: it needs AbsorbingProcess"),
        (("cdcd", "text.mask=none"), {"order": "left"}, "OrderLikelihood needs an embedding run"),
    ],
)
def test_runs_without_an_order_are_refused(tiny_run: MakeRun, recipe: tuple[str, ...], options: dict, says: str):
    model = TextDiffusion.from_pretrained(tiny_run(*recipe), device="cpu")
    with pytest.raises(UserError, match=says):
        model.score(TEXTS, **options)
