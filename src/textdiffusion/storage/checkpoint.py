"""Checkpoints, each written completely or not at all."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..core.errors import UserError
from ..core.files import PARTIAL, flush, remove
from ..core.hashing import file_sha256
from ..core.reading import read_object
from ..core.registry import from_dict
from ..core.seals import seal, unseal
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
    """What a run remembers beside its tensors. Steps, tokens and seconds count from the start of the run."""

    step: int = 0
    tokens: int = 0
    cpu_seconds: float = 0.0
    """CPU time of training steps, of all ranks."""
    wall_seconds: float = 0.0
    """Wall time of training steps."""
    process_seconds: float = 0.0
    """All CPU time of one rank's processes."""
    best: Best | None = None
    unlogged: dict[str, list[float]] = field(default_factory=dict)
    """Losses by name of the steps since the last log line."""
    compiled: bool | None = None
    """Whether the backbone is compiled (None: not decided yet)."""
    text_sha256: str = ""
    """The hash of the training text."""
    identity: dict[str, Any] = field(default_factory=dict)
    """What the weights belong to (empty: an earlier version wrote the checkpoint)."""
    dtype: str = ""
    """The precision of the network's features (empty: an earlier version wrote the checkpoint)."""
    learned_tokenizer: bool = True
    """Whether the tokenizer was learned from the training text, not taken from another run."""
    validation_due: bool = False
    """This step's validation is not done yet."""
    samples_due: bool = False
    """This step's samples are not drawn yet."""

    def __post_init__(self) -> None:
        numbers = [self.step, self.tokens, self.cpu_seconds, self.wall_seconds, self.process_seconds]
        if self.best is not None:
            numbers += [self.best.step, self.best.bits]
        if not all(math.isfinite(number) and number >= 0 for number in numbers):
            raise UserError("A step, number of tokens, time or bound is negative or not finite.")


class Checkpoints:
    """The folder `checkpoints/` of a run: the latest `keep` checkpoints and the best one.

    A checkpoint is written under another name, flushed to the disk and renamed; to delete one it is first renamed. So a
    folder `step-*` is complete unless the disk fails, which checksums detect. While one is replaced, the old one is
    `.replaced-step-*` and stands in for the new one.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep

    def path(self, step: int) -> Path:
        """The path of a step's checkpoint, whether it exists or not."""
        return self.folder / f"step-{step:09d}"

    def paths(self) -> list[Path]:
        """All checkpoints, oldest first."""
        by_name = {path.name.removeprefix(REPLACED): path for path in self.folder.glob(f"{REPLACED}step-*")}
        by_name |= {path.name: path for path in self.folder.glob("step-*")}
        return [path for _, path in sorted(by_name.items())]

    def save(self, state: TrainingState, tensors: dict[str, dict[str, Tensor]]) -> Path:
        """Writes `tensors` (by file name) and `state`, then deletes what is neither among the latest nor the best.

        Raises OSError, and removes what it began, if the disk is full or the run's folder is gone.
        """
        self.folder.mkdir(exist_ok=True)
        self.clean()
        path = self.path(state.step)
        partial = self.folder / f"{PARTIAL}{path.name}"
        partial.mkdir()
        try:
            self._write(partial, state, tensors)
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)  # its space is needed
            raise
        replaced = self.folder / f"{REPLACED}{path.name}"
        if path.exists():  # the same step again: a better bound, a resume from an earlier step, a damaged file
            path.rename(replaced)
        partial.rename(path)
        flush(self.folder)
        if replaced.exists():
            shutil.rmtree(replaced)
        self._prune(state)
        return path

    def _write(self, folder: Path, state: TrainingState, tensors: dict[str, dict[str, Tensor]]) -> None:
        for name, content in tensors.items():
            save_tensors(content, folder / name)
        files = {name: file_sha256(folder / name) for name in tensors}
        text = json.dumps(seal({"files": files, **asdict(state)}), indent=1)
        (folder / STATE).write_text(text + "\n", encoding="utf-8")
        for file in folder.iterdir():
            flush(file)
        flush(folder)

    def latest(self, log: Callable[[str], None]) -> tuple[Path, TrainingState] | None:
        """The newest intact checkpoint; reports every damaged newer one to `log`."""
        for path in reversed(self.paths()):
            try:
                return path, _verified(path)
            except UserError as error:
                log(f"Skipping a checkpoint: {error}")
        return None

    def best(self, state: TrainingState, log: Callable[[str], None]) -> Path | None:
        """The intact checkpoint of the best step, if there is one; reports a damaged one to `log`."""
        if state.best is None or not (path := self.path(state.best.step)).exists():
            return None
        try:
            _verified(path)
        except UserError as error:
            log(f"Skipping a checkpoint: {error}")
            return None
        return path

    def clean(self) -> None:
        """Removes what a killed run left half-written or half-deleted; restores what it had not yet replaced."""
        for path in self.folder.glob(f"{PARTIAL}*"):
            remove(path)
        for path in self.folder.glob(f"{REPLACED}step-*"):
            original = path.with_name(path.name.removeprefix(REPLACED))
            remove(path) if original.exists() else path.rename(original)

    def _prune(self, state: TrainingState) -> None:
        # Checkpoints of later steps were damaged when the run resumed from an earlier one: they do not count as latest.
        intact = [path for path in self.paths() if path.name <= self.path(state.step).name]
        protected = set(intact[-self.keep :])
        if state.best is not None:
            protected.add(self.path(state.best.step))
        for path in self.paths():
            if path not in protected:
                self._delete(path)

    def _delete(self, path: Path) -> None:
        renamed = self.folder / f"{PARTIAL}deleted-{path.name}"
        path.rename(renamed)
        remove(renamed)


def read_tensors(path: Path, name: str) -> dict[str, Tensor]:
    """One file of tensors of a checkpoint."""
    return load_tensors(path / name)


def _verified(path: Path) -> TrainingState:
    data = unseal(read_object(path / STATE, finite=False), str(path / STATE))  # a part of a loss may be NaN
    files = data.pop("files", None)
    if not isinstance(files, dict) or not {RAW, AVERAGED, OPTIMIZER} >= files.keys() or not files:
        raise UserError(f"{path / STATE} is damaged: it does not list the checkpoint's files.")
    state: TrainingState = from_dict(TrainingState, data, str(path / STATE))
    if damaged := [name for name, checksum in files.items() if file_sha256(path / name) != checksum]:
        raise UserError(f"{path} is damaged: the checksum of {', '.join(damaged)} is wrong.")
    if path.name.removeprefix(REPLACED) != f"step-{state.step:09d}":
        raise UserError(f"{path} is damaged: it holds step {state.step}.")
    return state
