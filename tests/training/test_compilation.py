"""When the trunk is compiled, and that it computes the same."""

import shutil
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

from textdiffusion.config.build import build_model
from textdiffusion.training import compilation, loop
from textdiffusion.training.events import Finished, Saved, StopSignal

from .runs import CHILD, loop_of, metrics, run
from .tiny import tiny


def model_of(recipe: str, tmp_path, **training) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = tiny(recipe, tmp_path, **training)
        model: Any = build_model(config, 11)
        model.config = config
        return model


@pytest.mark.timeout(300)
@pytest.mark.skipif(not shutil.which("g++"), reason="there is no C++ compiler")
def test_a_compiled_run_computes_what_another_does(tmp_path):
    """In processes of their own: the checks of shapes and types in this one cannot be compiled."""
    seen = []
    for compiled in ("on", "off"):
        settings = f"compile={compiled}", "steps=6", "eval_every=6"
        arguments = [sys.executable, CHILD, "mdlm", tmp_path, tmp_path / compiled, *settings]
        child = subprocess.run(arguments, capture_output=True, text=True, timeout=240)
        assert "finished 6" in child.stdout, child.stdout + child.stderr
        assert ("Compiled in" in child.stdout + child.stderr) == (compiled == "on")
        seen.append(torch.tensor([[m["loss"], m["grad_norm"]] for m in metrics(tmp_path / compiled, "logged")]))
    assert len(seen[0]) == 6
    torch.testing.assert_close(seen[0], seen[1], rtol=2e-3, atol=0)


def test_compilation_is_decided_by_the_configuration(tmp_path, monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(compilation.shutil, "which", lambda name: "/usr/bin/" + name)

    def against(begun=None, **training) -> str:
        model = model_of("mdlm", tmp_path, **training)
        return compilation.compile_skip_reason(model.config, model, cpu, begun) or "nothing"

    assert against(compile="on") == "nothing"
    assert "off" in against(compile="off")
    assert "too short" in against(compile="auto")
    assert against(compile="auto", steps=10**8) == "nothing"
    assert "too short" in against(compile="auto", steps=10**8, max_minutes=1.0)
    assert against(compile="auto", begun=True) == "nothing"
    assert "began without" in against(compile="auto", steps=10**8, begun=False)
    monkeypatch.setattr(compilation.shutil, "which", lambda name: None)
    assert "C++ compiler" in against(compile="on")


def test_a_failure_to_compile_is_no_failure_to_train(tmp_path):
    model = model_of("mdlm", tmp_path)

    def fail() -> None:
        raise RuntimeError("no such compiler\nand much more")

    assert compilation.compile_backbone(model, fail) == (
        "Compilation failed, so the network stays uncompiled: RuntimeError: no such compiler"
    )
    assert model.denoiser.backbone._compiled_call_impl is None


def test_a_signal_while_compiling_is_not_a_failed_compilation(tmp_path, monkeypatch):
    config, stop = tiny("mdlm", tmp_path, compile="on", steps=2), StopSignal()

    def interrupted(model, try_step):
        stop.signal = "SIGINT"  # it ends the compilers too
        return "Compilation failed, so the network stays uncompiled: CppCompileError: ..."

    monkeypatch.setattr(loop, "compile_backbone", interrupted)
    monkeypatch.setattr(loop, "compile_skip_reason", lambda *_: None)
    lines: list[str] = []
    training = loop_of(config, tmp_path / "run", tmp_path)
    training.log = lines.append
    *_, saved, finished = training.events(stop)
    assert isinstance(saved, Saved)
    assert isinstance(finished, Finished)
    assert (finished.complete, finished.signal, finished.step) == (False, "SIGINT", 0)
    assert lines == ["Compiling (about a minute, once) ..."]
    monkeypatch.undo()
    assert run(replace(config, training=replace(config.training, compile="off")), tmp_path / "run", tmp_path).complete
