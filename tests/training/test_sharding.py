"""A model divided among processes computes what it does in one piece."""

import shutil
from dataclasses import replace
from typing import Any

import pytest
import torch

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


def assert_close(one, other, tolerance=1e-5):
    a, b = tensors(one), tensors(other)
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
