"""The loop end to end, on models of a few thousand parameters."""

import time
from itertools import combinations, count, pairwise

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from textdiffusion.config.overrides import apply_overrides
from textdiffusion.core.errors import UserError
from textdiffusion.inference import model_card
from textdiffusion.networks import transformer
from textdiffusion.objectives.base import Loss, Objective
from textdiffusion.storage.checkpoint import AVERAGED, RAW
from textdiffusion.storage.weights import load_tensors
from textdiffusion.training.events import Logged, StopSignal
from textdiffusion.training.loop import NonFiniteLoss

from .runs import assert_same_weights, loop_of, losses, metrics, run
from .tiny import tiny


@pytest.mark.parametrize(
    ("recipe", "third"),
    [
        ("mdlm", 20),
        ("cdcd", 40),
        ("autoregressive", 20),
    ],
)
def test_training_learns(recipe, third, tmp_path):
    """The density of `cdcd` moves to harder noise levels at first, so its loss takes longer to fall."""
    steps, half = 3 * third, 3 * third // 2
    every = {"log_every": third, "eval_every": half, "sample_every": steps}
    config = tiny(recipe, tmp_path, steps=steps, num_samples=1, lr=1e-2, **every)
    last = run(config, tmp_path / "run", tmp_path)
    logged, validated = metrics(tmp_path / "run", "logged"), metrics(tmp_path / "run", "validated")
    assert last.complete
    assert [m["step"] for m in logged] == [third, 2 * third, steps]
    assert logged[-1]["loss"] < logged[0]["loss"] - 0.02
    assert [m["step"] for m in validated] == [half, steps]
    assert validated[1]["bits"] < validated[0]["bits"]
    assert last.best is not None
    assert last.best.bits == min(m["bits"] for m in validated)
    texts = metrics(tmp_path / "run", "sampled")[-1]["texts"]
    assert texts[0] in (tmp_path / f"run/samples/step-{steps:09}.txt").read_text()
    exported, averaged = load_tensors(tmp_path / "run/model.safetensors"), tmp_path / f"run/checkpoints/step-{steps:09}"
    assert all(torch.equal(exported[k], v) for k, v in load_tensors(averaged / "ema.safetensors").items())


def test_samples_and_checkpoints_come_with_every_validation_unless_told_otherwise(tmp_path):
    config = tiny("mdlm", tmp_path, steps=15, eval_every=3, num_samples=1, eval_windows=2, keep_checkpoints=9)
    run(config, tmp_path / "run", tmp_path)
    assert [m["step"] for m in metrics(tmp_path / "run", "validated")] == [3, 6, 9, 12, 15]
    assert [m["step"] for m in metrics(tmp_path / "run", "sampled")] == [3, 6, 9, 12, 15]
    assert [m["step"] for m in metrics(tmp_path / "run", "saved")] == [3, 6, 9, 12, 15]


@pytest.mark.parametrize("recipe", ["mdlm", "cdcd"])
def test_training_in_bfloat16_is_close_to_float32(recipe, tmp_path):
    found = {}
    for dtype in ("float32", "bfloat16"):
        config = tiny(recipe, tmp_path, dtype=dtype, steps=3, batch_size=4, eval_windows=2)
        run(config, tmp_path / dtype, tmp_path)
        found[dtype] = losses(tmp_path / dtype)
        weights = load_tensors(tmp_path / dtype / "checkpoints/step-000000003" / RAW)
        assert {tensor.dtype for name, tensor in weights.items() if name != "step"} == {torch.float32}
    for half, full in zip(found["bfloat16"], found["float32"], strict=True):
        assert half[1:3] == pytest.approx(full[1:3], rel=0.05)
    assert found["bfloat16"] != found["float32"]


@pytest.mark.parametrize("recipe", ["mdlm", "cdcd"])
def test_recomputing_activations_changes_no_gradient(recipe, tmp_path, monkeypatch):
    recomputed = []

    def counting(block, *arguments, **options):
        recomputed.append(block)
        return checkpoint(block, *arguments, **options)

    monkeypatch.setattr(transformer, "checkpoint", counting)
    for again in (False, True):
        config = tiny(recipe, tmp_path, steps=4, eval_windows=2)
        config = apply_overrides(config, [f"backbone.gradient_checkpointing={again}", "backbone.dropout=0.1"])
        run(config, tmp_path / str(again), tmp_path)
        assert len(recomputed) == 4 * again
    assert losses(tmp_path / "True") == losses(tmp_path / "False")
    assert_same_weights(*(tmp_path / name / "checkpoints/step-000000004" for name in ("True", "False")))


@pytest.mark.parametrize("recipe", ["mdlm", "cdcd"])
def test_accumulation_equals_one_large_batch(recipe, tmp_path):
    runs = {}
    for parts in (1, 4):
        config = tiny(recipe, tmp_path, grad_accumulation=parts, steps=6, eval_every=6)
        run(config, tmp_path / str(parts), tmp_path)
        runs[parts] = losses(tmp_path / str(parts))
    for one, four in zip(runs[1], runs[4], strict=True):
        assert four[1] == pytest.approx(one[1], abs=1e-6)
        assert four[2] == pytest.approx(one[2], rel=1e-4)


def test_a_divergence_stops_the_run_and_keeps_the_last_checkpoint(tmp_path):
    config = tiny("mdlm", tmp_path, checkpoint_every=3)
    loop = loop_of(config, tmp_path / "run", tmp_path)
    objective, calls = loop.trainer.objective, 0

    class Diverging(Objective):
        def __call__(self, model, batch, *, rng):
            nonlocal calls
            calls += 1
            loss = objective(model, batch, rng=rng)
            return Loss(loss.total * float("nan"), loss.parts) if calls == 5 else loss

    loop.trainer.objective = Diverging()
    with pytest.raises(NonFiniteLoss, match=r"step 5: loss nan.*last good checkpoint is .*step-000000003.*metrics"):
        list(loop.events(StopSignal()))
    assert [path.name for path in loop.folder.checkpoints.paths()] == ["step-000000003"]


def test_every_step_sees_other_text_and_other_draws(tmp_path):
    steps = 6
    loop = loop_of(tiny("cdcd", tmp_path, steps=steps, eval_windows=2), tmp_path / "run", tmp_path)
    objective = loop.trainer.objective
    texts, keys, estimates = [], [], []

    class Spy(Objective):
        def __call__(self, model, batch, *, rng):
            texts.append(batch.tokens.tolist())
            keys.append(int(rng.key))
            hook = model.denoiser.register_forward_pre_hook(
                lambda module, given, named: estimates.append(named.get("self_cond")), with_kwargs=True
            )
            loss = objective(model, batch, rng=rng)
            hook.remove()
            return loss

    loop.trainer.objective = Spy()
    list(loop.events(StopSignal()))
    assert len(texts) == len(set(keys)) == steps
    assert all(one != other for one, other in combinations(texts, 2))
    fed = [bool(estimate[0].any()) for estimate in estimates if estimate is not None]
    assert len(fed) == steps
    assert set(fed) == {False, True}  # the coin of the first row


def test_without_ema_the_averaged_weights_are_the_weights(tmp_path):
    averaged = tiny("cdcd", tmp_path, steps=3, eval_windows=2)
    for name, config in (("plain", apply_overrides(averaged, ["training.ema=0"])), ("averaged", averaged)):
        run(config, tmp_path / name, tmp_path)
        saved = tmp_path / name / "checkpoints/step-000000003"
        raw, mean = load_tensors(saved / RAW), load_tensors(saved / AVERAGED)
        assert raw.keys() == mean.keys()
        assert all(torch.equal(raw[key], mean[key]) for key in raw) == (name == "plain")


def test_a_time_limit_ends_the_run_with_the_rate_at_zero(tmp_path, monkeypatch):
    # A clock that a step reads three times: a step takes 0.25 CPU-seconds, and the run 20 steps.
    monkeypatch.setattr(time, "process_time", count(0.0, 0.25).__next__)
    config = tiny("mdlm", tmp_path, steps=100_000, warmup=100, max_cpu_seconds=5.0, eval_every=0, eval_windows=2)
    last = run(config, tmp_path / "run", tmp_path)
    logged = metrics(tmp_path / "run", "logged")
    assert last.complete
    assert last.step == 20
    assert logged[-1]["cpu_seconds"] == 5.0
    rates = [m["lr_scale"] for m in logged]
    assert max(rates) == rates[1] == 1.0
    assert rates[-1] == pytest.approx(1 / 19)
    assert [m["step"] for m in metrics(tmp_path / "run", "validated")] == list(range(2, 21, 2))
    assert run(config, tmp_path / "run", tmp_path).step == 20


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    run(tiny("mdlm", tmp_path, steps=2), tmp_path / "run", tmp_path, track=("tensorboard",))
    assert list((tmp_path / "run/tensorboard").glob("events*"))
    with pytest.raises(UserError, match="track is 'x'"):
        run(tiny("mdlm", tmp_path, steps=2), tmp_path / "other", tmp_path, track=("x",))


def test_the_error_of_a_single_window_is_null_in_the_metrics(tmp_path):
    config = tiny("mdlm", tmp_path, steps=1, eval_windows=1, dtype="bfloat16")
    run(config, tmp_path / "run", tmp_path)
    assert "NaN" not in (tmp_path / "run/metrics.jsonl").read_text()
    (validated,) = metrics(tmp_path / "run", "validated")
    assert validated["error"] is None
    assert validated["raw_error"] is None
    assert validated["windows"] == 1
    assert validated["dtype"] == "bfloat16"
    assert "on 1 validation windows" in model_card.model_card("x", config, 1, 1, "ema", tmp_path / "run")


def test_logged_records_say_what_was_spent(tmp_path):
    config = tiny("mdlm", tmp_path, log_every=3)
    records = [r for r in loop_of(config, tmp_path / "run", tmp_path).events(StopSignal()) if isinstance(r, Logged)]
    assert [r.step for r in records] == [3, 6, 9, 10]
    assert [r.tokens for r in records] == [r.step * 8 * 16 for r in records]
    assert all(a.cpu_seconds < b.cpu_seconds for a, b in pairwise(records))
