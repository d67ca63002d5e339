"""Set-up that every test shares: shape and type checks on, one thread, reproducible property tests."""

import os
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
