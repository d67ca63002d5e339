"""Every whole number that a user can set, made large: it is refused in a sentence, or it works.

    python benchmarks/large_sizes.py [--memory-gib 4] [--seconds 10]

Each option of each command and each whole-number setting of a configuration is set to 10**4, 10**6, 10**9 and 10**12,
one at a time, in a process whose address space is limited. A trial ends in a refusal (exit status 2), in success, or is
still working when its time is over. An internal error, a process killed by a signal, a message about missing memory
after the work has begun and a refusal after more than 3 CPU-seconds are failures: they are printed, and the exit status
is 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import resource
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import textdiffusion.evaluation.compare
import textdiffusion.evaluation.sample_report
import textdiffusion.inference.api
import textdiffusion.training.run  # noqa: F401  (imported once, before the trials fork)
from textdiffusion import recipes
from textdiffusion.cli import load, main
from textdiffusion.config.discovery import import_parts
from textdiffusion.core.memory import GIB
from textdiffusion.core.registry import Part, to_dict
from textdiffusion.guidance.base import GuideConfig
from textdiffusion.samplers.base import Sampler

SIZES = (10**4, 10**6, 10**9, 10**12)
RUN_COMMANDS = {  # with what else they need; RUN, TEXT and OUT are filled in
    "sample": "RUN --num 1 --length 8",
    "infill": "RUN 'a [MASK:3] pear' --num 1",
    "evaluate": "RUN --windows 2 --draws 2",
    "noise": "'a red pear'",
    "tune": "RUN --windows 2",
    "plot": "RUN --windows 2 --out OUT.svg",
    "train-classifier": "RUN --data TEXT --out OUT --steps 2",
    "frontier": "RUN --num 2 --steps 2",
    "compare": "RUN --num 2",
    "audit": "mdlm --rows 2",
}
TRAIN = "train {recipe} --data TEXT --out OUT --max-minutes 0.02"
RECIPES = ("mdlm", "cdcd", "block_diffusion")
REFUSAL_SECONDS = 3.0
NO_MEMORY = re.compile("memory is not enough|Cannot allocate")


def option_names(command: str) -> list[str]:
    """The options of a command that take a whole number."""
    hints = get_type_hints(load(command), include_extras=False)
    fields = [field.name for field in dataclasses.fields(load(command))]
    return [f"--{name.replace('_', '-')}" for name in fields if "int" in re.findall(r"\w+", str(hints[name]))]


def whole_numbers(data: dict[str, Any], path: str = "") -> Iterator[str]:
    """The paths of the whole numbers in a configuration."""
    for key, value in data.items():
        if isinstance(value, dict):
            yield from whole_numbers(value, f"{path}{key}.")
        elif type(value) is int:
            yield path + key


def part_settings(parts: dict[str, type[Part]]) -> Iterator[str]:
    """`name:field=` of the whole-number fields of parts."""
    for name, part in parts.items():
        hints = get_type_hints(part)
        for field in dataclasses.fields(part):  # type: ignore[arg-type]
            if hints[field.name] is int:
                yield f"{name}:{field.name}="


def trials() -> Iterator[str]:
    """Command lines in which N stands for the size."""
    for command, rest in RUN_COMMANDS.items():
        for option in option_names(command):
            yield f"{command} {rest} {option} N"
    yield from (f"infill RUN {shlex.quote(template)}" for template in ("[MASK:N]", "a [MASK:N] b [MASK:N]"))
    yield from (f"sample RUN --num 1 --sampler {setting}N" for setting in part_settings(Sampler.choices()))
    yield from (f"sample RUN --num 1 --guide {setting}N" for setting in part_settings(GuideConfig.choices()))
    yield "sample RUN --num 1 --guide 'regex:pattern=a{N}'"
    train = TRAIN.format(recipe="mdlm")
    yield from (f"{train} {option} N" for option in option_names("train"))
    yield from (f"{train.replace('TEXT', name)}" for name in ("grammar:N", "sudoku:N"))
    yield f"{train} --tokenizer bpe --set text.vocab_size=N"
    for recipe in RECIPES:
        for path in whole_numbers(to_dict(recipes.get(recipe)("default"))):
            if recipe == RECIPES[0] or not path.startswith(("text.", "training.")):
                yield f"{TRAIN.format(recipe=recipe)} --set {path}=N"


def tried(words: list[str], folder: Path, gib: float, seconds: float) -> tuple[str, str, float]:
    """The outcome of a command in a process of its own, what it printed, and its CPU-seconds."""
    output = folder / "output"
    started = time.monotonic()
    if (child := os.fork()) == 0:
        os.setsid()
        handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        resource.setrlimit(resource.RLIMIT_AS, (int(gib * GIB), int(gib * GIB)))
        status = 0
        try:
            main(words)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        finally:
            sys.stdout.flush()
            os._exit(status)
    while True:
        pid, status, usage = os.wait4(child, os.WNOHANG)
        if pid:
            break
        if time.monotonic() - started > seconds:
            os.killpg(child, signal.SIGKILL)
            _, _, usage = os.wait4(child, 0)
            return "working", output.read_text(errors="replace"), usage.ru_utime
        time.sleep(0.01)
    text, cpu_seconds = output.read_text(errors="replace"), usage.ru_utime + usage.ru_stime
    if os.WIFSIGNALED(status):
        return "killed", text, cpu_seconds
    code = os.WEXITSTATUS(status)
    if NO_MEMORY.search(text):
        return "out of memory", text, cpu_seconds
    if code == 2 and cpu_seconds > REFUSAL_SECONDS:
        return "slow refusal", text, cpu_seconds
    return {0: "done", 2: "refused"}.get(code, "internal error"), text, cpu_seconds


def prepare(folder: Path) -> Path:
    """A small run, and a labelled text beside it."""
    lines = ["The red pear is old.\tred", "The green fig is sweet.\tgreen"] * 400
    (folder / "text.txt").write_text("\n".join(line.partition("\t")[0] for line in lines))
    (folder / "labels.tsv").write_text("\n".join(lines))
    run = folder / "run"
    small = "--set backbone.width=64 backbone.depth=1 training.compile=off"
    outcome, printed, _ = tried(
        shlex.split(f"train mdlm --data {folder}/text.txt --out {run} --steps 3 {small}"), folder, 16, 300
    )
    assert outcome == "done", printed
    return run


def filled(line: str, names: dict[str, Any]) -> str:
    """A command line with its capitals replaced."""
    return re.sub(r"\b(RUN|TEXT|OUT|N)\b", lambda match: str(names[match[1]]), line)


def try_all() -> int:
    """Runs every trial; returns the number of failures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory-gib", type=float, default=4.0)
    parser.add_argument("--seconds", type=float, default=10.0, help="time of a trial")
    parser.add_argument("--only", default="", help="part of a command line")
    given = parser.parse_args()
    import_parts()
    outcomes: Counter[str] = Counter()
    commands = [line for line in trials() if given.only in line]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["TEXTDIFFUSION_CACHE"] = str(folder / "cache")
        run = prepare(folder)
        for line in commands:
            for size in SIZES:
                text = folder / ("labels.tsv" if "classifier" in line else "text.txt")
                names = {"RUN": run, "TEXT": text, "OUT": folder / "out", "N": size}
                words = shlex.split(filled(line, names))
                outcome, printed, cpu_seconds = tried(words, folder, given.memory_gib, given.seconds)
                outcomes[outcome] += 1
                if outcome not in ("done", "refused", "working"):
                    last = (printed.strip().splitlines() or [""])[-1]
                    print(f"{outcome}: {line} with {size:.0e} ({cpu_seconds:.1f} CPU-s): {last[:300]}", flush=True)
                for path in folder.glob("out*"):
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    print(f"{len(commands)} options and settings, {sum(outcomes.values())} trials: {dict(outcomes)}")
    return sum(count for outcome, count in outcomes.items() if outcome not in ("done", "refused", "working"))


if __name__ == "__main__":
    sys.exit(try_all() > 0)
