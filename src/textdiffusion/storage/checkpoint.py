"""Checkpoints that are there whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from torch import Tensor

from ..core.errors import UserError
from ..core.files import flush
from .weights import load_tensors, save_tensors

RAW, AVERAGED, OPTIMIZER, STATE = "model.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json"


REPLACED = ".replaced-"


@dataclass(frozen=True)
class Best:
    """The lowest validation bound so far, in bits per character of the averaged weights."""

    step: int
    bits: float


@dataclass
class TrainingState:
    """What a run must remember beside its tensors. Steps, tokens and seconds count from the beginning of the run.

    `cpu_seconds` and `wall_seconds` are spent in training steps (CPU of all ranks), `process_seconds` is CPU time of a
    rank's processes for everything. `window` holds the losses since the last log line. `compiled` says how the run is
    computed, `data` which training text it sees, `own_tokenizer` whether it learned its tokenizer from that text.
    `validation_due` and `samples_due`: they belong to this step and are not done yet.
    """

    step: int = 0
    tokens: int = 0
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    process_seconds: float = 0.0
    best: Best | None = None
    window: dict[str, list[float]] = field(default_factory=dict)
    compiled: bool | None = None
    data: str = ""
    own_tokenizer: bool = True
    validation_due: bool = False
    samples_due: bool = False

    @classmethod
    def from_dict(cls, data: dict) -> TrainingState:
        best = data.pop("best")
        return cls(best=None if best is None else Best(**best), **data)


class Checkpoints:
    """The folder `checkpoints/` of a run.

    A checkpoint is written beside its place, flushed to the disk and renamed into place; to delete one it is first
    renamed away. So a folder `step-*` is whole, unless the disk is at fault: checksums find that. One that is replaced
    is `.replaced-step-*` until the new one is in its place, and stands in for it.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step is, or would be."""
        return self.folder / f"step-{step:09d}"

    def paths(self) -> list[Path]:
        """All checkpoints, oldest first."""
        there = {path.name.removeprefix(REPLACED): path for path in self.folder.glob(f"{REPLACED}step-*")}
        there |= {path.name: path for path in self.folder.glob("step-*")}
        return [path for _, path in sorted(there.items())]

    def save(self, state: TrainingState, tensors: dict[str, dict[str, Tensor]]) -> Path:
        """Writes `tensors` (by file name) and `state`, then deletes what is neither among the latest nor the best."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.clean()
        path = self.path(state.step)
        partial = self.folder / f".partial-{path.name}"
        partial.mkdir()
        for name, content in tensors.items():
            save_tensors(content, partial / name)
        files = {name: _checksum(partial / name) for name in tensors}
        text = json.dumps({"files": files, **asdict(state)}, indent=1)
        (partial / STATE).write_text(text + "\n", encoding="utf-8")
        for file in partial.iterdir():
            flush(file)
        flush(partial)
        replaced = self.folder / f"{REPLACED}{path.name}"
        if path.exists():  # the same step again: a better bound, a resume from an earlier step, a damaged file
            path.rename(replaced)
        partial.rename(path)
        flush(self.folder)
        if replaced.exists():
            shutil.rmtree(replaced)
        self._prune(state)
        return path

    def latest(self, log: Callable[[str], None]) -> tuple[Path, TrainingState] | None:
        """The newest checkpoint that is whole; every newer one is reported to `say`."""
        for path in reversed(self.paths()):
            try:
                return path, _verified(path)
            except UserError as error:
                log(f"Skipping a checkpoint: {error}")
        return None

    def clean(self) -> None:
        """Removes what a killed run left half-written or half-deleted, and takes back what it had not yet replaced."""
        for path in self.folder.glob(".partial-*"):
            shutil.rmtree(path)
        for path in self.folder.glob(f"{REPLACED}step-*"):
            place = path.with_name(path.name.removeprefix(REPLACED))
            shutil.rmtree(path) if place.exists() else path.rename(place)

    def _prune(self, state: TrainingState) -> None:
        # Those of later steps were damaged when the run was resumed from an earlier one; they must not count as kept.
        whole = [path for path in self.paths() if path.name <= self.path(state.step).name]
        for path in self.paths():
            late = path not in whole[-self.keep :]
            if late and (state.best is None or path != self.path(state.best.step)):
                self._delete(path)

    def _delete(self, path: Path) -> None:
        leaving = self.folder / f".partial-deleted-{path.name}"
        path.rename(leaving)
        shutil.rmtree(leaving)


def read_tensors(path: Path, name: str) -> dict[str, Tensor]:
    """One file of tensors of a checkpoint."""
    return load_tensors(path / name)


def _verified(path: Path) -> TrainingState:
    try:
        data = json.loads((path / STATE).read_text(encoding="utf-8"))
        files = data.pop("files")
        damaged = [name for name, checksum in files.items() if _checksum(path / name) != checksum]
        state = TrainingState.from_dict(data)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}: {error}).") from None
    if damaged:
        raise UserError(f"{path} is damaged: {', '.join(damaged)} does not have its checksum.")
    return state


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
