"""`textdiffusion train-classifier`, and steering with what it made."""

import json
from collections.abc import Callable
from pathlib import Path

WORDS = ("text.tokenizer=words", "text.layout=lines", "text.length=8", "text.model_padding=true")


def test_a_classifier_is_trained_and_steers(textdiffusion, tiny_run: Callable[..., Path], tmp_path: Path):
    run, data = tiny_run("mdlm", *WORDS), tmp_path / "labels.tsv"
    data.write_text("The red fig is old.\tred\nThe green fig is old.\tgreen\n" * 10)
    words = ("--data", data, "--out", tmp_path / "colours", "--steps", "2", "--width", "32", "--depth", "1", "--json")
    told = json.loads(textdiffusion("train-classifier", run, *words).out)
    assert told["labels"] == ["green", "red"]
    assert told["right"].keys() == told["balanced"].keys() == {"0", "0.25", "0.5", "0.75"}
    asked = f"classifier:path={tmp_path / 'colours'},label=red,weight=2"
    done = textdiffusion("sample", run, "--num", "2", "--guide", asked, "--guide", "word:text=fig", "--json")
    assert all("fig" in text for text in json.loads(done.out)["texts"])
    assert json.loads(done.out)["guides"] == [asked, "word:text=fig"]
