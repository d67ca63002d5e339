"""Labels and sources: from files to batches, with the loss on the text alone."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from textdiffusion.core.errors import UserError
from textdiffusion.core.randomness import Rng
from textdiffusion.data.conditions import condition_dropout, strip_source
from textdiffusion.data.config import TextConfig
from textdiffusion.data.labels import with_label_names
from textdiffusion.data.prepare import prepare

RECORDS = [
    {"kind": kind, "what": f'a {fruit}, "{kind}"', "text": f"the {kind} {fruit}\n- is here"}
    for kind in ("red", "green", "")
    for fruit in ("fig", "pear", "plum")
] * 4


def _write(path: Path) -> str:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    elif path.suffix == ".tsv":
        rows = [[value.replace("\n", " ") for value in record.values()] for record in RECORDS]
        path.write_text("".join("\t".join(row) + "\n" for row in [list(RECORDS[0]), *rows]))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(RECORDS[0]))
            writer.writeheader()
            writer.writerows(RECORDS)
    return str(path)


def _config(data: str, **options: Any) -> TextConfig:
    chosen: dict[str, Any] = {"field": "text", "layout": "documents", "length": 48, **options}
    return TextConfig(data=data, valid_fraction=0.0, test_fraction=0.0, **chosen)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv"])
def test_rows_have_their_source_and_label(kind: str, tmp_path: Path):
    config = _config(_write(tmp_path / f"d.{kind}"), source="what", label="kind", model_padding=True)
    config = with_label_names(config, tmp_path)
    assert config.labels == ("green", "red")
    corpus = prepare(config, tmp_path / "cache")
    tokenizer = corpus.tokenizer
    batch = corpus.train.windows(range(9))
    assert batch.condition_mask is not None
    assert batch.labels is not None
    assert batch.num_chars is not None
    for number, record in enumerate(RECORDS[:9]):
        ids, given = batch.tokens[number].numpy(), batch.condition_mask[number].numpy()
        text = record["text"].replace("\n", " ") if kind == "tsv" else record["text"]
        assert tokenizer.decode(ids) == record["what"]
        assert tokenizer.decode(strip_source(ids, config, tokenizer)) == text
        assert given.sum() == len(record["what"]) + 1  # and its end
        assert given[: given.sum()].all()
        assert batch.num_chars[number] == len(text)
        assert batch.labels[number] == {"": 0, "green": 1, "red": 2}[record["kind"]]
        positions = corpus.train.positions([number])
        assert tokenizer.decode(np.asarray(corpus.train.shard.tokens)[positions].astype(int)) == text
    some = corpus.train.batch(0, range(8), batch_size=8)  # in training's order too
    assert some.labels is not None
    for ids, label in zip(some.tokens.numpy(), some.labels.tolist(), strict=True):
        assert ("", "green", "red")[label] == tokenizer.decode(ids).split('"')[1]


def test_lines_have_the_label_of_their_record(tmp_path: Path):
    config = with_label_names(_config(_write(tmp_path / "d.csv"), label="kind", layout="lines"), tmp_path)
    batch = prepare(config, tmp_path / "cache").train.windows(range(6))
    assert batch.labels is not None
    assert batch.labels.tolist() == [2] * 6
    assert batch.condition_mask is None


def test_dropped_rows_show_neither_label_nor_source(tmp_path: Path):
    config = with_label_names(_config(_write(tmp_path / "d.csv"), source="what", label="kind"), tmp_path)
    corpus = prepare(config, tmp_path / "cache")
    batch = corpus.train.windows(range(6))
    pad = corpus.tokenizer.pad_id
    assert pad is not None
    assert batch.condition_mask is not None
    bare = condition_dropout(batch, 1.0, pad, Rng.of(0, 6))
    assert bare.labels is not None
    assert (bare.labels == 0).all()
    assert (bare.tokens == torch.where(batch.condition_mask, pad, batch.tokens)).all()
    assert bare.condition_mask is batch.condition_mask
    many = corpus.train.windows(np.zeros(2000, dtype=np.int64))
    assert many.labels is not None
    half = condition_dropout(many, 0.3, pad, Rng.of(0, 2000))
    assert half.labels is not None
    fraction = float((half.labels == 0).float().mean())
    assert abs(fraction - 0.3) < 0.04
    assert ((half.tokens[:, 0] == pad) == (half.labels == 0)).all()


def test_sources_that_fill_the_window_are_left_out_and_counted(tmp_path: Path):
    rows = [{"what": "s" * size, "text": "abc"} for size in (2, 6, 7, 30)] * 2
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus = prepare(_config(str(tmp_path / "d.jsonl"), source="what", length=8), tmp_path / "cache")
    batch = corpus.train.windows(range(len(corpus.train)))
    assert batch.target_mask.sum(1).tolist() == [4, 1] * 2  # 6 of the 8 tokens and the end leave one
    assert "train: 4 of 8 sources fill the window, and their examples are dropped" in corpus.notes
    with pytest.raises(UserError, match=r"No example of the train part .* Use a greater length"):
        prepare(_config(str(tmp_path / "d.jsonl"), source="what", length=2), tmp_path / "cache")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "what", "layout": "lines"}, "source needs layout=documents"),
        ({"label": "kind", "layout": "stream"}, "label needs layout=documents"),
        ({"label": "kind", "packing": True}, "a row has only one label"),
        ({"labels": ("red",)}, "labels has no effect without label"),
        ({"condition_dropout": 0.1}, "condition_dropout needs a label, a source, or a mask"),
        ({"condition_dropout": 1.0, "label": "kind"}, r"must be in \[0, 1\)"),
        ({"source": "who"}, "no field 'who'; its fields are: kind, what, text"),
        ({"label": "kind", "labels": ("red",)}, "no label 'green'; the labels are red"),
        ({"field": ""}, r"Set text.field to .* the fields are kind, what, text"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str, tmp_path: Path):
    data = _write(tmp_path / "d.csv")
    with pytest.raises(UserError, match=message):
        prepare(_config(data, **change), tmp_path / "cache")


def test_labels_are_few_and_tables_are_whole(tmp_path: Path):
    many = tmp_path / "many.tsv"
    many.write_text("a\tb\n" + "".join(f"{i}\tx\n" for i in range(1001)))
    with pytest.raises(UserError, match="holds text, not labels"):
        with_label_names(_config(str(many), field="b", label="a"), tmp_path)
    (tmp_path / "broken.csv").write_text('a,b\n1,"never closed\n')
    with pytest.raises(UserError, match="not valid CSV"):
        prepare(_config(str(tmp_path / "broken.csv"), field="b"), tmp_path / "cache")
    (tmp_path / "short.tsv").write_text("a\tb\n1\n")
    with pytest.raises(UserError, match="line 2: field 'b' has no value"):
        prepare(_config(str(tmp_path / "short.tsv"), field="b"), tmp_path / "cache")
    (tmp_path / "long.csv").write_text("a,b\n1,one, two\n")
    with pytest.raises(UserError, match=r"line 2: more values than columns \(a, b\)"):
        prepare(_config(str(tmp_path / "long.csv"), field="b"), tmp_path / "cache")
    (tmp_path / "bare.csv").write_text("a,b\n")
    with pytest.raises(UserError, match="has no field 'c'; its fields are: a, b"):
        prepare(_config(str(tmp_path / "bare.csv"), field="c"), tmp_path / "cache")
    (tmp_path / "plain.txt").write_text("text\n")
    with pytest.raises(UserError, match="source='a' has no effect"):
        prepare(_config(str(tmp_path / "plain.txt"), field="", source="a"), tmp_path / "cache")
