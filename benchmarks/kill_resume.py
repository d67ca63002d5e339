"""Kills training at random moments: python benchmarks/kill_resume.py [--kills 30] [--recipe cdcd] [--processes 2].

First 10 steps against 5 + SIGKILL + 5, eager and compiled. Then a run with a checkpoint at every step is killed again
and again, each time after a random while, and started anew: every start must succeed. Either way the finished run must
have the weights and losses of one that was never killed. With several processes the model is divided among them
(training.parallel=fsdp), and either one of them is killed or all are, in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[1]
CHILD = ROOT / "tests/training/tiny.py"
WEIGHTS = ("model.safetensors", "ema.safetensors", "optimizer.safetensors")


def start(recipe: str, folder: Path, run: str, *settings: str, processes: int = 1) -> subprocess.Popen[str]:
    """A training process of its own, or the launcher of several."""
    command = [sys.executable, str(CHILD), recipe, str(folder), str(folder / run), *settings]
    if processes > 1:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command = [sys.executable, *launcher, *command[1:], "parallel=fsdp"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    options = {"text": True, "env": environment, "cwd": ROOT, "start_new_session": True}
    return subprocess.Popen(command, stdout=pipe, stderr=subprocess.STDOUT, **options)


def kill(process: subprocess.Popen[str], rank: int | None = None) -> None:
    """Kills all processes of a training, or one of several, whose launcher then ends the others."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    if rank is None:
        for pid in (process.pid, *map(int, children)):  # the launcher's children have sessions of their own
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    else:
        os.kill(int(children[rank]), signal.SIGKILL)
    process.communicate()


def finish(process: subprocess.Popen[str]) -> None:
    """Waits for a process that must succeed."""
    output, _ = process.communicate(timeout=900)
    if process.returncode:
        sys.exit(f"A run failed with status {process.returncode}:\n{output}")


def reached(run: Path) -> int:
    """The step of the latest checkpoint."""
    return max((int(path.name[5:]) for path in (run / "checkpoints").glob("step-*")), default=0)


def same(one: Path, other: Path) -> tuple[bool, bool]:
    """Whether weights, averages and optimizer states, and whether all logged losses, are alike to the last bit."""
    a, b = (max((run / "checkpoints").glob("step-*")) for run in (one, other))
    weights = a.name == b.name and all((a / name).read_bytes() == (b / name).read_bytes() for name in WEIGHTS)
    exported = (one / WEIGHTS[0]).read_bytes() == (other / WEIGHTS[0]).read_bytes()
    return weights and exported, losses(one) == losses(other)


def losses(run: Path) -> list[tuple]:
    """What was logged of every step, without clocks."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(m["step"], m["loss"], m["grad_norm"], m["parts"]) for m in lines if m["event"] == "logged"]


def random_kills(recipe: str, folder: Path, kills: int, steps: int, seed: int, processes: int) -> None:
    """The second test: kills up to 1.5 s after the first checkpoint of their process, a third of them within 0.1 s."""
    settings = (f"steps={steps}", "checkpoint_every=1", "eval_every=10")
    finish(start(recipe, folder, "whole", *settings, processes=processes))
    chance = random.Random(seed)
    moments, writing = [], 0
    for number in range(kills):
        process = start(recipe, folder, "killed", *settings, processes=processes)
        before, begin = reached(folder / "killed"), time.monotonic()
        while process.poll() is None and reached(folder / "killed") == before and time.monotonic() - begin < 120:
            time.sleep(0.01)
        time.sleep(chance.random() * 1.5 if number % 3 else chance.random() * 0.1)
        if process.poll() is not None:
            output = process.communicate()[0]
            sys.exit(f"The run ended before kill {number + 1} (more steps are needed, or it failed):\n{output}")
        kill(process, chance.randrange(processes) if processes > 1 and number % 2 else None)
        moments.append(reached(folder / "killed"))
        writing += bool(list((folder / "killed/checkpoints").glob(".partial-*")))
    finish(start(recipe, folder, "killed", *settings, processes=processes))
    weights, logged = same(folder / "whole", folder / "killed")
    print(
        f"{recipe}: {kills} SIGKILLs at steps {moments}, {writing} of them while a checkpoint was written or deleted;"
    )
    print(f"{kills} of {kills} resumed; weights identical: {weights}, losses identical: {logged}", flush=True)
    if not (weights and logged):
        sys.exit(1)


def halves(recipe: str, folder: Path, compile: str) -> None:
    """The first test."""
    settings = ("steps=10", "checkpoint_every=5", "eval_every=5", f"compile={compile}")
    whole, cut = f"whole-{compile}", f"cut-{compile}"
    finish(start(recipe, folder, whole, *settings))
    process = start(recipe, folder, cut, *settings)
    while process.poll() is None and reached(folder / cut) < 5:
        time.sleep(0.002)
    process.kill()
    output = process.communicate()[0]
    step = reached(folder / cut)
    if step != 5:
        sys.exit(f"The run was killed at step {step} instead of 5:\n{output}")
    finish(start(recipe, folder, cut, *settings))
    weights, logged = same(folder / whole, folder / cut)
    compiled = json.loads((folder / whole / "checkpoints/step-000000010/state.json").read_text())["compiled"]
    print(f"{recipe}: 10 steps and 5 + SIGKILL + 5, compiled: {compiled}; ", end="")
    print(f"weights identical: {weights}, losses identical: {logged}", flush=True)
    if not (weights and logged):
        sys.exit(1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recipe", default="cdcd")
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for compile in ("off", "on") if options.processes == 1 else ():
            halves(options.recipe, Path(name), compile)
        if options.kills:
            random_kills(options.recipe, Path(name), options.kills, options.steps, options.seed, options.processes)
