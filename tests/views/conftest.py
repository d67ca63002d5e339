"""Steps made by hand."""

from collections.abc import Callable, Iterator, Sequence

import pytest
import torch

from textdiffusion.data.tokenizers.base import Bytes, Characters
from textdiffusion.samplers.base import Step

Rows = Sequence[Sequence[int]]


@pytest.fixture(scope="session")
def letters() -> Characters:
    return Characters("abcdefghijklmnopqrstuvwxyz .\n")


@pytest.fixture(scope="session")
def octets() -> Bytes:
    return Bytes()


@pytest.fixture(scope="session")
def play() -> Callable[..., Iterator[Step]]:
    """Steps that show these ids one after the other; decided positions have `confidence`, calls count the steps."""

    def played(history: Sequence[Rows], size: int, confidence: float = 0.5) -> Iterator[Step]:
        total = len(history) - 1
        for index, rows in enumerate(history):
            ids = torch.tensor(rows)
            sure = torch.where(ids < size, confidence, 0.0)
            yield Step(index, total, 1 - index / max(1, total), ids, sure, ids, float(index))

    return played


@pytest.fixture(scope="session")
def unmask() -> Callable[..., list[Rows]]:
    """The ids of texts that are decided position after position, in `steps` steps."""

    def history(tokenizer: Characters, texts: Sequence[str], steps: int) -> list[Rows]:
        full = [tokenizer.encode(text).tolist() for text in texts]
        hole = tokenizer.vocab_size
        shown = [[round(len(ids) * i / steps) for ids in full] for i in range(steps + 1)]
        return [[ids[:n] + [hole] * (len(ids) - n) for ids, n in zip(full, row, strict=True)] for row in shown]

    return history
