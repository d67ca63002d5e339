"""The run folder: who may write in it, and what stands in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..config import config as configuration
from ..config.config import Config
from ..core.errors import UserError
from ..core.files import write_file
from ..data.tokenizers.base import Tokenizer, fingerprint
from ..data.tokenizers.loading import load
from ..storage.checkpoint import Checkpoints
from ..storage.metrics_log import parse_lines
from ..storage.weights import save_tensors

LOCK = ".lock"


CHANGEABLE = (
    *("steps", "max_minutes", "max_cpu_seconds", "grad_accumulation", "dtype", "compile", "log_every", "eval_every"),
    *("eval_windows", "sample_every", "num_samples", "checkpoint_every", "keep_checkpoints"),
)
"""Fields of `training` that a run may change when it is resumed."""


class RunFolder:
    """`config.json`, `tokenizer.json`, `model.safetensors`, `metrics.jsonl`, `samples/` and `checkpoints/`."""

    def __init__(self, path: Path, keep: int) -> None:
        self.path = path
        self.config, self.tokenizer = path / "config.json", path / "tokenizer.json"
        self.weights, self.metrics, self.samples = path / "model.safetensors", path / "metrics.jsonl", path / "samples"
        self.checkpoints = Checkpoints(path / "checkpoints", keep)

    def check(self, config: Config) -> None:
        """Raises UserError where the folder holds anything else than a run of this configuration."""
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file; a run needs a folder of its own.")
        if not self.config.exists():
            if self.path.exists() and (others := [p.name for p in self.path.iterdir() if p.name[0] != "."]):
                raise UserError(
                    f"{self.path} is not empty and holds no run ({others[0]} is there); choose another folder."
                )
            return
        before = configuration.loads(self.config.read_text(encoding="utf-8"), str(self.config))
        if odd := list(differences(configuration.to_dict(before), configuration.to_dict(config))):
            shown = "; ".join(f"{key} was {old!r}, now {new!r}" for key, old, new in odd[:8])
            more = f"; and {len(odd) - 8} more" if len(odd) > 8 else ""
            raise UserError(
                f"{self.path} holds a run of another configuration: {shown}{more}. "
                "Use the same settings to continue it, or another folder."
            )

    def check_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Raises UserError where the run was begun with another vocabulary."""
        if self.tokenizer.exists() and fingerprint(load(self.tokenizer)) != fingerprint(tokenizer):
            raise UserError(
                f"The text gives another vocabulary than {self.tokenizer}: it has changed since this run began. "
                "Restore the text, or use another folder."
            )

    def begin(self, config: Config, tokenizer: Tokenizer, step: int) -> None:
        """Writes what describes the run, and forgets metrics of steps that are not in the checkpoint at `step`."""
        write_file(self.config, lambda path: _write_text(path, configuration.dumps(config)))
        self.samples.mkdir(exist_ok=True)
        write_file(self.tokenizer, tokenizer.save)
        kept = [line for line, data in parse_lines(self.metrics) if data.get("step", 0) <= step] if step else []
        write_file(self.metrics, lambda path: _write_text(path, "".join(kept)))

    def export(self, tensors: dict) -> None:
        """Writes the weights that evaluation and sampling load."""
        write_file(self.weights, lambda path: save_tensors(tensors, path))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps others out until the end of the block, or of the process however it ends.

        Raises UserError naming the process that has the folder.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = (self.path / LOCK).open("a+", encoding="utf-8")
        except OSError as error:
            raise UserError(f"Cannot write in {self.path}: {error.strerror or error}.") from None
        with handle:
            try:
                _lock(handle.fileno())
            except OSError:
                handle.seek(0)
                holder = handle.read().strip() or "unknown"
                raise UserError(
                    f"Process {holder} is training in {self.path}; stop it or use another folder."
                ) from None
            handle.seek(0)
            handle.truncate()
            handle.write(f"{os.getpid()}\n")
            handle.flush()
            yield


def differences(old: Any, new: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Keys whose values differ, harmless ones apart; of parts of different kinds, the kind alone."""
    if isinstance(old, dict) and isinstance(new, dict):
        if old.get("kind") != new.get("kind"):
            yield f"{where}.kind", old.get("kind"), new.get("kind")
            return
        for key in [*old, *(key for key in new if key not in old)]:
            path = f"{where}.{key}" if where else key
            if path not in {f"training.{name}" for name in CHANGEABLE}:
                yield from differences(old.get(key), new.get(key), path)
    elif old != new:
        yield where, old, new


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _lock(descriptor: int) -> None:
    """An exclusive lock that the system gives up with the process. Raises OSError where another has it."""
    if os.name == "nt":
        import msvcrt

        os.lseek(descriptor, 1 << 20, os.SEEK_SET)  # beyond the text, which must stay readable
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
