"""Running streams: every token once an epoch, a pure function of (seed, step, row), evaluation loses nothing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from textdiffusion.data.config import TextConfig
from textdiffusion.data.dataset import evaluation_batches
from textdiffusion.data.prepare import Corpus, prepare

TEXT = "".join(f"line {i} of a small corpus\n" for i in range(300))


def corpus(folder: Path, text: str = TEXT, seed: int = 0, **options) -> Corpus:
    path = folder / "corpus.txt"
    if not path.exists():
        path.write_text(text, encoding="utf-8")
    config = replace(TextConfig(data=str(path), length=16), **options)
    return prepare(config, folder / "cache", seed=seed)


def test_parts_are_the_text_in_order(tmp_path):
    parts = corpus(tmp_path)
    texts = [parts.tokenizer.decode(part.shard.tokens) for part in map(parts.part, ("train", "valid", "test"))]
    assert "".join(texts) == TEXT
    assert len(texts[0]) == int(0.9 * len(TEXT))
    assert len(texts[0] + texts[1]) == int(0.95 * len(TEXT))


def test_rows_depend_on_seed_step_and_row_alone(tmp_path):
    train = corpus(tmp_path).train
    full = train.batch(7, range(32), batch_size=32)
    part = train.batch(7, [5, 30], batch_size=32)
    assert torch.equal(full.tokens[[5, 30]], part.tokens)
    assert part.row_ids is not None
    assert part.row_ids.tolist() == [5, 30]
    assert not torch.equal(full.tokens, train.batch(8, range(32), batch_size=32).tokens)
    assert not torch.equal(full.tokens, corpus(tmp_path, seed=1).train.batch(7, range(32), batch_size=32).tokens)


@pytest.mark.parametrize("length", [16, 100, 1000])
def test_an_epoch_sees_each_window_once_and_epochs_shift(tmp_path, length):
    text = "".join(chr(0x4E00 + i) for i in range(5000))
    train = corpus(tmp_path, text, length=length, test_fraction=0.0).train
    windows = 4750 // length - 1
    epochs = [train.batch(epoch, range(windows), batch_size=windows).tokens for epoch in range(20)]
    for ids in epochs:
        assert len(ids.unique()) == windows * length  # no overlap
        assert torch.equal(ids, ids[:, :1] + torch.arange(length))  # consecutive tokens
    assert len({int(ids.min()) for ids in epochs}) > 10
    assert len({tuple(ids[:, 0].argsort().tolist()) for ids in epochs}) > 10 or windows < 5
    seen = torch.cat(epochs).unique()
    assert len(seen) > 4750 - length


def test_evaluation_windows_hold_every_token_once(tmp_path):
    test = corpus(tmp_path, length=90).part("test")
    pieces, chars = [], 0
    for batch in evaluation_batches(test, 2):
        real = torch.ones_like(batch.tokens, dtype=torch.bool) if batch.valid_mask is None else batch.valid_mask
        pieces.append(batch.tokens[real])
        assert batch.num_chars is not None
        chars += int(batch.num_chars.sum())
    assert np.array_equal(torch.cat(pieces).numpy(), test.shard.tokens)
    assert chars == len(test.shard)
    assert batch.valid_mask is not None  # the last window is shorter
    assert not batch.valid_mask[-1, -1]


def test_shorter_than_a_window(tmp_path):
    """The window is padded, in training as in evaluation, and the user is told."""
    short = corpus(tmp_path, length=9999)
    count = len(short.train.shard)
    assert any(f"train: {count} tokens are fewer than a window of 9999" in note for note in short.notes)
    batch = short.train.batch(3, range(2), batch_size=4)
    assert batch.tokens.shape == (2, 9999)
    assert batch.valid_mask is not None
    assert batch.valid_mask.sum(1).tolist() == [count, count]
    assert np.array_equal(batch.tokens[1, :count].numpy(), short.train.shard.tokens)
    assert (batch.num_chars, batch.global_batch_size) == (None, 4)
    assert batch.row_ids is not None
    assert batch.row_ids.tolist() == [0, 1]


def test_reused_until_something_changes(tmp_path):
    first = corpus(tmp_path)
    stamp = (first.folder / "train.tokens").stat().st_mtime_ns
    assert corpus(tmp_path, length=32).folder == first.folder
    assert (first.folder / "train.tokens").stat().st_mtime_ns == stamp
    assert corpus(tmp_path, normaliser="lower").folder != first.folder
    (tmp_path / "corpus.txt").write_text(TEXT + "more")
    assert corpus(tmp_path).folder != first.folder
