"""Runs that are stopped, killed, continued, or begun from others."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from textdiffusion.config.config import Config
from textdiffusion.config.overrides import apply_overrides
from textdiffusion.core.errors import UserError
from textdiffusion.diffusion.binned_densities import LossSecondMoment, TimeWarp
from textdiffusion.objectives.discrete import Duality
from textdiffusion.storage.checkpoint import RAW
from textdiffusion.storage.weights import load_tensors
from textdiffusion.training import loggers as sinks
from textdiffusion.training.events import Event, Logged, Saved, StopSignal
from textdiffusion.training.loggers import Logger, MetricsFile
from textdiffusion.training.run import train
from textdiffusion.training.run_folder import RunFolder

from .runs import CHILD, assert_same_weights, loop_of, losses, metrics, run
from .tiny import tiny


@pytest.mark.parametrize(
    ("recipe", "mask", "options"),
    [
        ("mdlm", "none", {}),
        ("sedd", "none", {}),
        ("d3pm/uniform", "none", {}),
        ("block_diffusion", "prefix", {}),
        ("autoregressive", "none", {}),
        ("simple_diffusion_lm/successor", "mixed", {}),
        ("diffusion_lm", "none", {"density": LossSecondMoment()}),
        ("minimal_text_diffusion", "none", {}),
        ("analog_bits/unet", "none", {}),
        ("ssd_lm/tess", "none", {}),
        ("cdcd", "none", {"density": TimeWarp()}),
        ("udlm", "mixed", {}),
        ("cdcd", "prefixes", {}),
        ("analog_bits", "mixed", {}),
        ("cdcd", "none", {"optimizer": "muon", "grad_accumulation": 2, "log_every": 4}),
        ("difformer", "spans", {}),
        ("mini_cdcd", "none", {}),
        ("plaid", "none", {"codec_lr": 0.02}),
        ("ssd_lm", "mixed", {}),
    ],
)
def test_a_killed_run_resumes_bit_for_bit(recipe, mask, options, tmp_path):
    training = {name: value for name, value in options.items() if name != "density"}
    config = tiny(recipe, tmp_path, mask, checkpoint_every=5, **training)
    config = replace(config, time_density=options.get("density", config.time_density))
    run(config, tmp_path / "whole", tmp_path)
    for record in loop_of(config, tmp_path / "cut", tmp_path).events(StopSignal()):
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


def test_a_run_continues_with_another_learning_rate_and_batch_size_only_on_request(tmp_path):
    config = tiny("mdlm", tmp_path, steps=4, checkpoint_every=2)
    run(config, tmp_path / "run", tmp_path)
    training = replace(config.training, steps=6, lr=0.0, batch_size=2 * config.training.batch_size)
    changed = replace(config, training=training)
    with pytest.raises(UserError, match=r"training\.batch_size was .*add --allow-changes"):
        run(changed, tmp_path / "run", tmp_path)
    seed = replace(changed, training=replace(training, seed=1))
    with pytest.raises(
        UserError, match=r"training\.seed was 0, now 1\. Use the same settings to continue it, or another"
    ):
        run(seed, tmp_path / "run", tmp_path, allow_changes=True)
    run(changed, tmp_path / "run", tmp_path, allow_changes=True)
    before, after = (load_tensors(tmp_path / f"run/checkpoints/step-{step:09d}" / RAW) for step in (4, 6))
    assert after.pop("step") == 6
    assert before.pop("step") == 4
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())  # a learning rate of 0
    saved = json.loads((tmp_path / "run/config.json").read_text())
    assert (saved["training"]["lr"], saved["training"]["batch_size"]) == (0.0, training.batch_size)


def test_a_curriculum_is_resumed_where_it_was(tmp_path):
    config = replace(tiny("udlm", tmp_path, checkpoint_every=5), objective=Duality(steps=7))
    run(config, tmp_path / "whole", tmp_path)
    for record in loop_of(config, tmp_path / "cut", tmp_path).events(StopSignal()):
        if isinstance(record, Saved):
            break
    run(config, tmp_path / "cut", tmp_path, resume="always")
    names = [tmp_path / name / "checkpoints/step-000000010" for name in ("cut", "whole")]
    assert_same_weights(*names)
    assert int(load_tensors(names[0] / "model.safetensors")["step"]) == 10


def test_dropout_is_resumed_exactly_and_the_global_generator_is_left_alone(tmp_path):
    config = tiny("mdlm", tmp_path, checkpoint_every=5)
    config = apply_overrides(config, ["backbone.dropout=0.5"])
    torch.manual_seed(1)
    before = torch.get_rng_state()
    run(config, tmp_path / "whole", tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    for record in loop_of(config, tmp_path / "cut", tmp_path).events(StopSignal()):
        if isinstance(record, Saved):
            break
    torch.manual_seed(3)
    run(config, tmp_path / "cut", tmp_path)
    assert_same_weights(tmp_path / "cut/checkpoints/step-000000010", tmp_path / "whole/checkpoints/step-000000010")


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
    assert all(torch.allclose(before[k], after[k], atol=1e-7) for k in before if k != "step")
    assert (tmp_path / "first/tokenizer.json").read_text() == (tmp_path / "second/tokenizer.json").read_text()
    assert run(replace(config, training=replace(config.training, steps=11)), tmp_path / "second", tmp_path).step == 11


@pytest.mark.parametrize("recipe", ["dual", "mdlm", "block_diffusion"])
def test_a_run_of_masks_starts_from_one_from_left_to_right(recipe, tmp_path):
    """Its tables read other groups of tokens and start anew; all else is taken over, so dual predicts the same."""
    configs = [
        apply_overrides(tiny(name, tmp_path, lr=0.0), ["backbone.conv_radius=0", *settings])
        for name, settings in (("autoregressive", ["training.lr=0.003"]), (recipe, []))
    ]
    for name, config, options in (("first", configs[0], {}), ("second", configs[1], {"init": tmp_path / "first"})):
        run(config, tmp_path / name, tmp_path, **options)
    before, after = (load_tensors(tmp_path / name / "model.safetensors") for name in ("first", "second"))
    assert before.keys() == after.keys()
    taken = {name for name in before if torch.equal(before[name], after[name])} - {"step"}
    assert {name for name in before if name not in taken} - {"step"} <= {
        "denoiser.embedding.tables.weight",
        "denoiser.embedding.out.weight",
    }
    assert "denoiser.backbone.blocks.0.qkv.weight" in taken


def test_init_begins_a_curriculum_anew_and_takes_one_that_is_done(tmp_path):
    """What a curriculum has counted is not what its network has learned."""
    duo = tiny("udlm/duo", tmp_path)
    run(duo, tmp_path / "first", tmp_path)
    for name, config in (("again", duo), ("plain", tiny("udlm", tmp_path))):
        run(config, tmp_path / name, tmp_path, init=tmp_path / "first")
    done = [load_tensors(tmp_path / name / "model.safetensors")["step"] for name in ("first", "again")]
    assert [int(count) for count in done] == [10, 10]


def test_a_run_refuses_changed_text_and_resume_never_and_always(tmp_path):
    config = tiny("mdlm", tmp_path)
    with pytest.raises(UserError, match="no checkpoint to resume"):
        run(config, tmp_path / "run", tmp_path, resume="always")
    run(config, tmp_path / "run", tmp_path)
    with pytest.raises(UserError, match="already holds a run"):
        run(config, tmp_path / "run", tmp_path, resume="never")
    text = tmp_path / "text.txt"
    text.write_text(text.read_text().replace("and", "nad"))
    with pytest.raises(UserError, match="text has changed"):
        run(config, tmp_path / "run", tmp_path)
    text.write_text("Ж" + text.read_text())
    with pytest.raises(UserError, match="another vocabulary"):
        run(config, tmp_path / "run", tmp_path)


class Terminating(Logger):
    """Asks the process to end after the third step."""

    def __init__(self, folder: RunFolder) -> None:
        pass

    def __call__(self, record: Event) -> None:
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
    config = tiny("mdlm", tmp_path, num_samples=1)
    run(config, tmp_path / "whole", tmp_path)
    stop, names = StopSignal(), []
    for record in loop_of(config, tmp_path / "cut", tmp_path).events(stop):
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
    from textdiffusion.training.events import stop_on_signals

    before = signal.getsignal(signal.SIGINT)  # a shell's background jobs ignore it
    with stop_on_signals() as stop:
        assert stop.signal is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal == "SIGTERM"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "setting"), [("mdlm", "grad_accumulation=2"), ("cdcd", "optimizer=muon")])
def test_two_processes_equal_one_and_both_leave_on_a_signal(recipe, setting, tmp_path):
    config = tiny(recipe, tmp_path, steps=1000, eval_every=3, keep_checkpoints=1000)
    settings = [f"{name}={getattr(config.training, name)}" for name in ("steps", "eval_every", "keep_checkpoints")]
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
    assert "time_density.averaged" in one or recipe == "mdlm"
    assert two.keys() == one.keys()
    assert all(torch.allclose(two[name], one[name], rtol=0.0, atol=1e-5) for name in one)


def begin(config: Config, out: Path, folder: Path) -> None:
    """Trains until the checkpoint of step 6."""
    loop = loop_of(config, out, folder)
    with MetricsFile(loop.folder) as write:
        for record in loop.events(StopSignal()):
            write(record)
            if isinstance(record, Saved) and record.step == 6:
                return
