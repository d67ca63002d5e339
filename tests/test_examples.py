"""The examples train and write text, in a short form."""

import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize("name", [path.stem for path in sorted(EXAMPLES.glob("*.py"))])
def test_the_loss_falls_and_samples_are_text(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    example, random = import_module(name), torch.get_rng_state()
    try:
        losses, texts = example.main(steps=100, num=4)
    finally:
        torch.set_rng_state(random)
    assert sum(losses[-20:]) / 20 < 0.6 * losses[0]
    words = {word for sentence in example.SENTENCES for word in sentence.split()}
    assert len(texts) == 4
    for text in texts:
        assert text.split()[-1] == "."
        assert {*text.split()} <= words
    sys.modules.pop(name)
