"""Distilled runs: rounds, teachers and resuming."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from textdiffusion import TextDiffusion
from textdiffusion.core.errors import UserError
from textdiffusion.objectives import ConsistencyDistillation, SelfDistillation
from textdiffusion.storage.weights import load_tensors
from textdiffusion.training.distillation import distill, rounds

from .runs import assert_same_weights, metrics, run
from .tiny import tiny

WORDS = ("text.tokenizer=words", "text.layout=lines", "text.length=8", "text.model_padding=true")
FEW = ("training.batch_size=4", "training.eval_windows=4", "training.num_samples=0", "training.compile=off")


def test_rounds_halve_the_steps():
    assert rounds(64, 8) == [32, 16, 8]
    assert rounds(60, 8) == [32, 16, 8]
    assert rounds(2, 1) == [1]
    assert rounds(9, 8) == [8]


@pytest.mark.parametrize(("recipe", "objective"), [("mdlm", SelfDistillation), ("udlm", ConsistencyDistillation)])
def test_each_round_is_a_run_that_learns_from_the_one_before(recipe, objective, tiny_run, tmp_path: Path):
    teacher, out = tiny_run(recipe, *WORDS), tmp_path / "fast"
    options = {"steps": 2, "teacher_steps": 8, "settings": FEW, "device": "cpu"}
    last = distill(teacher, out, steps_per_round=2, **options)
    assert last.complete
    first = tmp_path / "fast-4-steps"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fast", "fast-4-steps"]
    for before, after in ((teacher, first), (first, out)):
        taught, start = load_tensors(after / "teacher.safetensors"), load_tensors(before / "model.safetensors")
        assert all(torch.equal(taught[name], tensor) for name, tensor in start.items() if name != "step")
        trained = load_tensors(after / "model.safetensors")
        assert any(not torch.equal(trained[name], tensor) for name, tensor in start.items() if name != "step")
    model = TextDiffusion.from_pretrained(out)
    assert model.config.objective == objective(steps=2, origin=str(teacher))
    assert model.config.sampler == replace(TextDiffusion.from_pretrained(teacher).config.sampler, steps=2)
    assert list(model.stream(num=1))[-1].total == 2
    assert "distilled from" in model.card("fast")
    assert "to write in 2 steps" in model.card("fast")
    again = distill(teacher, out, steps_per_round=2, **options)
    assert (again.step, again.complete) == (2, True)


def test_the_last_weights_of_a_student_are_exported(tmp_path: Path):
    run(tiny("mdlm", tmp_path), tmp_path / "teacher", tmp_path)
    config = replace(tiny("mdlm", tmp_path, steps=4, eval_every=1, lr=0.1), objective=SelfDistillation(steps=2))
    last = run(config, tmp_path / "student", tmp_path, init=tmp_path / "teacher")
    bits = [event["bits"] for event in metrics(tmp_path / "student", "validated")]
    assert min(bits) < bits[-1]
    assert last.best is not None
    assert last.best.step == 4


def test_a_resumed_student_has_the_same_teacher(tmp_path: Path):
    run(tiny("mdlm", tmp_path), tmp_path / "teacher", tmp_path)
    config = replace(tiny("mdlm", tmp_path, steps=4, checkpoint_every=2), objective=SelfDistillation(steps=2))
    out, copied = tmp_path / "student", tmp_path / "copied"
    run(config, out, tmp_path, init=tmp_path / "teacher")
    shutil.copytree(out, copied)
    shutil.rmtree(copied / "checkpoints/step-000000004")
    run(config, copied, tmp_path)
    assert_same_weights(out / "checkpoints/step-000000004", copied / "checkpoints/step-000000004")
    (copied / "teacher.safetensors").unlink()
    with pytest.raises(UserError, match=r"teacher.safetensors"):
        run(config, copied, tmp_path)


def test_what_cannot_be_distilled_is_refused(tiny_run, tmp_path: Path):
    with pytest.raises(UserError, match=r"steps is 64; it must be at least 1 and below the teacher's 6."):
        distill(tiny_run("mdlm", *WORDS), tmp_path / "fast", steps=64)
    with pytest.raises(UserError, match=r"process.kind=gaussian cannot be distilled: that needs UniformProcess or Abs"):
        distill(tiny_run("cdcd"), tmp_path / "fast", steps=2)
    config = replace(tiny("mdlm", tmp_path), objective=SelfDistillation())
    with pytest.raises(UserError, match=r"objective.kind=self_distillation learns from another run"):
        run(config, tmp_path / "run", tmp_path)
