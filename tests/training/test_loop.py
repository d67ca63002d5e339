"""The loop end to end, on models of a few thousand parameters."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from io import StringIO
from itertools import count, pairwise
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch.utils.checkpoint import checkpoint

from textdiffusion import hub
from textdiffusion.config import Config
from textdiffusion.errors import UserError
from textdiffusion.networks import transformer
from textdiffusion.objectives import Loss
from textdiffusion.overrides import changed
from textdiffusion.parts import Duality
from textdiffusion.text.preparation import prepare
from textdiffusion.training import sinks
from textdiffusion.training.checkpoint import RAW
from textdiffusion.training.distributed import World
from textdiffusion.training.folder import RunFolder
from textdiffusion.training.loop import train
from textdiffusion.training.records import Logged, Record, Saved
from textdiffusion.training.signals import Stop
from textdiffusion.training.sinks import Metrics, Sink
from textdiffusion.training.trainer import NonFiniteLoss, Trainer
from textdiffusion.training.weights import load_tensors

from .tiny import tiny

QUIET = Console(quiet=True)
CHILD = Path(__file__).with_name("tiny.py")


def run(config, out, folder, **options):
    return train(config, out, cache=folder / "cache", console=QUIET, device="cpu", **options)


def trainer_of(config, out, folder) -> Trainer:
    run_folder = RunFolder(out, config.training.keep)
    corpus = prepare(config.text, folder / "cache", seed=config.training.seed)
    out.mkdir(exist_ok=True)
    run_folder.begin(config, corpus.tokenizer, 0)
    return Trainer(config, corpus, run_folder, torch.device("cpu"), World(), lambda text: None)


def metrics(out: Path, event: str) -> list[dict]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


def losses(out: Path) -> list[tuple]:
    return [(m["step"], m["loss"], m["grad_norm"], m["rate"], *m["parts"].values()) for m in metrics(out, "logged")]


def assert_same_weights(one: Path, other: Path) -> None:
    for name in ("model.safetensors", "ema.safetensors", "optimizer.safetensors"):
        a, b = load_tensors(one / name), load_tensors(other / name)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a), name


@pytest.mark.parametrize(
    ("recipe", "third"),
    [
        ("mdlm", 20),
        ("sedd", 20),
        ("udlm", 20),
        ("block_diffusion", 20),
        ("cdcd", 40),
        ("analog_bits", 40),
        ("difformer", 40),
        ("autoregressive", 20),
    ],
)
def test_training_learns(recipe, third, tmp_path):
    """The density of `cdcd` moves to harder noise levels at first, so its loss takes longer to fall."""
    steps, half = 3 * third, 3 * third // 2
    every = {"log_every": third, "eval_every": half, "sample_every": steps}
    config = tiny(recipe, tmp_path, steps=steps, samples=1, lr=1e-2, **every)
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


@pytest.mark.parametrize(
    ("recipe", "part"), [("mini_cdcd", "cross_entropy"), ("plaid", "bound"), ("ssd_lm", "cross_entropy")]
)
def test_the_loss_falls(recipe, part, tmp_path):
    config = tiny(recipe, tmp_path, steps=120, log_every=40, eval_every=120, checkpoint_every=120, lr=1e-2)
    run(config, tmp_path / "run", tmp_path)
    nats = [m["parts"][part] for m in metrics(tmp_path / "run", "logged")]
    assert nats[-1] < nats[0] - 0.05


@pytest.mark.parametrize(
    ("recipe", "mask", "options"),
    [
        ("mdlm", "none", {}),
        ("udlm", "mixed", {}),
        ("cdcd", "cdcd", {}),
        ("analog_bits", "mixed", {}),
        ("cdcd", "none", {"optimizer": "muon", "accumulate": 2, "log_every": 4}),
        ("difformer", "spans", {}),
        ("mini_cdcd", "none", {}),
        ("plaid", "none", {"codec_lr": 0.02}),
        ("ssd_lm", "mixed", {}),
    ],
)
def test_a_killed_run_resumes_bit_for_bit(recipe, mask, options, tmp_path):
    config = tiny(recipe, tmp_path, mask, checkpoint_every=5, **options)
    run(config, tmp_path / "whole", tmp_path)
    for record in trainer_of(config, tmp_path / "cut", tmp_path).records(Stop()):
        if isinstance(record, Saved):
            break  # and nothing is done in an orderly way any more
    assert losses(tmp_path / "cut") == []
    (tmp_path / "cut/metrics.jsonl").write_text(
        "".join(json.dumps(m) + "\n" for m in metrics(tmp_path / "whole", "logged") if m["step"] < 8) + '{"event": "log'
    )
    run(config, tmp_path / "cut", tmp_path, resume="always")
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert_same_weights(tmp_path / "cut/checkpoints/step-000000010", tmp_path / "whole/checkpoints/step-000000010")
    whole = load_tensors(tmp_path / "whole/model.safetensors")
    assert all(torch.equal(v, whole[k]) for k, v in load_tensors(tmp_path / "cut/model.safetensors").items())


def test_a_curriculum_is_resumed_where_it_was(tmp_path):
    config = replace(tiny("udlm", tmp_path, checkpoint_every=5), objective=Duality(steps=7))
    run(config, tmp_path / "whole", tmp_path)
    for record in trainer_of(config, tmp_path / "cut", tmp_path).records(Stop()):
        if isinstance(record, Saved):
            break
    run(config, tmp_path / "cut", tmp_path, resume="always")
    names = [tmp_path / name / "checkpoints/step-000000010" for name in ("cut", "whole")]
    assert_same_weights(*names)
    assert int(load_tensors(names[0] / "model.safetensors")["objective.done"]) == 10


def test_samples_and_checkpoints_come_with_every_validation_unless_told_otherwise(tmp_path):
    config = tiny("mdlm", tmp_path, steps=15, eval_every=3, samples=1, eval_windows=2, keep=9)
    run(config, tmp_path / "run", tmp_path)
    assert [m["step"] for m in metrics(tmp_path / "run", "validated")] == [3, 6, 9, 12, 15]
    assert [m["step"] for m in metrics(tmp_path / "run", "sampled")] == [3, 6, 9, 12, 15]
    assert [m["step"] for m in metrics(tmp_path / "run", "saved")] == [3, 6, 9, 12, 15]


def test_dropout_is_resumed_exactly_and_the_global_generator_is_left_alone(tmp_path):
    config = tiny("mdlm", tmp_path, checkpoint_every=5)
    config = changed(config, ["trunk.dropout=0.5"])
    torch.manual_seed(1)
    before = torch.get_rng_state()
    run(config, tmp_path / "whole", tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    for record in trainer_of(config, tmp_path / "cut", tmp_path).records(Stop()):
        if isinstance(record, Saved):
            break
    torch.manual_seed(3)
    run(config, tmp_path / "cut", tmp_path)
    assert_same_weights(tmp_path / "cut/checkpoints/step-000000010", tmp_path / "whole/checkpoints/step-000000010")


@pytest.mark.parametrize("recipe", ["mdlm", "cdcd"])
def test_training_in_bfloat16_is_close_to_float32(recipe, tmp_path):
    found = {}
    for dtype in ("float32", "bfloat16"):
        config = tiny(recipe, tmp_path, dtype=dtype, steps=3, batch_size=4, eval_windows=2)
        run(config, tmp_path / dtype, tmp_path)
        found[dtype] = losses(tmp_path / dtype)
        weights = load_tensors(tmp_path / dtype / "checkpoints/step-000000003" / RAW)
        assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
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
        config = changed(config, [f"trunk.recompute={again}", "trunk.dropout=0.1"])
        run(config, tmp_path / str(again), tmp_path)
        assert len(recomputed) == 4 * again
    assert losses(tmp_path / "True") == losses(tmp_path / "False")
    assert_same_weights(*(tmp_path / name / "checkpoints/step-000000004" for name in ("True", "False")))


@pytest.mark.parametrize("recipe", ["mdlm", "cdcd"])
def test_accumulation_equals_one_large_batch(recipe, tmp_path):
    runs = {}
    for parts in (1, 4):
        config = tiny(recipe, tmp_path, accumulate=parts, steps=6, eval_every=6)
        run(config, tmp_path / str(parts), tmp_path)
        runs[parts] = losses(tmp_path / str(parts))
    for one, four in zip(runs[1], runs[4], strict=True):
        assert four[1] == pytest.approx(one[1], abs=1e-6)
        assert four[2] == pytest.approx(one[2], rel=1e-4)


def test_a_divergence_stops_the_run_and_keeps_the_last_checkpoint(tmp_path):
    config = tiny("mdlm", tmp_path, checkpoint_every=3)
    trainer = trainer_of(config, tmp_path / "run", tmp_path)
    objective, calls = trainer.model.objective, 0

    class Diverging(torch.nn.Module):
        def forward(self, model, batch, *, rng):
            nonlocal calls
            calls += 1
            loss = objective(model, batch, rng=rng)
            return Loss(loss.total * float("nan"), loss.parts) if calls == 5 else loss

    trainer.model.objective = Diverging()
    with pytest.raises(NonFiniteLoss, match=r"step 5: loss nan.*last good checkpoint is .*step-000000003.*metrics"):
        list(trainer.records(Stop()))
    assert [path.name for path in trainer.folder.checkpoints.paths()] == ["step-000000003"]


def test_a_time_limit_ends_the_run_with_the_rate_at_zero(tmp_path, monkeypatch):
    # A clock that a step reads three times: a step takes 0.25 CPU-seconds, and the run 20 steps.
    monkeypatch.setattr(time, "process_time", count(0.0, 0.25).__next__)
    config = tiny("mdlm", tmp_path, steps=100_000, warmup=100, max_cpu_seconds=5.0, eval_every=0, eval_windows=2)
    last = run(config, tmp_path / "run", tmp_path)
    logged = metrics(tmp_path / "run", "logged")
    assert last.complete
    assert last.step == 20
    assert logged[-1]["cpu_seconds"] == 5.0
    rates = [m["rate"] for m in logged]
    assert max(rates) == rates[1] == 1.0
    assert rates[-1] == pytest.approx(1 / 19)
    assert [m["step"] for m in metrics(tmp_path / "run", "validated")] == list(range(2, 21, 2))
    assert run(config, tmp_path / "run", tmp_path).step == 20


def test_a_finished_run_goes_on_with_more_steps(tmp_path):
    run(tiny("mdlm", tmp_path), tmp_path / "run", tmp_path)
    assert run(tiny("mdlm", tmp_path), tmp_path / "run", tmp_path).step == 10
    assert run(tiny("mdlm", tmp_path, steps=12), tmp_path / "run", tmp_path).step == 12


def test_init_starts_from_another_runs_weights_and_tokenizer(tmp_path):
    run(tiny("mdlm", tmp_path), tmp_path / "first", tmp_path)
    (tmp_path / "text.txt").rename(tmp_path / "other.txt")
    (tmp_path / "text.txt").write_text("1 and 2 make 3.\n" * 200)  # fewer characters than the first run knows
    config = tiny("mdlm", tmp_path, lr=0.0)
    run(config, tmp_path / "second", tmp_path, init=tmp_path / "first")
    before, after = (load_tensors(tmp_path / name / "model.safetensors") for name in ("first", "second"))
    assert all(torch.allclose(before[k], after[k], atol=1e-7) for k in before)
    assert (tmp_path / "first/tokenizer.json").read_text() == (tmp_path / "second/tokenizer.json").read_text()
    assert run(replace(config, training=replace(config.training, steps=11)), tmp_path / "second", tmp_path).step == 11


def test_a_run_refuses_changed_text_and_resume_never_and_always(tmp_path):
    config = tiny("mdlm", tmp_path)
    with pytest.raises(UserError, match="no checkpoint to resume"):
        run(config, tmp_path / "run", tmp_path, resume="always")
    run(config, tmp_path / "run", tmp_path)
    with pytest.raises(UserError, match="holds a run already"):
        run(config, tmp_path / "run", tmp_path, resume="never")
    text = tmp_path / "text.txt"
    text.write_text(text.read_text().replace("and", "nad"))
    with pytest.raises(UserError, match="text has changed"):
        run(config, tmp_path / "run", tmp_path)
    text.write_text("Ж" + text.read_text())
    with pytest.raises(UserError, match="another vocabulary"):
        run(config, tmp_path / "run", tmp_path)


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
    assert "on 1 validation windows" in hub.model_card("x", config, 1, 1, "ema", tmp_path / "run")


def test_logged_records_say_what_was_spent(tmp_path):
    config = tiny("mdlm", tmp_path, log_every=3)
    records = [r for r in trainer_of(config, tmp_path / "run", tmp_path).records(Stop()) if isinstance(r, Logged)]
    assert [r.step for r in records] == [3, 6, 9, 10]
    assert [r.tokens for r in records] == [r.step * 8 * 16 for r in records]
    assert all(a.cpu_seconds < b.cpu_seconds for a, b in pairwise(records))


class Terminating(Sink):
    """Asks the process to end after the third step."""

    def __init__(self, folder: RunFolder) -> None:
        pass

    def __call__(self, record: Record) -> None:
        if isinstance(record, Logged) and record.step == 3:
            signal.raise_signal(signal.SIGTERM)


def test_a_signal_saves_and_leaves(tmp_path, monkeypatch):
    monkeypatch.setitem(sinks.TRACKERS, "terminating", Terminating)
    console, config = Console(file=StringIO()), tiny("mdlm", tmp_path)
    last = train(
        config, tmp_path / "run", cache=tmp_path / "cache", console=console, device="cpu", track=("terminating",)
    )
    assert (last.step, last.complete, last.signal) == (4, False, "SIGTERM")
    assert isinstance(console.file, StringIO)
    assert "Stopped by SIGTERM after step 4" in console.file.getvalue()
    assert "continues the run" in console.file.getvalue()
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["step-000000004"]
    assert run(config, tmp_path / "run", tmp_path).step == 10


@pytest.mark.parametrize(("stopped", "killed", "made_up"), [(5, False, [5, 10]), (10, False, []), (10, True, [10])])
def test_nothing_that_is_due_is_lost_to_a_signal(stopped, killed, made_up, tmp_path):
    config = tiny("mdlm", tmp_path, samples=1)
    run(config, tmp_path / "whole", tmp_path)
    stop, names = Stop(), []
    for record in trainer_of(config, tmp_path / "cut", tmp_path).records(stop):
        if record.step == stopped - 1:
            stop.signal = "SIGTERM"
        elif record.step == stopped:
            names.append(type(record).__name__)
        if killed and names[-1:] == ["Saved"]:
            break
    checks = ["Validated", "Sampled", "Saved"] if stopped == 10 else []
    assert names == ["Logged", "Saved"] + ([] if killed else [*checks, "Finished"])
    last = run(config, tmp_path / "cut", tmp_path)
    assert last.complete
    bits = {m["step"]: m["bits"] for m in metrics(tmp_path / "whole", "validated")}
    assert {m["step"]: m["bits"] for m in metrics(tmp_path / "cut", "validated")} == {n: bits[n] for n in made_up}
    assert [m["step"] for m in metrics(tmp_path / "cut", "sampled")] == made_up
    assert last.best is not None
    assert last.best.step == min(made_up or [10], key=lambda step: bits[step])
    exported = load_tensors(tmp_path / "cut/model.safetensors")
    best = load_tensors(tmp_path / f"cut/checkpoints/step-{last.best.step:09d}/ema.safetensors")
    assert all(torch.equal(exported[name], tensor) for name, tensor in best.items())


def test_a_second_signal_leaves_at_once(tmp_path):
    from textdiffusion.training.signals import stop_on_signals

    before = signal.getsignal(signal.SIGINT)  # a shell's background jobs ignore it
    with stop_on_signals() as stop:
        assert stop.signal is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal == "SIGTERM"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "setting"), [("mdlm", "accumulate=2"), ("cdcd", "optimizer=muon")])
def test_two_processes_equal_one_and_both_leave_on_a_signal(recipe, setting, tmp_path):
    config = tiny(recipe, tmp_path, steps=1000, eval_every=3, keep=1000)
    settings = [f"{name}={getattr(config.training, name)}" for name in ("steps", "eval_every", "keep")]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    process = subprocess.Popen(
        [*command, str(CHILD), recipe, str(tmp_path), str(tmp_path / "two"), *settings, setting],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
    )
    with process:
        try:
            assert process.stdout is not None
            assert any("step 6: validation" in line for line in process.stdout)
            process.send_signal(signal.SIGTERM)
            output = process.communicate(timeout=60)[0]
        finally:
            process.terminate()  # it ends its children, which a killed one would leave behind
    saved = max(path.name for path in (tmp_path / "two/checkpoints").iterdir())
    assert f"Stopped by SIGTERM after step {int(saved[5:])}" in output or "Stopped by a signal to another" in output
    assert output.count("stopped by ") == 2, output  # one of them may hear of it from the other

    if "muon" in setting:
        config = replace(config, training=replace(config.training, optimizer="muon"))
    begin(config, tmp_path / "one", tmp_path)
    two, one = losses(tmp_path / "two")[:6], losses(tmp_path / "one")
    assert [loss[0] for loss in two] == [1, 2, 3, 4, 5, 6]
    assert [loss[1:3] for loss in two] == [pytest.approx(loss[1:3], abs=1e-5) for loss in one]
    two, one = metrics(tmp_path / "two", "validated")[:2], metrics(tmp_path / "one", "validated")
    assert [(m["bits"], m["error"]) for m in two] == [pytest.approx((m["bits"], m["error"]), abs=1e-4) for m in one]
    two, one = (load_tensors(tmp_path / name / "checkpoints/step-000000006" / RAW) for name in ("two", "one"))
    assert "density.settled" in one or recipe == "mdlm"
    assert two.keys() == one.keys()
    assert all(torch.allclose(two[name], one[name], rtol=0.0, atol=1e-5) for name in one)


def begin(config: Config, out: Path, folder: Path) -> None:
    """Trains until the checkpoint of step 6."""
    trainer = trainer_of(config, out, folder)
    with Metrics(trainer.folder) as write:
        for record in trainer.records(Stop()):
            write(record)
            if isinstance(record, Saved) and record.step == 6:
                return
