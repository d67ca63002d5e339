"""Revising a draft with every recipe: what stays, what is new, and what a user is told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from textdiffusion import TextDiffusion, recipes
from textdiffusion.core.errors import UserError

MakeRun = Callable[..., Path]
LETTERS = ("text.tokenizer=characters", "text.layout=stream", "text.model_padding=false")
LINES = ("text.tokenizer=characters", "text.layout=lines", "text.model_padding=true")
TEXT = "The red fig is old."


@pytest.mark.parametrize(("select", "layout"), [("random", LETTERS), ("suspect", LINES)], ids=["random", "suspect"])
@pytest.mark.parametrize("recipe", recipes.names())
def test_every_recipe_revises(tiny_run: MakeRun, recipe: str, select: str, layout: tuple[str, ...]):
    model = TextDiffusion.from_pretrained(tiny_run(recipe, *layout), device="cpu")
    options: Any = {"select": select, "steps": 4 if model.config.sampler.min_steps else None, "seed": 1}
    assert model.revise([TEXT, "The pear"], 2, strength=0.0, **options) == [TEXT, TEXT, "The pear", "The pear"]
    options |= {"strength": 0.5, "keep": ["red fig", "old"]}
    revised = model.revise(TEXT, 2, **options)
    assert all(len(text) == len(TEXT) and text[4:11] == "red fig" and text[15:18] == "old" for text in revised)
    assert any(text != TEXT for text in revised)
    revision = model.revision(TEXT, 1, **options)
    *_, last = revision.run()
    assert last.t == 0.0
    assert model.decode(last, revision.batch) == revised[:1]


@pytest.mark.parametrize("recipe", ["mdlm", "udlm", "cdcd", "plaid", "autoregressive"])
def test_at_full_strength_it_generates(tiny_run: MakeRun, recipe: str):
    model = TextDiffusion.from_pretrained(tiny_run(recipe, *LETTERS), device="cpu")
    for select in ("random", "suspect"):
        assert model.revise(TEXT, 2, strength=1.0, select=select, seed=4) == model.generate(2, len(TEXT), seed=4)


def test_the_share_of_masks_is_the_strength(tiny_run: MakeRun):
    model = TextDiffusion.from_pretrained(tiny_run("mdlm", *LETTERS), device="cpu")
    for strength, count in ((0.1, 2), (0.5, 10), (0.01, 1)):
        batch = model.revision(TEXT, 3, strength=strength).batch
        assert batch.target_mask.sum(-1).tolist() == [count] * 3
    assert len({tuple(row) for row in model.revision(TEXT, 3).batch.target_mask.tolist()}) == 3
    suspects = model.revision(TEXT, 3, select="suspect").batch.target_mask
    assert (suspects == suspects[0]).all()


def test_suspects_are_whole_words(tiny_run: MakeRun):
    model = TextDiffusion.from_pretrained(tiny_run("mdlm", *LETTERS), device="cpu")
    chosen = model.revision(TEXT, select="suspect", strength=0.4, keep="red").batch.target_mask[0].tolist()
    words = [(0, 3), (8, 11), (12, 14), (15, 18)]
    assert any(all(chosen[a:b]) for a, b in words)
    assert all(len(set(chosen[a:b])) == 1 for a, b in words)
    assert not any(chosen[4:7])


@pytest.mark.parametrize("recipe", ["udlm", "cdcd"])
def test_other_noise_begins_at_the_level(tiny_run: MakeRun, recipe: str):
    model = TextDiffusion.from_pretrained(tiny_run(recipe, *LETTERS), device="cpu")
    revision = model.revision(TEXT, strength=0.25, steps=None)
    assert revision.generation.steps == -(-model.config.sampler.steps // 4)
    first, *_, last = revision.run()
    assert (first.t, first.index, last.index) == (0.25, 0, last.total)
    assert len(list(model.revision(TEXT, strength=0.25, steps=7).run())) == 8


def test_guides_are_in_force(tiny_run: MakeRun):
    model = TextDiffusion.from_pretrained(tiny_run("mdlm", *LETTERS), device="cpu")
    texts = model.revise(TEXT, 8, strength=1.0, guides=["regex:pattern=[a-z .]+"], keep="fig")
    assert all(text == text.lower() for text in texts)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"strength": 1.5}, "between 0"),
        ({"strength": float("nan")}, "between 0"),
        ({"select": "all"}, "random or suspect"),
        ({"keep": "plum"}, "'plum', is not in the draft"),
        ({"keep": ""}, "is not in the draft"),
        ({"text": ""}, "empty"),
        ({"text": []}, "empty"),
        ({"num": 0}, "num is 0"),
        ({"label": "x"}, "no labels"),
    ],
)
def test_what_cannot_be_revised_is_said(tiny_run: MakeRun, options: dict[str, Any], told: str):
    revise: Any = TextDiffusion.from_pretrained(tiny_run("mdlm", *LETTERS), device="cpu").revise
    with pytest.raises(UserError, match=told):
        revise(**({"text": TEXT} | options))
