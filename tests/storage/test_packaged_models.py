"""The models that come with the package: their files, their size, and the figures on their cards.

The bits on the excerpt are measured again with fewer random draws, so they may differ from the card by five standard
errors of both measurements, and by 0.01 bits for another processor's rounding.
"""

from pathlib import Path

import pytest

from textdiffusion import TextDiffusion
from textdiffusion.evaluation.heldout import held_out
from textdiffusion.scoring.likelihood import bits_per_character
from textdiffusion.storage.packaged import CHECKED, checked_folder, excerpt_of, is_packaged, names, read_card, root

MAX_BYTES, MAX_TOTAL = 12_000_000, 30_000_000
NAMES = names()

pytestmark = pytest.mark.skipif(not NAMES, reason="this checkout has no models")


def test_the_weights_are_small():
    sizes = {name: (root() / name / "model.safetensors").stat().st_size for name in NAMES}
    assert max(sizes.values()) <= MAX_BYTES
    assert sum(sizes.values()) <= MAX_TOTAL


@pytest.mark.parametrize("name", NAMES)
def test_the_folder_has_a_run_and_a_card(name: str):
    folder = checked_folder(name)
    assert is_packaged(folder)
    card = read_card(folder)
    assert card.name == name
    assert {*card.sha256} == {*CHECKED}
    assert card.figures
    for figure in card.figures:
        assert figure.command.startswith(("textdiffusion evaluate ", "python benchmarks/"))
        assert f"{figure.value:.4g}" in (folder / "README.md").read_text(encoding="utf-8")
    allowed = {*CHECKED, "card.json", "README.md", "heldout.txt", "heldout.csv"}
    assert {path.name for path in folder.iterdir()} <= allowed
    run = TextDiffusion.from_pretrained(folder)
    text = run.config.text
    assert not any("/" in value for value in (text.data, text.valid, text.test, text.tokenizer_path))
    assert sum(p.numel() for p in run.model.parameters()) == card.parameters


@pytest.mark.parametrize("name", NAMES)
def test_the_figures_of_the_card_are_right(name: str, tmp_path: Path):
    folder = checked_folder(name)
    excerpt = read_card(folder).excerpt
    run = TextDiffusion.from_pretrained(folder, device="cpu")
    text = held_out(run, tmp_path, excerpt_of(folder), excerpt.windows)
    score = bits_per_character(run.model, text, run.likelihood, draws=2, seed=1)
    error = (score.monte_carlo_error**2 + excerpt.error**2) ** 0.5
    assert abs(score.bits - excerpt.bits) < 5 * error + 0.01
