"""Pieces of a measurement, kept so that none is made twice and a long measurement can be stopped and continued."""

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
from ..storage.weights import tensors_of

VERSION = 3  # raise it when a figure comes out differently


class ResultCache:
    """JSON files in `folder`, each named by a hash of all the facts that its content follows from, and holding them."""

    def __init__(self, folder: Path, run: str) -> None:
        """`run` stands for the facts that all pieces share."""
        self.folder, self.run = folder, run

    @classmethod
    def open_for(cls, model: TextDiffusion, cache: Path) -> ResultCache:
        """The folder `measured` of a run, or of the cache where the run's cannot be written."""
        inside = model.folder is not None and os.access(model.folder, os.W_OK)
        return cls((model.folder if inside and model.folder else cache) / "measured", _identity(model))

    def get(self, what: str, facts: Mapping[str, Fact], make: Callable[[], Any]) -> Any:
        """The piece `what` that follows from `facts`: as it was kept, or made now and kept."""
        known = {"version": VERSION, "run": self.run, **facts}
        path = self.folder / f"{what}-{sha256(json.dumps(known, sort_keys=True))[:16]}.json"
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["facts"] == known:
                return found["value"]
        except (OSError, ValueError, KeyError, TypeError):
            pass  # never made, or damaged
        text = json.dumps({"facts": known, "value": make()}, ensure_ascii=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
        return json.loads(text)["value"]


def _identity(model: TextDiffusion) -> str:
    """A hash of what a run is: configuration, tokenizer, weights and the precision that they compute in."""
    # As the run has it written: settings that are new since then have defaults that change nothing.
    written = model.folder / "config.json" if model.folder else None
    config = written.read_text(encoding="utf-8") if written and written.exists() else dumps(model.config)
    found = hashlib.sha256(f"{config}{fingerprint(model.tokenizer)}".encode())
    found.update(f"torch.{model.dtype}".encode())
    tuned = {} if model.model.tuned is None else {"tuned": model.model.tuned}
    for name, tensor in (tensors_of(model.model) | tuned).items():
        found.update(name.encode())
        found.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()
