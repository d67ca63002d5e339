"""Records: CSV and TSV by their rules, JSON arrays, odd labels, and bad records that are skipped and counted."""

import csv
import io
import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textdiffusion.core.errors import UserError
from textdiffusion.data.config import TextConfig
from textdiffusion.data.labels import read_labelled, with_label_names
from textdiffusion.data.prepare import prepare
from textdiffusion.data.sources import Files
from textdiffusion.data.tables import MAX_FIELD, read_table

field_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=12)
json_value = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 10**12) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def read(path: Path, content: str, field: str = "text", label: str = "", **options) -> list[tuple[str, str]]:
    path.write_text(content, encoding="utf-8", newline="")
    files = Files(path.name, [path], (field, "", label), **options)
    return [(chunk.text, chunk.label) for chunk in files.chunks()]


def chunks_of(text: str, size: int) -> list[str]:
    return [text[i : i + size] for i in range(0, len(text), size)]


@given(rows=st.lists(st.tuples(field_text, field_text), max_size=6), size=st.integers(1, 9), kind=st.sampled_from("ct"))
def test_what_csv_writes_is_read(rows, size, kind):
    file = io.StringIO()
    writer = csv.writer(file, delimiter="," if kind == "c" else "\t", lineterminator="\n")
    writer.writerows([("text", "label"), *rows])
    chunks = iter(chunks_of(file.getvalue(), size))
    found = list(read_table(Path("a"), f".{kind}sv", chunks, ("text", "", "label")))
    assert found == [(text, "", "" if label.isspace() else label) for text, label in rows]


@given(
    records=st.lists(st.fixed_dictionaries({"text": st.text(max_size=9), "x": json_value}), max_size=5),
    size=st.integers(1, 20),
    indent=st.sampled_from([None, 1]),
)
@settings(max_examples=30)
def test_json_arrays_are_records(records, size, indent):
    content = "\n " + json.dumps(records, indent=indent) + "\n"
    found = [text for text, _, _ in read_table(Path("a"), ".json", iter(chunks_of(content, size)), ("text", "", ""))]
    assert found == [each["text"].replace("\r\n", "\n").replace("\r", "\n") for each in records]


@given(content=st.text(max_size=60), kind=st.sampled_from([".csv", ".tsv", ".json", ".jsonl"]), size=st.integers(1, 9))
def test_any_text_is_read_or_refused(content, kind, size):
    with suppress(UserError):  # and nothing else
        list(read_table(Path("a"), kind, iter(chunks_of(content, size)), ("a", "", "")))


def test_ndjson_and_json(tmp_path):
    for name in ("a.ndjson", "a.jsonl"):
        assert read(tmp_path / name, '{"text": "one"}\n\n{"text": "two"}') == [("one", ""), ("two", "")]
    assert read(tmp_path / "a.json", '[{"text": "one"},\n {"text": "two"}]') == [("one", ""), ("two", "")]
    with pytest.raises(UserError, match=r"a.json holds records. Set text.field .* the fields are text, id\. To read"):
        read(tmp_path / "a.json", '[{"text": "one", "id": 1}]', field="")
    assert read(tmp_path / "a.json", '{"name": "a package"}', field="") == [('{"name": "a package"}', "")]
    with pytest.raises(UserError, match="is not an array of records"):
        read(tmp_path / "a.json", '{"text": "one"}')
    with pytest.raises(UserError, match=r"from line 2: not valid JSON"):
        read(tmp_path / "a.json", '[{"text": "one"},\n {"text": ')


def test_quotation_marks_of_tsv(tmp_path):
    assert read(tmp_path / "a.tsv", 'text\tid\n"one\ntwo"\t1\n"say ""hi"""\t2\n') == [
        ("one\ntwo", ""),
        ('say "hi"', ""),
    ]
    ordinary = 'text\tid\n"Hi," he said.\t1\n5" pipe\t2\n"unclosed\t3\n'
    assert read(tmp_path / "a.tsv", ordinary) == [('"Hi," he said.', ""), ('5" pipe', ""), ('"unclosed', "")]


def test_line_ends_long_fields_and_other_separators(tmp_path):
    assert read(tmp_path / "a.csv", "text,id\rone,1\rtwo,2\r") == [("one", ""), ("two", "")]
    limit = csv.field_size_limit()
    assert read(tmp_path / "a.csv", f"text,id\n{'x' * 200_000},1\n")[0][0] == "x" * 200_000
    assert csv.field_size_limit() == limit < MAX_FIELD
    assert read(tmp_path / "a.csv", 'id;text\n1;"one, two"\n') == [("one, two", "")]
    with pytest.raises(UserError, match="the fields are text, id"):
        read(tmp_path / "a.csv", "text,id\rone,1\r", field="")


BAD = {
    ".jsonl": '{"text": "one"}\n{"text": \n["two"]\n{"text": 3}\n{"text": null}\n{"text": "\\ud800"}\n{"text": "six"}',
    ".csv": 'text,id\none,1\n"two"x,2\na,b,c\n\nsix,6\n',
    ".json": '[{"text": "one"}, 2, {"text": 3}, {"id": 4}, {"text": "six"}]',
}


@pytest.mark.parametrize(("kind", "count"), [(".jsonl", 5), (".csv", 2), (".json", 3)])
def test_bad_records_are_named_or_skipped_and_counted(tmp_path, kind, count):
    path = tmp_path / f"a{kind}"
    with pytest.raises(UserError, match=r"line \d+.*text.skip_bad=true skips what cannot be read"):
        read(path, BAD[kind])
    assert [text for text, _ in read(path, BAD[kind], skip_bad=True)] == ["one", "six"]
    config = TextConfig(data=str(path), field="text", skip_bad=True, tokenizer="bytes", layout="documents", length=8)
    notes = prepare(config, tmp_path / "cache").notes
    assert any(f"{count} bad records or files skipped; the first: {path}, " in note for note in notes)


def test_nested_too_deeply(tmp_path):
    for kind in (".jsonl", ".json"):
        with pytest.raises(UserError, match=r"nested too deeply|not valid JSON"):
            read(tmp_path / f"a{kind}", "[" * 100_000)


def test_labels_that_are_numbers_or_missing(tmp_path):
    values = ['"a"', "1", "2.5", "true", "null", '""', '" "', "NaN"]
    lines = [f'{{"text": "t", "label": {value}}}' for value in values] + ['{"text": "t"}']
    found = [label for _, label in read(tmp_path / "a.jsonl", "\n".join(lines), label="label")]
    assert found == ["a", "1", "2.5", "True", "", "", "", "", ""]
    with pytest.raises(UserError, match="field 'label' is list, not text"):
        read(tmp_path / "a.jsonl", '{"text": "t", "label": []}', label="label")


def test_what_labels_lack_is_said(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\n" + "one,x\ntwo,\n" * 20)
    config = TextConfig(data=str(tmp_path / "a.csv"), field="text", label="label", layout="documents", length=8)
    notes = prepare(with_label_names(config, tmp_path / "cache"), tmp_path / "cache").notes
    assert "train: label has a single value, x, so it cannot steer anything" in notes
    assert "train: 18 of 36 examples have no label" in notes


def test_labelled_texts_of_every_kind(tmp_path):
    expected = [("one", "a"), ('say "hi"', "b")]
    contents = {
        "a.txt": 'one\ta\nsay "hi"\tb\n',
        "a.tsv": 'text\tlabel\none\ta\n"say ""hi"""\tb\n',
        "a.json": '[{"text": "one", "label": "a"}, {"text": "say \\"hi\\"", "label": "b"}]',
        "a.ndjson": '{"text": "one", "label": "a"}\n{"text": "say \\"hi\\"", "label": "b"}\n',
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
        assert read_labelled(tmp_path / name) == expected
    (tmp_path / "a.txt").write_bytes("un été\ta\nune pluie\tb\n".encode("cp1252"))
    assert read_labelled(tmp_path / "a.txt")[0] == ("un été", "a")
    (tmp_path / "a.txt").write_bytes("Жил\ta\nбыл\tb\n".encode("koi8_r"))
    with pytest.raises(UserError, match="Convert it to UTF-8") as error:
        read_labelled(tmp_path / "a.txt")
    assert "text.encoding" not in str(error.value)
