"""Prompts: what continues them, alone and in batches."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from textdiffusion import TextDiffusion

MakeRun = Callable[..., Path]
LINES = ("text.layout=lines", "text.model_padding=true")
FAMILIES = [
    ("mdlm",),
    ("mdlm", *LINES),
    ("block_diffusion",),
    ("block_diffusion", "text.layout=lines"),
    ("autoregressive", "text.layout=lines"),
    ("udlm",),
    ("cdcd", "text.mask=mixed"),
    ("cdcd", "text.mask=none"),
    ("sedd",),
]
WORDS = "The red green ripe pear plum fig is fresh old sweet.".split()


def prompts(count: int) -> list[str]:
    """Prompts of 0 to 28 characters."""
    texts = [" ".join(WORDS[(i * (j + 3) + j) % len(WORDS)] for j in range(1 + i % 6)) for i in range(count)]
    return [text[: i % 29] for i, text in enumerate(texts)]


@pytest.mark.parametrize("family", FAMILIES, ids=" ".join)
@pytest.mark.parametrize("length", [None, 9])
def test_prompts_of_a_batch_do_not_change_each_other(family: tuple[str, ...], length: int | None, tiny_run: MakeRun):
    run = TextDiffusion.from_pretrained(tiny_run(*family), device="cpu")
    texts = prompts(100)
    together = [text for i in range(0, 100, 8) for text in run.generate(prompt=texts[i : i + 8], length=length, seed=3)]
    alone = [run.generate(prompt=text, length=length, seed=3)[0] for text in texts]
    assert together == alone
