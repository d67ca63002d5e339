"""What does not fit into the free memory is refused with both figures, before it is allocated."""

import resource
import subprocess
import sys

import pytest

from textdiffusion import recipes
from textdiffusion.config.build import build_model, count_parameters
from textdiffusion.config.overrides import apply_overrides
from textdiffusion.core import memory
from textdiffusion.core.errors import UserError
from textdiffusion.core.memory import GIB, available_bytes, check_memory, size

VOCAB = 30


def test_sizes_to_read():
    assert [size(x * GIB) for x in (0.0005, 0.5, 3.24, 93.1, 1e4, 2e9)] == [
        "1 MiB",
        "0.5 GiB",
        "3.2 GiB",
        "93 GiB",
        "10,000 GiB",
        "2.0e+09 GiB",
    ]


def test_what_fits_passes_and_more_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 2 * GIB)
    check_memory(2 * GIB, "This", "do less")
    with pytest.raises(UserError, match=r"^This needs at least 3.0 GiB of memory, but 2.0 GiB are free; do less\.$"):
        check_memory(3 * GIB, "This", "do less")
    monkeypatch.setattr(memory, "available_bytes", lambda: None)  # unknown
    check_memory(1e30, "This", "do less")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere limits are not reported")
def test_the_limit_of_the_process_counts():
    code = "from textdiffusion.core.memory import available_bytes; print(available_bytes())"
    limit = 8 * GIB

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, preexec_fn=limited)
    free = available_bytes()
    assert free is not None
    assert 0 < int(done.stdout) < limit


@pytest.mark.parametrize("recipe", recipes.names())
def test_parameters_are_counted_without_building_them(recipe: str):
    config = recipes.get(recipe)()
    model = build_model(config, VOCAB)
    tensors = [*model.parameters(), *model.buffers()]
    assert sum(count_parameters(config, VOCAB).values()) == sum(tensor.numel() for tensor in tensors)


def test_blocks_beyond_those_that_are_built_are_counted(monkeypatch: pytest.MonkeyPatch):
    config = apply_overrides(recipes.get("mdlm")(), ["backbone.width=64", "backbone.depth=9"])
    expected = count_parameters(config, VOCAB)
    monkeypatch.setattr("textdiffusion.config.build.MAX_BUILT", 4)
    assert count_parameters(config, VOCAB) == expected


@pytest.mark.parametrize(
    ("setting", "remedy"),
    [
        ("backbone.depth=1000000000", "backbone.width or backbone.depth"),
        ("backbone.width=6400000", "backbone.width or backbone.depth"),
        ("backbone.width=6400000000000", "Lower its sizes"),
        ("denoiser.ngram_dim=1000000000", "denoiser.ngram_dim or denoiser.ngram_rows"),
    ],
)
def test_a_network_that_does_not_fit_is_refused(setting: str, remedy: str):
    config = apply_overrides(recipes.get("mdlm")(), [setting])
    with pytest.raises(UserError, match=remedy):
        build_model(config, VOCAB)
