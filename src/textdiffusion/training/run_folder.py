"""The run folder: its files, and the lock that keeps it to one writer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch import Tensor

from ..config import config as configuration
from ..config.config import Config
from ..core.errors import UserError
from ..core.files import PARTIAL, atomic, write_text
from ..core.registry import to_dict
from ..data.tokenizers.base import Tokenizer, fingerprint
from ..data.tokenizers.loading import load
from ..storage.checkpoint import Checkpoints
from ..storage.metrics_log import parse_lines
from ..storage.weights import save_tensors

LOCK, PID = ".lock", ".pid"

CHANGEABLE = (
    *("steps", "max_minutes", "max_cpu_seconds", "grad_accumulation", "dtype", "compile", "log_every", "eval_every"),
    *("eval_windows", "sample_every", "num_samples", "checkpoint_every", "keep_checkpoints"),
)
"""Fields of `training` that may change when a run is resumed."""


class RunFolder:
    """`config.json`, `tokenizer.json`, `model.safetensors`, `metrics.jsonl`, `samples/` and `checkpoints/`."""

    def __init__(self, path: Path, keep_checkpoints: int) -> None:
        self.path = path
        self.config, self.tokenizer = path / "config.json", path / "tokenizer.json"
        self.weights, self.metrics, self.samples = path / "model.safetensors", path / "metrics.jsonl", path / "samples"
        self.checkpoints = Checkpoints(path / "checkpoints", keep_checkpoints)

    def check(self, config: Config) -> None:
        """Raises UserError if the folder holds anything other than a run of this configuration."""
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file; a run needs a folder of its own.")
        if not self.config.exists():
            if self.path.exists() and (others := [p.name for p in self.path.iterdir() if p.name[0] != "."]):
                raise UserError(f"{self.path} is not empty and not a run (it has {others[0]}); choose another folder.")
            return
        saved = configuration.loads(self.config.read_text(encoding="utf-8"), str(self.config))
        if changes := list(differences(to_dict(saved), to_dict(config))):
            shown = "; ".join(f"{key} was {old!r}, now {new!r}" for key, old, new in changes[:8])
            more = f"; and {len(changes) - 8} more" if len(changes) > 8 else ""
            raise UserError(
                f"{self.path} holds a run of another configuration: {shown}{more}. "
                "Use the same settings to continue it, or another folder."
            )

    def check_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Raises UserError if the run began with another vocabulary."""
        if self.tokenizer.exists() and fingerprint(load(self.tokenizer)) != fingerprint(tokenizer):
            raise UserError(
                f"The text gives another vocabulary than {self.tokenizer}: it has changed since this run began. "
                "Restore the text, or use another folder."
            )

    def begin(self, config: Config, tokenizer: Tokenizer, step: int) -> None:
        """Writes what describes the run, and deletes metrics of steps after `step`, where training continues."""
        for partial in self.path.glob(f"{PARTIAL}*"):  # of a killed process
            partial.unlink()
        write_text(self.config, configuration.dumps(config))
        self.samples.mkdir(exist_ok=True)
        tokenizer.save(self.tokenizer)
        lines = [line for line, event in parse_lines(self.metrics) if event.get("step", 0) <= step] if step else []
        write_text(self.metrics, "".join(lines))

    def export(self, tensors: dict[str, Tensor]) -> None:
        """Writes the weights that evaluation and sampling load."""
        with atomic(self.weights) as partial:
            save_tensors(tensors, partial)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes out until the block ends, or this process does for any reason.

        Raises UserError naming the process that uses the folder.
        """
        lock = FileLock(self.path / LOCK)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
            (self.path / PID).write_text(f"{os.getpid()}\n", encoding="utf-8")
        except Timeout:
            raise UserError(
                f"Process {self._holder()} is training in {self.path}; stop it or use another folder."
            ) from None
        except OSError as error:
            raise UserError(f"Cannot write in {self.path}: {error.strerror or error}.") from None
        try:
            yield
        finally:
            lock.release()

    def _holder(self) -> str:
        try:
            return (self.path / PID).read_text(encoding="utf-8").strip()
        except OSError:  # it has the lock, but has not written its id yet
            return "unknown"


def differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The keys whose values differ, except `CHANGEABLE` ones; of parts of different kinds, the kind alone."""
    if isinstance(old, dict) and isinstance(new, dict):
        if old.get("kind") != new.get("kind"):
            yield f"{path}.kind", old.get("kind"), new.get("kind")
            return
        for key in [*old, *(key for key in new if key not in old)]:
            key_path = f"{path}.{key}" if path else key
            if key_path not in {f"training.{name}" for name in CHANGEABLE}:
                yield from differences(old.get(key), new.get(key), key_path)
    elif old != new:
        yield path, old, new
