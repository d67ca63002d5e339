"""Damages the files of a run and uses it: python benchmarks/corrupt.py [--cases 1000] [--seed 0].

Each case mutates one file of a small run with a classifier: a flipped byte, a cut, a folder, a pipe or a link in its
place, other JSON, a huge number, a NaN, the same file of another run. Then everything that reads the file is tried:
loading, sampling, scoring, resuming, evaluating, comparing, steering. A case is good if it ends in a sentence
(UserError), or in the same result as with the intact file. Everything else is counted: internal errors, hangs, and
results that differ without a word. With --earlier the run has no checksums, as those of earlier versions: then another
result is no fault, but no check hides what lies behind it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from textdiffusion import TextDiffusion, UserError, recipes, train
from textdiffusion.config.config import Config
from textdiffusion.config.overrides import apply_overrides
from textdiffusion.evaluation.bench import EvalOptions, RunEvaluator
from textdiffusion.evaluation.compare import compare
from textdiffusion.guidance.trained_classifier import run_fingerprint
from textdiffusion.samplers.time_grids import FILE, save_grid
from textdiffusion.training.classifier import ClassifierConfig, train_classifier

LIMIT = 120.0  # seconds after which a case hangs
QUIET = Console(quiet=True)
OPTIONS = EvalOptions(windows=2, draws=2, num=0, levels=0)
SETTINGS = (
    *("text.length=16", "text.tokenizer=characters", "text.layout=stream", "backbone.width=64", "backbone.depth=1"),
    *("training.batch_size=4", "training.compile=off", "training.dtype=float32", "training.num_samples=1"),
    *("training.eval_every=2", "training.eval_windows=2", "training.keep_checkpoints=2", "training.warmup=2"),
)


class Hang(BaseException):
    """A case took too long."""


@dataclass(frozen=True)
class Case:
    """What to do to which file; `seed` decides where."""

    file: str
    mutation: str
    seed: int


@dataclass(frozen=True)
class Outcome:
    """What a use of the damaged run ended in: `sentence`, `same`, or one of `FAULTS`."""

    use: str
    kind: str
    detail: str = ""


FAULTS = ("internal error", "hang", "silently different")


class Bench:
    """An intact run, another one of the same shape, and what each use of the intact one gives."""

    def __init__(self, folder: Path, recipe: str, *, earlier: bool = False) -> None:
        self.folder, self.recipe, self.cache, self.earlier = folder, recipe, folder / "cache", earlier
        self.run, self.other = (self._trained(name, seed) for seed, name in enumerate(("run", "other")))
        if earlier:
            for path in (self.run, self.other):
                strip_checksums(path)
        self.expected = {name: use(self.run) for name, use in self.uses.items()}
        use_folder = self.copy()
        self.expected["resume"] = self.resume(use_folder)
        shutil.rmtree(use_folder)

    def config(self, name: str, seed: int, steps: int) -> Config:
        text = self.folder / f"{name}.txt"
        if not text.exists():
            lines = "".join(f"{i} and {i + 1} make {2 * i + 1}.\n" for i in range(300))
            text.write_text(lines if name == "run" else lines.replace("k", "q"))  # an alphabet of the same size
        own = [f"text.data={text}", f"training.seed={seed}", f"training.steps={steps}"]
        config = recipes.get(self.recipe)()
        if hasattr(config.denoiser, "ngram_dim"):  # large tables take time to write and to hash
            own.append("denoiser.ngram_dim=0")
        config = apply_overrides(config, [*SETTINGS, *own])
        return replace(config, sampler=replace(config.sampler, steps=4))

    def _trained(self, name: str, seed: int) -> Path:
        path = self.folder / name
        train(self.config(name, seed, 4), path, cache=self.cache, console=QUIET, device="cpu")
        model = TextDiffusion.from_pretrained(path, device="cpu")
        examples = [(f"{i} and {i + 1}", "odd" if i % 2 else "even") for i in range(40)]
        settings = ClassifierConfig(width=16, depth=1, steps=2, batch_size=4, seed=seed)
        classifier, _ = train_classifier(model, examples, settings)
        classifier.save(path / "classifier", {"run": run_fingerprint(model)})
        save_grid(torch.linspace(0, 1, 5) ** (1 + seed), path / FILE)
        RunEvaluator(model, OPTIONS, self.cache, lambda text: None).likelihood()
        return path

    @cached_property
    def files(self) -> list[str]:
        """All files of the run, by their paths in its folder."""
        return sorted(str(p.relative_to(self.run)) for p in self.run.rglob("*") if p.is_file())

    def copy(self) -> Path:
        """A copy of the run, where the name of the run would be."""
        path = self.folder / "cases" / "run"
        shutil.copytree(self.run, path)
        return path

    @property
    def uses(self) -> dict[str, Callable[[Path], Any]]:
        """Everything that reads a run without changing it, by name."""
        return {
            "load": lambda run: weights_hash(self.load(run)),
            "load raw": lambda run: weights_hash(TextDiffusion.from_pretrained(run, weights="raw", device="cpu")),
            "sample": lambda run: self.load(run).generate(num=1, seed=0),
            "score": lambda run: self.load(run).score(["1 and 2 make 3."], draws=2)[0].bits,
            "evaluate": lambda run: RunEvaluator(self.load(run), OPTIONS, self.cache, lambda _: None).likelihood().bits,
            "compare": lambda run: compare([str(run)], OPTIONS, self.cache, device="cpu").runs[0].likelihood.bits,
            "card": lambda run: bool(self.load(run).card("run")),
            "steer": lambda run: self.load(run).generate(
                num=1, seed=0, guides=[f"classifier:path={run / 'classifier'},label=odd"]
            ),
        }

    def load(self, run: Path) -> TextDiffusion:
        """The run, with its averaged weights."""
        return TextDiffusion.from_pretrained(run, device="cpu")

    def resume(self, run: Path) -> Any:
        """The weights after two more steps."""
        said = StringIO()
        train(self.config("run", 0, 6), run, cache=self.cache, console=Console(file=said), device="cpu")
        if "Skipping a checkpoint" in said.getvalue():  # the steps after an earlier checkpoint had another schedule
            raise UserError(said.getvalue())
        return weights_hash(TextDiffusion.from_pretrained(run, device="cpu", weights="raw"))

    def uses_of(self, file: str) -> list[str]:
        """The uses that read a file, the one that changes the run last."""
        top = file.split("/")[0]
        match top:
            case "classifier":
                return ["steer"]
            case "measured":
                return ["evaluate"]
            case "checkpoints":
                return ["load raw", "resume"]
            case "metrics.jsonl":
                return ["card", "compare", "resume"]
            case "samples" | ".lock" | ".pid":
                return ["load", "resume"]
            case _:
                return ["load", "sample", "score", "evaluate", "steer", "resume"]

    def outcomes(self, case: Case) -> list[Outcome]:
        """What every use of a damaged copy ends in."""
        run = self.copy()
        try:
            MUTATIONS[case.mutation](run / case.file, self.other / case.file, random.Random(repr(case)))
            return [self._outcome(name, run) for name in self.uses_of(case.file)]
        finally:
            shutil.rmtree(run)

    def _outcome(self, name: str, run: Path) -> Outcome:
        use = self.resume if name == "resume" else self.uses[name]
        try:
            with time_limit(LIMIT):
                result = use(run)
        except UserError as error:
            return Outcome(name, "sentence", str(error))
        except Hang:
            return Outcome(name, "hang")
        except BaseException as error:  # a library may also panic
            if isinstance(error, KeyboardInterrupt):
                raise
            return Outcome(name, "internal error", f"{type(error).__name__}: {error}")
        if self.earlier and result != self.expected[name]:
            return Outcome(name, "different", str(result)[:200])
        same = result == self.expected[name]
        return Outcome(name, "same" if same else "silently different", "" if same else str(result)[:200])

    def cases(self, count: int, seed: int) -> list[Case]:
        """Cases over all files and mutations that apply to them, in a random order."""
        rng = random.Random(seed)
        pairs = [(file, name) for file in self.files for name in MUTATIONS if applies(name, file)]
        order: list[tuple[str, str]] = []
        while len(order) < count:
            order += rng.sample(pairs, len(pairs))
        return [Case(file, name, number) for number, (file, name) in enumerate(order[:count])]


def strip_checksums(run: Path) -> None:
    """Makes the files of a run those that an earlier version would have written."""
    for path in (run / "model.safetensors", run / "classifier/model.safetensors"):
        save_file(load_file(path), path)
    for path in (run / FILE, *run.glob("checkpoints/*/state.json")):
        data = json.loads(path.read_text())
        path.write_text(
            json.dumps({name: v for name, v in data.items() if name not in ("sha256", "identity", "dtype")})
        )


def weights_hash(model: TextDiffusion) -> str:
    """A hash of a run's weights, tokenizer and grid."""
    sha = hashlib.sha256(json.dumps(model.tokenizer.to_dict()).encode())
    for name, tensor in sorted(model.model.state_dict().items()):
        sha.update(name.encode() + tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises Hang inside the block after `seconds`."""

    def stop(number: int, frame: object) -> None:
        raise Hang

    previous = signal.signal(signal.SIGALRM, stop)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, previous)


def _flip(path: Path, other: Path, rng: random.Random) -> None:
    raw = bytearray(path.read_bytes() or b"\n")
    raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    path.write_bytes(raw)


def _cut(path: Path, other: Path, rng: random.Random) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[: rng.randrange(max(1, len(raw)))])


def _replaced(make: Callable[[Path, Path], None]) -> Callable[[Path, Path, random.Random], None]:
    def mutate(path: Path, other: Path, rng: random.Random) -> None:
        path.unlink()
        make(path, other)

    return mutate


def _written(content: bytes) -> Callable[[Path, Path, random.Random], None]:
    return lambda path, other, rng: (path.write_bytes(content), None)[1]


def _with_value(value: Any) -> Callable[[Path, Path, random.Random], None]:
    """Puts a value somewhere into JSON; of a log, into one of its lines."""

    def mutate(path: Path, other: Path, rng: random.Random) -> None:
        lines = path.read_text().split("\n") if path.suffix == ".jsonl" else [path.read_text()]
        number = rng.randrange(len([line for line in lines if line]))
        data = json.loads(lines[number])
        spots = [*_spots(data)]
        container, key = spots[rng.randrange(len(spots))]
        container[key] = value
        lines[number] = json.dumps(data)
        path.write_text("\n".join(lines))

    return mutate


def _spots(data: Any) -> Iterator[tuple[Any, Any]]:
    for key in data if isinstance(data, dict) else range(len(data)):
        yield data, key
        if isinstance(data[key], (dict, list)) and len(data[key]):
            yield from _spots(data[key])


def _tensor(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path, Path, random.Random], None]:
    """Changes one tensor of a file, which then says nothing of its run, as those of earlier versions."""

    def mutate(path: Path, other: Path, rng: random.Random) -> None:
        tensors = load_file(path)
        name = rng.choice(sorted(name for name, tensor in tensors.items() if tensor.is_floating_point()))
        tensors[name] = change(tensors[name]).contiguous()
        save_file(tensors, path)

    return mutate


MUTATIONS: dict[str, Callable[[Path, Path, random.Random], None]] = {
    "flip": _flip,
    "flip again": _flip,
    "flip once more": _flip,
    "cut": _cut,
    "empty": _written(b""),
    "delete": _replaced(lambda path, other: None),
    "folder": _replaced(lambda path, other: path.mkdir()),
    "pipe": _replaced(lambda path, other: os.mkfifo(path)),
    "dangling link": _replaced(lambda path, other: path.symlink_to("/nowhere/at/all")),
    "link to itself": _replaced(lambda path, other: path.symlink_to(path.name)),
    "device": _replaced(lambda path, other: path.symlink_to("/dev/zero")),
    "other run": _replaced(lambda path, other: (shutil.copy(other, path), None)[1] if other.exists() else None),
    "null": _written(b"null"),
    "number": _written(b"17"),
    "list": _written(b"[1, [2]]"),
    "object": _written(b"{}"),
    "latin-1": _written(b'{"a": "\xe9"}'),
    "zeros": _written(bytes(1000)),
    "deep": _written(b"[" * 100_000),
    "deep object": _written(b'{"a":' * 100_000),
    "surrogate": _written(b'{"kind": "\\ud800"}'),
    "null value": _with_value(None),
    "huge value": _with_value(10**30),
    "infinite value": _with_value(float("inf")),
    "large value": _with_value(2**40),
    "negative value": _with_value(-3),
    "text value": _with_value("x"),
    "list value": _with_value([None]),
    "object value": _with_value({"a": 1}),
    "NaN": _tensor(lambda tensor: tensor.clone().flatten().index_fill(0, torch.tensor(0), torch.nan).view_as(tensor)),
    "infinity": _tensor(lambda tensor: torch.full_like(tensor, torch.inf)),
    "integers": _tensor(lambda tensor: tensor.long()),
    "booleans": _tensor(lambda tensor: tensor.bool()),
    "another shape": _tensor(lambda tensor: tensor.new_zeros(*tensor.shape, 2)),
}


def applies(mutation: str, file: str) -> bool:
    """Whether a mutation makes sense for a file."""
    if mutation.endswith(" value"):
        return file.endswith((".json", ".jsonl"))
    if mutation in ("NaN", "infinity", "integers", "booleans", "another shape"):
        return file.endswith(".safetensors") and "optimizer" not in file
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recipe", default="mdlm")
    parser.add_argument("--earlier", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), options.recipe, earlier=options.earlier)
        for number, case in enumerate(bench.cases(options.cases, options.seed), 1):
            for outcome in bench.outcomes(case):
                counts[outcome.kind] += 1
                if outcome.kind in FAULTS:
                    print(f"{outcome.kind}: {case}, {outcome.use}: {outcome.detail}", flush=True)
            if not number % 100:
                print(f"{number} cases: {dict(counts)}", file=sys.stderr, flush=True)
    print(f"{options.cases} cases on {len(bench.files)} files, {sum(counts.values())} uses: ", end="")
    print(", ".join(f"{counts[kind]} {kind}" for kind in ("sentence", "same", "different", *FAULTS)))
    sys.exit(any(counts[kind] for kind in FAULTS))


if __name__ == "__main__":
    main()
