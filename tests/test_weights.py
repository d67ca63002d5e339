"""The writer of the package's models: a short training and its export."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch

from textdiffusion import TextDiffusion
from textdiffusion.data.config import TextConfig
from textdiffusion.storage import packaged
from textdiffusion.storage.weights import load_tensors

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SMALL = "backbone.width=64 backbone.depth=1 training.eval_windows=2 training.compile=off training.batch_size=4"


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("TEXTDIFFUSION_CACHE", str(tmp_path / "cache"))
    yield import_module("weights")
    for name in ("weights", "restaurants"):
        sys.modules.pop(name, None)


def test_a_model_is_trained_and_exported(weights: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def write(data: Path, runs: Path) -> None:
        (runs / "texts").mkdir(exist_ok=True)
        speech = "MACBETH:\nThe red pear is fresh.\n\nBANQUO:\nThe old fig is sweet.\n\n"
        (runs / "texts/plays.txt").write_text(speech * 400)

    training = f"mdlm --data texts/plays.txt --length 32 --set {SMALL} training.log_every=1"
    plays = replace(weights.DEFINITIONS["shakespeare"], training=training, prepare=write)
    monkeypatch.setitem(weights.DEFINITIONS, "shakespeare", plays)
    runs, shelf = tmp_path / "runs", tmp_path / "models"
    runs.mkdir()
    run = weights.train("shakespeare", tmp_path, runs, 0.2)
    monkeypatch.chdir(runs)
    card = weights.export(run, "shakespeare", 4, shelf)
    assert {path.name for path in (shelf / "shakespeare").iterdir()} == {
        *packaged.CHECKED,
        *("card.json", "README.md", "heldout.txt"),
    }
    assert "4 rows" in card.training
    assert "CPU-seconds" in card.training
    assert card.excerpt.bits > card.excerpt.ngram_bits  # of a model that has learned nothing
    monkeypatch.setattr(packaged, "root", lambda: shelf)
    monkeypatch.chdir(tmp_path)  # where no run has this name
    model = TextDiffusion.from_pretrained("shakespeare")
    assert model.config.text.data == "plays.txt"  # no path of the machine
    trained = TextDiffusion.from_pretrained(run)
    for name, tensor in load_tensors(shelf / "shakespeare/model.safetensors").items():
        if tensor.dtype == torch.bfloat16:
            assert torch.equal(tensor, trained.model.get_parameter(name).to(torch.bfloat16)), name
    text = (shelf / "shakespeare/README.md").read_text(encoding="utf-8")
    assert f"| bits per character, test | {card.figures[0].value:.4g}" in text
    assert "public domain" in text


def test_paths_become_names(weights: ModuleType, tmp_path: Path):
    text = TextConfig(data="restaurants/train.csv", test="restaurants/test.csv", test_fraction=0.0, field="text")
    assert (weights.portable(text).data, weights.portable(text).test) == ("train.csv", "test.csv")
    assert weights.portable(TextConfig(data="sudoku:hard:1000")).data == "sudoku:hard:1000"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("The Mill is a cheap Italian pub by the river.", {"food": "Italian", "area": "riverside", "price": "cheap"}),
        ("Near Raja Indian Cuisine, The Eagle serves fast-food.", {"food": "Fast food"}),
        ("French and Chinese food, rated 5 out of 5.", {"rating": "high rating"}),
        ("An inexpensive place in the city centre.", {"area": "city centre", "price": "cheap"}),
        ("It has a £20-25 price range and low customer ratings.", {"price": "moderate", "rating": "low rating"}),
    ],
)
def test_attributes_are_read_from_the_text(weights: ModuleType, text: str, said: dict[str, str]):
    assert import_module("restaurants").attributes(text) == said


def test_tokenized_text_becomes_plain(weights: ModuleType):
    plain = import_module("restaurants").plain
    assert plain("It isn 't family - friendly , costs £ 20 .") == "It isn't family-friendly, costs £20."


def test_restaurants_are_written(weights: ModuleType, tmp_path: Path):
    write = import_module("restaurants").write_tables
    with pytest.raises(SystemExit, match=r"has no e2e_train_refs\.txt and no e2e_dev\.csv and no e2e_test_w_refs\.csv"):
        write(tmp_path, tmp_path)
    (tmp_path / "e2e_train_refs.txt").write_text("A cheap French pub .\nThe test .\n")
    for name in ("dev", "test_w_refs"):
        (tmp_path / f"e2e_{name}.csv").write_text("mr,ref\nx,The test.\n")
    write(tmp_path, tmp_path / "restaurants")
    train = (tmp_path / "restaurants/train.csv").read_text(encoding="utf-8").splitlines()
    assert train[0] == "text,food,wishes"
    assert all(row.startswith("A cheap French pub.") for row in train[1:])
    assert len(train) == 3  # twice; the text of the test part is left out
