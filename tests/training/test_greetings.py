"""Every recipe learns four greetings by heart, and writes them."""

from collections.abc import Iterator

import jaxtyping
import pytest

from textdiffusion import TextDiffusion, recipes
from textdiffusion.config.overrides import apply_overrides
from textdiffusion.diffusion.codecs import Tokens

from .runs import run

GREETINGS = ("hello there", "welcome back", "nice to meet you", "long time no see")  # no word is in two of them

TEXT = "tokenizer=words layout=lines length=6 model_padding=true mask=none valid_fraction=0"
TRAINING = "batch_size=64 lr=0.02 optimizer=muon muon_lr=0.05 warmup=5 num_samples=0 compile=off dtype=float32"


@pytest.fixture(autouse=True)
def _unchecked() -> Iterator[None]:
    """Shapes are checked in every other test, and would take half of the time of these."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("recipe", [name for name in recipes.names() if name != "adapted"])  # it learns on
def test_greetings_are_learned_by_heart(recipe, tmp_path):
    """One text of these words in thousands is a greeting. Vectors ask for more steps than tokens."""
    data = tmp_path / "greetings.txt"
    data.write_text("".join(f"{greeting}\n" for greeting in GREETINGS * 16), encoding="utf-8")
    config = recipes.get(recipe)()
    steps, share = (60, 0.6) if isinstance(config.codec, Tokens) else (120, 0.3)
    text, training = (
        [f"{group}.{s}" for s in given.split()] for group, given in (("text", TEXT), ("training", TRAINING))
    )
    own = [f"text.data={data}", f"training.steps={steps}", "backbone.width=64", "backbone.depth=1"]
    run(apply_overrides(config, [*text, *training, *own]), tmp_path / "run", tmp_path)
    model = TextDiffusion.from_pretrained(tmp_path / "run", device="cpu")
    written = [text.strip() for text in model.generate(64, steps=6 if isinstance(config.codec, Tokens) else 16)]
    assert sum(text in GREETINGS for text in written) / 64 > share
    assert set(GREETINGS) <= set(written)
