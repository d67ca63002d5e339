"""Training shows a bar in a notebook."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
from rich.console import Console

from textdiffusion.config.training import Training
from textdiffusion.training.events import Logged
from textdiffusion.training.loggers import ProgressDisplay


def test_a_bar_changes_in_place(monkeypatch: pytest.MonkeyPatch):
    shown: list[str] = []
    module = ModuleType("IPython.display")

    def display(picture: str, *, display_id: bool) -> SimpleNamespace:
        assert display_id
        shown.append(picture)
        return SimpleNamespace(update=shown.append)

    vars(module).update(display=display, HTML=str)
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    logger = ProgressDisplay(Training(), Console(force_jupyter=True))
    for step, progress in ((10, 0.25), (20, 0.5)):
        logger(Logged(step, progress, 2.0, {}, 1.0, 1.0, 100, 50.0, 1.0, 1.0, 1.0))
    assert len(shown) == 3
    assert 'value="0.5000"' in shown[-1]
    assert "step 20  loss 2.000" in shown[-1]
