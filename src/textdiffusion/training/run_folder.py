"""The run folder: its files, and the lock that keeps it to one writer."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch import Tensor

from ..config import config as configuration
from ..config.config import Config
from ..config.identity import check_identity, differences, run_identity
from ..core.errors import UserError
from ..core.files import PARTIAL, atomic, make_folder, remove, write_text, writing
from ..core.hashing import json_hash
from ..core.reading import read_object, read_text
from ..core.registry import to_dict
from ..data.chat import ChatTemplate
from ..data.tokenizers.base import Tokenizer, fingerprint
from ..data.tokenizers.loading import load
from ..diffusion.model import DiffusionModel
from ..networks.language_model import LanguageModel
from ..networks.lora import FOLDER as ADAPTER
from ..networks.lora import save_adapter
from ..storage.checkpoint import Checkpoints, TrainingState
from ..storage.metrics_log import parse_lines
from ..storage.weight_files import WeightFiles
from ..storage.weights import NETWORK, check_finite, check_fits, load_tensors, read_header, save_tensors

LOCK, PID = ".lock", ".pid"

CHANGEABLE = (
    *("steps", "max_minutes", "max_cpu_seconds", "grad_accumulation", "dtype", "compile", "log_every", "eval_every"),
    *("eval_windows", "sample_every", "num_samples", "checkpoint_every", "keep_checkpoints", "parallel"),
)
"""Fields of `training` that may change when a run is resumed."""

CHANGEABLE_ON_REQUEST = (
    *("batch_size", "lr", "muon_lr", "density_lr", "codec_lr", "warmup", "decay", "min_lr_ratio", "weight_decay"),
    *("beta2", "grad_clip", "ema"),
)
"""Fields of `training` that may change too where it is asked for: from then on it is another training."""


class RunFolder:
    """`config.json`, `tokenizer.json`, `model.safetensors`, `metrics.jsonl`, `samples/` and `checkpoints/`.

    The run of a student also has `teacher.safetensors`.

    While it is locked, every write first checks that the lock is still the one that this process took: a folder that
    was deleted, or replaced by another run, is not written to.
    """

    def __init__(self, path: Path, keep_checkpoints: int) -> None:
        self.path = path
        self.config, self.tokenizer = path / "config.json", path / "tokenizer.json"
        self.weights, self.metrics, self.samples = path / "model.safetensors", path / "metrics.jsonl", path / "samples"
        self.teacher = path / "teacher.safetensors"
        self.checkpoints = Checkpoints(path / "checkpoints", keep_checkpoints)
        self.files: WeightFiles | None = None  # that an adapter is trained for
        self._tokenizer_hash = ""  # known once the run has begun, so that later changes of the file do not matter
        self._lock: tuple[int, int] | None = None  # device and number of the lock's file

    def check(self, config: Config, *, allow_changes: bool = False) -> None:
        """Raises UserError if the folder holds anything other than a run of this configuration.

        `CHANGEABLE` settings may differ, and with `allow_changes` those of `CHANGEABLE_ON_REQUEST` too.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file; a run needs a folder of its own.")
        if not self.config.exists():
            if self.path.exists() and (others := [p.name for p in self.path.iterdir() if p.name[0] != "."]):
                raise UserError(f"{self.path} is not empty and not a run (it has {others[0]}); choose another folder.")
            return
        saved = configuration.loads(read_text(self.config), str(self.config))
        changeable = CHANGEABLE + CHANGEABLE_ON_REQUEST if allow_changes else CHANGEABLE
        if changes := list(changed(saved, config, changeable)):
            on_request = {f"training.{name}" for name in CHANGEABLE_ON_REQUEST}
            hint = ", add --allow-changes to continue with other ones" * ({key for key, *_ in changes} <= on_request)
            shown = "; ".join(f"{key} was {old!r}, now {new!r}" for key, old, new in changes[:8])
            more = f"; and {len(changes) - 8} more" if len(changes) > 8 else ""
            raise UserError(
                f"{self.path} holds a run of another configuration: {shown}{more}. "
                f"Use the same settings to continue it{hint}, or another folder."
            )

    def check_begin(self) -> None:
        """Raises UserError if a run cannot begin at step 0 without overwriting what an earlier training left."""
        if damaged := self.checkpoints.paths():
            raise UserError(
                f"None of the {len(damaged)} checkpoints of {self.path} is intact, so training cannot continue. "
                f"Restore {damaged[-1]}, or train in another folder{self._init_hint()}."
            )
        if self.weights.exists() or self.weights.is_symlink():
            raise UserError(
                f"{self.path} has weights but no checkpoint, so training would begin at step 0 and overwrite them. "
                f"Train in another folder{self._init_hint()}."
            )

    def _init_hint(self) -> str:
        return f"; --init {self.path} starts from its weights" if self.weights.exists() else ""

    def check_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Raises UserError if the run began with another vocabulary; writes a tokenizer that is missing."""
        if not self.tokenizer.exists():
            with self._writing(self.tokenizer):
                tokenizer.save(self.tokenizer)
        elif fingerprint(load(self.tokenizer)) != fingerprint(tokenizer):
            raise UserError(
                f"The text gives another vocabulary than {self.tokenizer}: it has changed since this run began. "
                "Restore the text, or use another folder."
            )

    def begin(self, config: Config, tokenizer: Tokenizer, step: int) -> list[str]:
        """Writes what describes the run, and deletes metrics of steps after `step`, where training continues.

        Returns notes about lines of metrics that cannot be read.
        """
        with self._writing(self.path):
            for partial in self.path.glob(f"{PARTIAL}*"):  # of a killed process
                remove(partial)
            write_text(self.config, configuration.dumps(config))
            if self.files is not None:
                self.files.write(self.path)
            self.samples.mkdir(exist_ok=True)
            if not (step and self.tokenizer.exists()):  # weights know it by the file's hash
                tokenizer.save(self.tokenizer)
            self._tokenizer_hash = json_hash(read_object(self.tokenizer))
            unreadable: list[int] = []
            events = parse_lines(self.metrics, unreadable.append) if step else ()
            write_text(self.metrics, "".join(line for line, event in events if event["step"] <= step))
        if not unreadable:
            return []
        lines = f"line {unreadable[0]}" if len(unreadable) == 1 else f"{len(unreadable)} lines, first {unreadable[0]},"
        return [f"{self.metrics}: {lines} could not be read and {'is' if len(unreadable) == 1 else 'are'} left out."]

    def write_template(self, template: ChatTemplate) -> None:
        """Writes how messages become a prompt. Raises UserError if it cannot be written."""
        with self._writing(self.path):
            template.save(self.path)

    def identity(self, config: Config, text_sha256: Mapping[str, str]) -> dict[str, Any]:
        """What the weights of this run belong to."""
        return run_identity(config, self._tokenizer_hash or json_hash(read_object(self.tokenizer)), text_sha256)

    def check_identity(self, identity: Mapping[str, Any], config: Config, path: Path) -> None:
        """Raises UserError if the weights in `path`, with this identity, are those of another run."""
        check_identity(identity, config, json_hash(read_object(self.tokenizer)), path)

    def has_exported(self, config: Config, model: DiffusionModel) -> bool:
        """Whether `model.safetensors` has intact weights of this run, of the shapes of its model."""
        try:
            header = read_header(self.weights)
            check_fits(model, header)
            check_finite(load_tensors(self.weights), self.weights)
            self.check_identity(header.identity, config, self.weights)
        except UserError:
            return False
        return True

    def export(self, tensors: dict[str, Tensor], identity: Mapping[str, Any] | None = None) -> None:
        """Writes the weights that evaluation and sampling load. Raises UserError if they cannot be written."""
        with self._writing(self.weights), atomic(self.weights) as partial:
            save_tensors(tensors, partial, identity)

    def export_adapter(self, backbone: LanguageModel, tensors: Mapping[str, Tensor]) -> None:
        """Writes the adapter of a language model as `peft` reads it; `tensors` are those of the model.

        Raises UserError if it cannot be written.
        """
        assert self.files is not None
        adapter = [(name.removeprefix(NETWORK), tensor) for name, tensor in tensors.items()]
        with self._writing(self.path / ADAPTER):
            save_adapter(self.path / ADAPTER, adapter, backbone.adapter, self.files.source)

    def save_teacher(self, tensors: dict[str, Tensor]) -> None:
        """Writes the weights that a student learns from. Raises UserError if they cannot be written."""
        with self._writing(self.teacher), atomic(self.teacher) as partial:
            save_tensors(tensors, partial)

    def save(self, state: TrainingState, tensors: dict[str, dict[str, Tensor]]) -> None:
        """Writes a checkpoint. Raises UserError if it cannot be written."""
        with self._writing(self.checkpoints.path(state.step)):
            self.checkpoints.save(state, tensors)

    def append_metrics(self, line: str) -> None:
        """Appends a line to `metrics.jsonl`. Raises UserError if it cannot be written."""
        with self._writing(self.metrics):
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            handle = os.open(self.metrics, flags, 0o666)
            with os.fdopen(handle, "a", encoding="utf-8") as file:
                file.write(line)

    def write_samples(self, step: int, text: str) -> None:
        """Writes `samples/step-*.txt`. Raises UserError if it cannot be written."""
        path = self.samples / f"step-{step:09d}.txt"
        with self._writing(path):
            write_text(path, text)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes out until the block ends, or this process does for any reason.

        Where the block writes nothing, nothing remains: neither the lock's file nor a folder that was made here. Raises
        UserError naming the process that uses the folder.
        """
        is_new = not self.path.exists()
        make_folder(self.path)
        path = self.path / LOCK
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise UserError(f"{path} is not a regular file, so the folder cannot be locked; delete it.")
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"Process {self._holder()} is training in {self.path}; stop it or use another folder."
            ) from None
        except (OSError, NotImplementedError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"Cannot write in {self.path}: {reason}.") from None
        try:
            with writing(path):
                status = os.stat(path, follow_symlinks=False)
            self._lock = status.st_dev, status.st_ino
            write_text(self.path / PID, f"{os.getpid()}\n")
            yield
        finally:
            if self._is_ours():
                self._remove_unused(is_new)
            self._lock = None
            with suppress(OSError):  # of a lock whose file is gone
                lock.release()

    @contextmanager
    def _writing(self, path: Path) -> Iterator[None]:
        """Checks the lock; errors of the file system inside the block become UserError."""
        if self._lock is not None and not self._is_ours():
            raise UserError(
                f"The folder {self.path} was deleted or replaced while this run was training in it, so training stops "
                "and nothing more is written."
            )
        with writing(path):
            yield

    def _is_ours(self) -> bool:
        try:
            status = os.stat(self.path / LOCK, follow_symlinks=False)
        except OSError:
            return False
        return stat.S_ISREG(status.st_mode) and (status.st_dev, status.st_ino) == self._lock

    def _remove_unused(self, is_new: bool) -> None:
        with suppress(OSError):
            if {path.name for path in self.path.iterdir()} <= {LOCK, PID}:
                for name in (PID, LOCK):
                    (self.path / name).unlink(missing_ok=True)
                if is_new:
                    self.path.rmdir()

    def _holder(self) -> str:
        try:
            return read_text(self.path / PID, limit=100).strip()
        except UserError:  # it has the lock, but has not written its id yet
            return "unknown"


def changed(old: Config, new: Config, changeable: Sequence[str] = CHANGEABLE) -> Iterator[tuple[str, Any, Any]]:
    """The settings that differ, with both values, except `changeable` ones of `training`."""
    for key, before, after in differences(to_dict(old), to_dict(new)):
        if key not in {f"training.{name}" for name in changeable}:
            yield key, before, after
