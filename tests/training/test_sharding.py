"""A model divided among processes computes what it does in one piece."""

import shutil
import time
from dataclasses import replace
from typing import Any

import pytest
import torch

from textdiffusion.config.overrides import apply_overrides
from textdiffusion.storage.checkpoint import AVERAGED, OPTIMIZER, RAW
from textdiffusion.storage.weights import load_tensors

from .ranks import Ranks
from .runs import losses, metrics, run
from .tiny import tiny

STEPS = 6


def train_on(size: int, config, out, folder) -> None:
    if size == 1:
        run(config, out, folder)
    else:
        Ranks(size, run, config, out, folder).finish()


def sharded(config, **settings):
    return replace(config, training=replace(config.training, parallel="fsdp", **settings))


def tensors(out, step=STEPS):
    folder = out / f"checkpoints/step-{step:09d}"
    return {f"{name}/{key}": t for name in (RAW, AVERAGED, OPTIMIZER) for key, t in load_tensors(folder / name).items()}


def assert_close(one, other, step=STEPS, tolerance=1e-5):
    a, b = tensors(one, step), tensors(other, step)
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=tolerance, msg=name)


# A block with two passes, a fitted density, matrices that both optimizers move, and a language model.
CASES = [
    ("mdlm", {"optimizer": "muon", "grad_accumulation": 2}, (1, 3)),
    ("cdcd", {}, (3,)),
    ("adapted", {}, (1,)),
]


@pytest.mark.parametrize(("recipe", "settings", "sizes"), CASES)
def test_a_divided_model_equals_one_and_goes_on_with_any_number_of_processes(recipe, settings, sizes, tmp_path):
    settings: dict[str, Any] = {
        "steps": STEPS,
        "batch_size": 12,
        "eval_every": 3,
        "lr": 1e-3,
        "decay": "constant",
        **settings,
    }
    config = tiny(recipe, tmp_path, num_samples=1, **settings)
    train_on(1, config, tmp_path / "one", tmp_path)
    train_on(2, sharded(config, steps=3), tmp_path / "two", tmp_path)
    for size in sizes:
        shutil.copytree(tmp_path / "two", tmp_path / f"on{size}")
        train_on(size, sharded(config), tmp_path / f"on{size}", tmp_path)
        assert_close(tmp_path / f"on{size}", tmp_path / "one")
        assert [loss[1:3] for loss in losses(tmp_path / f"on{size}")] == [
            pytest.approx(loss[1:3], abs=1e-5) for loss in losses(tmp_path / "one")
        ]
        assert [m["bits"] for m in metrics(tmp_path / f"on{size}", "validated")] == pytest.approx(
            [m["bits"] for m in metrics(tmp_path / "one", "validated")], abs=1e-4
        )
        exported = load_tensors(tmp_path / f"on{size}/model.safetensors")
        assert exported.keys() == load_tensors(tmp_path / "one/model.safetensors").keys()
    samples = [(tmp_path / name / "samples/step-000000003.txt").read_text() for name in ("one", "two")]
    assert samples[0] == samples[1]


def test_a_run_goes_on_after_one_of_its_processes_was_killed(tmp_path):
    config = sharded(tiny("mdlm", tmp_path, steps=STEPS, eval_every=3, checkpoint_every=1, keep_checkpoints=9))
    train_on(2, config, tmp_path / "whole", tmp_path)
    ranks, begin = Ranks(2, run, config, tmp_path / "killed", tmp_path), time.monotonic()
    while not (tmp_path / "killed/checkpoints/step-000000002").exists():
        assert time.monotonic() - begin < 100
        time.sleep(0.001)
    ranks.kill(1)
    for left in (tmp_path / "killed/checkpoints").iterdir():  # what has no state is no checkpoint
        assert left.name.startswith(".") or (left / "state.json").exists()
    train_on(2, config, tmp_path / "killed", tmp_path)
    one, other = tensors(tmp_path / "whole"), tensors(tmp_path / "killed")
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert losses(tmp_path / "whole") == losses(tmp_path / "killed")


def test_an_adapter_is_trained_beside_divided_weights(tmp_path):
    base = tiny("adapted", tmp_path, steps=1, eval_every=1)
    run(base, tmp_path / "base", tmp_path)
    settings = (
        "backbone.lora_rank=2",
        "backbone.gradient_checkpointing=true",
        "training.steps=4",
        "training.eval_every=2",
    )
    config = apply_overrides(base, settings)
    run(config, tmp_path / "one", tmp_path, init=tmp_path / "base")
    Ranks(2, train_from, sharded(config), tmp_path / "two", tmp_path).finish()
    assert_close(tmp_path / "two", tmp_path / "one", step=4)
    one, two = (load_tensors(tmp_path / name / "adapter/adapter_model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert all(torch.allclose(one[name], two[name], rtol=0.0, atol=1e-5) for name in one)


def train_from(config, out, folder) -> None:
    run(config, out, folder, init=folder / "base")
