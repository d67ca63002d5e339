"""Results on disk, so that no measurement is repeated and a long one can be stopped and continued."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from ..config.config import dumps
from ..core.files import write_text
from ..data.tokenizers.base import fingerprint
from ..inference.api import TextDiffusion
from ..scoring.protocol import Fact, sha256
from ..storage.packaged import is_packaged
from ..storage.weights import tensors_of

VERSION = 4  # raise it when a result changes, or its JSON


class ResultCache:
    """JSON files in `folder`. Each contains all the facts that its result depends on, and is named by their hash."""

    def __init__(self, folder: Path, run: str) -> None:
        """`run` is a fact that all results share, such as the hash of a run."""
        self.folder, self.run = folder, run

    @classmethod
    def of_run(cls, model: TextDiffusion, cache_dir: Path) -> ResultCache:
        """The folder `measured` in the run's folder, or in `cache_dir` where that is read-only or the package's."""
        folder = model.folder
        writable = folder is not None and os.access(folder, os.W_OK) and not is_packaged(folder)
        return cls((folder if writable and folder else cache_dir) / "measured", _run_hash(model))

    def get_or_compute(self, name: str, facts: Mapping[str, Fact], compute: Callable[[], Any]) -> Any:
        """The result called `name` that depends on `facts`: read from its file, or computed now and written to it."""
        facts = {"version": VERSION, "run": self.run, **facts}
        path = self.folder / f"{name}-{sha256(json.dumps(facts, sort_keys=True))[:16]}.json"
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored["facts"] == facts:
                return stored["value"]
        except (OSError, ValueError, KeyError, TypeError):
            pass  # not computed yet, or damaged
        text = json.dumps({"facts": facts, "value": compute()}, ensure_ascii=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
        return json.loads(text)["value"]


def _run_hash(model: TextDiffusion) -> str:
    """A hash of configuration, tokenizer, weights and the precision of the network's features."""
    # As the run's file has it: a setting that was added since then has a default that changes nothing.
    path = model.folder / "config.json" if model.folder else None
    config = path.read_text(encoding="utf-8") if path and path.exists() else dumps(model.config)
    sha = hashlib.sha256(f"{config}{fingerprint(model.tokenizer)}".encode())
    sha.update(f"torch.{model.dtype}".encode())
    tuned = {} if model.model.tuned is None else {"tuned": model.model.tuned}
    for name, tensor in (tensors_of(model.model) | tuned).items():
        sha.update(name.encode())
        sha.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return sha.hexdigest()
