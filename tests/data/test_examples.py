"""Lines and documents: ends, padding, characters, truncation, packing, drawn segmentations."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from textdiffusion.core.batch import Batch
from textdiffusion.core.errors import UserError
from textdiffusion.data.config import TextConfig
from textdiffusion.data.dataset import Dataset, evaluation_batches
from textdiffusion.data.packing import MAX_OPEN_ROWS, first_fit
from textdiffusion.data.prepare import Corpus, prepare

LINES = [f"{'word ' * (i % 7)}number {i}" for i in range(200)]


def corpus(folder: Path, lines: list[str] = LINES, **options) -> Corpus:
    path = folder / "lines.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = TextConfig(data=str(path), layout="lines", length=48, valid_fraction=0.0, test_fraction=0.1)
    return prepare(replace(config, **options), folder / "cache")


def real_of(batch: Batch) -> torch.Tensor:
    return torch.ones_like(batch.tokens, dtype=torch.bool) if batch.valid_mask is None else batch.valid_mask


def texts(parts: Corpus, dataset: Dataset) -> list[str]:
    found = []
    for batch in evaluation_batches(dataset, 32):
        assert batch.num_chars is not None
        for ids, real, chars in zip(batch.tokens, real_of(batch), batch.num_chars, strict=True):
            found.append(parts.tokenizer.decode(ids))
            assert chars == len(found[-1]) + 1  # the line break
            assert int(real.sum()) == len(parts.tokenizer.encode(found[-1])) + 1
            assert ids[real][-1] == parts.tokenizer.end_id
            assert set(ids[~real].tolist()) <= {parts.tokenizer.pad_id}
    return found


@pytest.mark.parametrize("options", [{}, {"tokenizer": "bytes"}, {"tokenizer": "bpe", "vocab_size": 280}])
def test_one_example_a_line_in_order(tmp_path, options):
    parts = corpus(tmp_path, **options)
    assert texts(parts, parts.train) == LINES[:180]
    assert texts(parts, parts.part("test")) == LINES[180:]
    assert parts.notes == ()
    with pytest.raises(UserError, match="no valid part"):
        parts.part("valid")


def test_blank_lines_are_no_examples(tmp_path):
    parts = corpus(tmp_path, ["one", "", "  ", "two", "three"], test_fraction=0.0)
    assert texts(parts, parts.train) == ["one", "two", "three"]


def test_an_epoch_sees_each_example_once(tmp_path):
    parts = corpus(tmp_path)
    batches = [parts.train.batch(step, range(20), batch_size=20) for step in range(18)]
    seen = [parts.tokenizer.decode(ids) for batch in batches for ids in batch.tokens]
    assert sorted(seen[:180]) == sorted(seen[180:]) == sorted(LINES[:180])
    assert seen[:180] != seen[180:]
    assert torch.equal(parts.train.batch(3, [4, 9], batch_size=20).tokens, batches[3].tokens[[4, 9]])
    assert batches[0].global_batch_size == 20


def test_padding_can_be_modelled(tmp_path):
    parts = corpus(tmp_path, model_padding=True)
    batch = parts.train.windows(range(5))
    assert batch.valid_mask is None
    assert set(batch.tokens[:, -1].tolist()) == {parts.tokenizer.pad_id}


def test_documents_count_no_character_for_their_end(tmp_path):
    path = tmp_path / "documents.jsonl"
    path.write_text('{"text": "one\\ntwo"}\n{"text": "three"}\n', encoding="utf-8")
    config = TextConfig(data=str(path), field="text", layout="documents", valid_fraction=0.0, test_fraction=0.0)
    parts = prepare(config, tmp_path / "cache")
    batch = parts.train.windows(range(2))
    assert [parts.tokenizer.decode(ids) for ids in batch.tokens] == ["one\ntwo", "three"]
    assert batch.num_chars is not None
    assert batch.num_chars.tolist() == [7, 5]
    assert parts.train.shard.header.chars == 12


def test_too_long(tmp_path):
    short = corpus(tmp_path, length=16)
    lengths = [len(line) + 1 for line in LINES]
    count = sum(length > 16 for length in lengths[:180])
    assert short.notes[0] == f"train: {count} of 180 examples are longer than 16 tokens and truncated"
    batch = short.train.windows(range(180))
    assert [short.tokenizer.decode(ids) for ids in batch.tokens] == [line[:16] for line in LINES[:180]]
    assert batch.num_chars is not None
    assert batch.num_chars.tolist() == [min(length, 16) for length in lengths[:180]]
    dropped = corpus(tmp_path, length=16, too_long="drop")
    assert len(dropped.train) == 180 - count
    assert texts(dropped, dropped.train) == [line for line in LINES[:180] if len(line) < 16]
    with pytest.raises(UserError, match=r"Example 3 of the train part .* has 19 tokens .* window of 16"):
        corpus(tmp_path, length=16, too_long="error")
    with pytest.raises(UserError, match=r"No example of .* fits in a window of 4"):
        corpus(tmp_path, length=4, too_long="drop")


def test_packing_keeps_every_example_apart(tmp_path):
    parts = corpus(tmp_path, packing=True)
    train = parts.train
    assert len(train) < 120  # 180 without
    found, chars = [], 0
    for batch in evaluation_batches(train, 7):
        assert batch.segment_ids is not None
        assert batch.num_chars is not None
        chars += int(batch.num_chars.sum())
        for ids, segments, real in zip(batch.tokens, batch.segment_ids, real_of(batch), strict=True):
            last = int(segments[real].max())
            assert (segments[~real] == last + 1).all()
            assert (segments.diff() >= 0).all()
            for segment in range(last + 1):
                example = ids[segments == segment]
                assert example.tolist().index(parts.tokenizer.end_id) == len(example) - 1
                found.append(parts.tokenizer.decode(example))
    assert sorted(found) == sorted(LINES[:180])
    assert chars == sum(len(line) + 1 for line in LINES[:180])
    batch = train.batch(2, range(4), batch_size=4)
    assert batch.segment_ids is not None


@given(st.lists(st.integers(2, 20), min_size=1, max_size=300), st.integers(20, 40))
def test_first_fit_is_a_partition_that_fits(lengths, capacity):
    sizes = np.array(lengths)
    members, bounds = first_fit(np.arange(len(sizes)), sizes, capacity)
    assert sorted(members.tolist()) == list(range(len(sizes)))
    rows = [members[a:b] for a, b in itertools.pairwise(bounds)]
    rooms = [capacity - sizes[row].sum() for row in rows]
    assert min(rooms) >= 0
    assert all((np.diff(row) > 0).all() for row in rows)
    if len(rows) <= MAX_OPEN_ROWS:  # first fit: what begins a row fitted into none before
        assert all(sizes[row[0]] > room for i, row in enumerate(rows) for room in rooms[:i])


def test_segmentations_are_drawn_anew_while_training(tmp_path):
    options = {"tokenizer": "sentencepiece", "vocab_size": 300, "subword_sampling": 0.1}
    parts = corpus(tmp_path, **options)
    first, again = (parts.train.batch(0, range(60), batch_size=60) for _ in range(2))
    assert torch.equal(first.tokens, again.tokens)
    later = parts.train.batch(3, range(60), batch_size=60)  # the next epoch
    segmentations = {parts.tokenizer.decode(ids): ids for ids in first.tokens}
    assert set(segmentations) <= set(LINES)
    both = [
        (ids, segmentations[text]) for ids in later.tokens if (text := parts.tokenizer.decode(ids)) in segmentations
    ]
    assert any(not torch.equal(a, b) for a, b in both)
    assert torch.equal(parts.train.batch(0, [7], batch_size=60).tokens, first.tokens[[7]])
    stream = corpus(tmp_path, layout="stream", **options).train
    window = stream.batch(0, range(8), batch_size=8)
    assert window.tokens.shape == (8, 48)
    assert torch.equal(window.tokens[3:4], stream.batch(0, [3], batch_size=8).tokens)
    with pytest.raises(UserError, match="needs a SentencePiece tokenizer"):
        prepare(replace(parts.config), tmp_path / "cache", tokenizer=corpus(tmp_path).tokenizer)


def test_a_tokenizer_without_an_end_cannot_do_lines(tmp_path):
    stream = corpus(tmp_path, layout="stream")
    with pytest.raises(UserError, match="needs a tokenizer with an end"):
        prepare(corpus(tmp_path).config, tmp_path / "cache", tokenizer=stream.tokenizer)
