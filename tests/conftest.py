"""Set-up that every test shares: shape and type checks on, one thread, reproducible property tests."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import jaxtyping
import pytest
from hypothesis import settings

# Must come before anything imports the package: modules that are already loaded stay unchecked.
jaxtyping.install_import_hook("textdiffusion", "beartype.beartype")

settings.register_profile("reproducible", deadline=None, derandomize=True)
settings.load_profile("reproducible")


def pytest_configure() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real text named by TEXTDIFFUSION_DATA; skips where it is not set."""
    value = os.environ.get("TEXTDIFFUSION_DATA")
    if not value:
        pytest.skip("TEXTDIFFUSION_DATA is not set: no real text to test on")
    path = Path(value)
    if not path.is_dir():
        pytest.fail(f"TEXTDIFFUSION_DATA={value} is not a folder")
    return path


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Path]]:
    """Makes run folders, each once: `tiny_run("mdlm", "text.layout=lines")`.

    The weights are random, the text is a small file of sentences, and the cache of prepared text is a temporary one.
    """
    import torch

    from textdiffusion import TextDiffusion, recipes
    from textdiffusion.config.build import build_model
    from textdiffusion.config.overrides import apply_overrides
    from textdiffusion.data.prepare import prepare

    home = tmp_path_factory.mktemp("runs")
    corpus = home / "corpus.txt"
    words = ("red", "green", "ripe"), ("pear", "plum", "fig"), ("fresh", "old", "sweet")
    corpus.write_text("".join(f"The {a} {b} is {c}.\n" for a in words[0] for b in words[1] for c in words[2]) * 8)
    made: dict[tuple[str, ...], Path] = {}

    def make(recipe: str, *settings: str) -> Path:
        if (recipe, *settings) not in made:
            config = recipes.get(recipe)()
            small = ("backbone.width=64", "backbone.depth=1", "text.length=32", f"text.data={corpus}")
            small += ("backbone.mlp_ratio=2",) if hasattr(config.backbone, "mlp_ratio") else ()
            if config.text.tokenizer == "auto":
                small += ("text.tokenizer=characters", "text.layout=stream")
            small += ("sampler.steps=6",) if config.sampler.steps else ()
            config = apply_overrides(config, [*small, *settings])
            prepared = prepare(config.text, home / "cache")
            tokenizer = prepared.tokenizer
            torch.manual_seed(0)
            model = build_model(config, tokenizer.vocab_size).eval().requires_grad_(False)
            for parameter in model.denoiser.parameters():  # the head begins at zero, which would hide much
                parameter += 0.2 * torch.randn_like(parameter)
            run = TextDiffusion(model, tokenizer, config, text_sha256=prepared.hashes)
            made[recipe, *settings] = run.save_pretrained(home / f"run-{len(made)}")
        return made[recipe, *settings]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEXTDIFFUSION_CACHE", str(home / "cache"))
        yield make


@pytest.fixture(scope="session")
def packaged_models(tiny_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with stand-ins for the models of the package."""
    from .packaged_models import make_models

    return make_models(tmp_path_factory.mktemp("packaged") / "models", tiny_run)


@pytest.fixture
def packaged(packaged_models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-ins in the place of the models of the package."""
    monkeypatch.setattr("textdiffusion.storage.packaged.root", lambda: packaged_models)
    return packaged_models
