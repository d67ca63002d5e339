"""How many tokens of each example are its prompt, beside the shard of a part."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def save_prompt_lengths(folder: Path, part: str, lengths: Sequence[int]) -> None:
    """Writes the prompt lengths of a part, one per example."""
    np.save(_path(folder, part), np.array(lengths, dtype=np.int64), allow_pickle=False)


def load_prompt_lengths(folder: Path, part: str) -> np.ndarray:
    """The lengths that `save_prompt_lengths` wrote, int64, one per example."""
    return np.load(_path(folder, part), allow_pickle=False)


def _path(folder: Path, part: str) -> Path:
    return folder / f"{part}.prompts.npy"
