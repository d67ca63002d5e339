"""The examples train and write text, in a short form."""

import ast
import json
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


def test_the_cells_of_the_notebook_run(packaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In order and in one namespace; the value of a cell's last line must show itself."""
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((EXAMPLES / "notebook.ipynb").read_text(encoding="utf-8"))
    names: dict[str, object] = {}
    shown = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            code = ast.parse("".join(cell["source"]).replace("training.steps=60", "training.steps=2"))
            last = code.body[-1]
            if isinstance(last, ast.Expr):
                code.body[-1] = ast.Assign([ast.Name("shown", ast.Store())], last.value)
            names.pop("shown", None)
            exec(compile(ast.fix_missing_locations(code), "notebook", "exec"), names)
            if "shown" in names:
                value = names["shown"]
                shown.append(type(value).__name__)
                assert value is None or repr(value)
                assert not hasattr(value, "_repr_html_") or value._repr_html_().startswith("<iframe")
    assert shown.count("Recording") == 4
    assert "TextDiffusion" in shown
