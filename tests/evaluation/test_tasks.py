"""Solving tasks: what is asked, what counts as right, and that nobody has seen the questions."""

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Unpack

import pytest

from textdiffusion import TextDiffusion
from textdiffusion.core.errors import UserError
from textdiffusion.data.builtin.tasks import parse_task
from textdiffusion.data.templates import parse
from textdiffusion.evaluation.heldout import held_out, training_corpus
from textdiffusion.evaluation.tasks import solve_task
from textdiffusion.inference.options import SamplingKwargs

READING = ["layout=lines", "split=documents", "too_long=error", "mask=question"]


class Knowing(TextDiffusion):
    """Answers every question that is a whole line of `answers`, and gets one in four wrong."""

    answers: ClassVar[dict[str, str]] = {}

    def infill(self, template, num=1, *, source=None, label=None, **options: Unpack[SamplingKwargs]) -> list[str]:
        return [
            text.partition("=")[0] + "=" + (self.answers[text.partition("=")[0]] if number % 4 else "0")
            for number, text in enumerate(template)
        ]


@pytest.fixture
def run(tiny_run: Callable[..., Path]) -> Callable[[str, str], Path]:
    def make(recipe: str, data: str) -> Path:
        return tiny_run(recipe, f"text.data={data}", *(f"text.{setting}" for setting in READING))

    return make


@pytest.mark.parametrize("recipe", ["mdlm", "cdcd", "autoregressive"])
def test_every_family_is_asked_by_infilling(recipe: str, run: Callable[[str, str], Path], tmp_path: Path):
    model = TextDiffusion.from_pretrained(run(recipe, "brackets:easy:3000"))
    found = solve_task(model, tmp_path, count=6)
    assert len(found.answers) == 6
    assert 0 <= found.accuracy <= 1
    task = parse_task("brackets:easy")
    assert task is not None
    for row, asked in zip(
        found.answers, held_out(model, tmp_path, count=6).windows(range(6)).tokens.numpy(), strict=True
    ):
        right = model.tokenizer.decode(asked)
        assert len(row) == len(right)
        given = task.condition_mask(right)
        assert all(a == b for a, b, shown in zip(row, right, given, strict=True) if shown)
    assert found.accuracy == sum(map(task.is_correct, found.answers)) / 6
    assert (
        solve_task(model, tmp_path, "brackets:easy:5:1").answers
        == solve_task(model, tmp_path, "brackets:easy:5:1").answers
    )


def test_accuracy_and_its_error(run: Callable[[str, str], Path], tmp_path: Path):
    model = TextDiffusion.from_pretrained(run("mdlm", "addition:easy:3000"))
    test = held_out(model, tmp_path).windows(range(1000)).tokens.numpy()
    knowing = Knowing(model.model, model.tokenizer, model.config, folder=model.folder)
    for ids in test:
        question, _, answer = model.tokenizer.decode(ids).partition("=")
        knowing.answers[question] = answer
    found = solve_task(knowing, tmp_path)
    assert (found.accuracy, len(found.answers)) == (0.75, 1000)
    assert found.error == pytest.approx((0.75 * 0.25 / 1000) ** 0.5)
    train = training_corpus(model, tmp_path).train
    seen = {model.tokenizer.decode(ids).partition("=")[0] for ids in train.windows(range(len(train))).tokens.numpy()}
    assert len(seen) == 1000
    assert not seen & set(knowing.answers)


@pytest.mark.parametrize(
    ("row", "pieces"),
    [
        ("addition:850+636=1486", ["850+636=", 4]),
        ("brackets:.[.]=[[]]", [".[.]=", 1, "[", 1, "]"]),
        ("brackets:..[.=()[]", ["..[.=", 2, "[", 1]),
    ],
)
def test_a_template_has_gaps_where_nothing_is_given(row: str, pieces: list[str | int]):
    name, _, text = row.partition(":")
    task = parse_task(name)
    assert task is not None
    assert parse(task.row_template(text)) == pieces


def test_other_text_cannot_be_checked(tiny_run: Callable[..., Path], tmp_path: Path):
    model = TextDiffusion.from_pretrained(tiny_run("mdlm"))
    with pytest.raises(UserError, match="is not a task"):
        solve_task(model, tmp_path)
