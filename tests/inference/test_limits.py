"""Requests at the edges: what None, tiny temperatures, large seeds and large sizes mean."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from textdiffusion import TextDiffusion, UserError
from textdiffusion.inference.options import truncate

MakeRun = Callable[..., Path]


@pytest.fixture(scope="module")
def model(tiny_run: MakeRun) -> TextDiffusion:
    return TextDiffusion.from_pretrained(tiny_run("mdlm"), device="cpu")


def test_none_is_the_default(model: TextDiffusion):
    options: dict[str, Any] = dict.fromkeys(("steps", "seed", "temperature", "sampler", "top_k", "top_p"))
    assert model.generate(2, **options) == model.generate(2)


@pytest.mark.parametrize("temperature", [1e-6, 1e-38, 1e-45, 5e-324])
def test_tiny_temperatures_are_greedy(model: TextDiffusion, temperature: float):
    greedy = model.generate(2, sampler="first_hitting", top_k=1)
    assert model.generate(2, sampler="first_hitting", temperature=temperature) == greedy


def test_refusals_say_what_is_allowed(model: TextDiffusion):
    for seed in (2**64, -1, 10**400):
        with pytest.raises(UserError, match=r"seed is .*; it must be from 0 to 2\*\*64 - 1"):
            model.generate(seed=seed)
    with pytest.raises(UserError, match="The list of templates is empty"):
        model.infill([])
    with pytest.raises(UserError, match="A stop text is empty"):
        model.generate(stop="")


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda run: run.generate(10**12), r"Writing 1,000,000,000,000 texts .* lower num \(--num"),
        (lambda run: run.generate(1, 10**12), r"texts of 1,000,000,000,000 tokens needs at least .* GiB"),
        (lambda run: run.generate(steps=10**12), r"Sampling in 1,000,000,000,000 steps .* lower steps"),
        (lambda run: run.infill("a [MASK:3]", 10**12), "lower num"),
        (lambda run: run.infill("a [MASK] b", 10**12), "lower num"),
        (lambda run: run.infill("a" + "[MASK:99999]" * 10_000), "lower num .* or length"),
        (lambda run: run.infill(f"a [MASK:{'9' * 5000}]"), "is not a valid gap"),
        (lambda run: run.infill("\ud800 [MASK:3]"), "lone surrogate"),
        (lambda run: run.generate(guides=["word:text=pear,position=1000000000000"]), "smaller position"),
        (lambda run: run.generate(guides=["regex:pattern=a{1000}a{1000}"]), "texts of 2000 tokens can"),
        (lambda run: run.generate(guides=[f"regex:pattern={'(' * 450}a{')' * 450}"]), "too many groups"),
        (lambda run: run.generate(guides=[f"regex:pattern=a{{{'9' * 5000}}}"]), "repeats more than 1,000 times"),
        (lambda run: run.generate(guides=["regex:pattern=(a{0,100}){0,100}"]), "longer than 5,000 characters"),
        (lambda run: run.generate(guides=["regex:pattern=(a{0,60}){0,60}"]), "too complex|states"),
    ],
)
def test_what_does_not_fit_is_refused(model: TextDiffusion, write: Callable[[TextDiffusion], object], says: str):
    with pytest.raises(UserError, match=says) as refusal:
        write(model)
    assert len(str(refusal.value)) < 12_000


def test_texts_end_before_the_first_stop_text(model: TextDiffusion):
    assert truncate("a pear. A fig", [".", "pear"]) == "a "
    assert truncate("a pear", ["x"]) == "a pear"
    plain = model.generate(3, seed=1)
    stop = plain[0][4:6]
    assert model.generate(3, seed=1, stop=stop) == [truncate(text, [stop]) for text in plain]
    assert stop not in "".join(model.generate(3, seed=1, stop=[stop, "zz"])[:1])


def test_labels_may_be_numbers(tiny_run: MakeRun, tmp_path: Path):
    table = tmp_path / "stars.csv"
    table.write_text("text,stars\n" + "The red pear.,1\nThe old fig.,0\n" * 30)
    settings = ("text.field=text", "text.label=stars", "text.labels=0,1", "text.layout=lines")
    run = TextDiffusion.from_pretrained(tiny_run("mdlm", f"text.data={table}", *settings), device="cpu")
    for label in (0, 1):
        assert run.generate(label=label) == run.generate(label=str(label))
    with pytest.raises(UserError, match="There is no label '2'"):
        run.generate(label=2)
