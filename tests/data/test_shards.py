"""Shards: what is written is read, damage is seen, nothing is loaded."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textdiffusion.core.errors import UserError
from textdiffusion.data.shards import HEADER, ShardWriter, open_shard, verify

parts_of = st.lists(st.lists(st.integers(0, 250), max_size=9), max_size=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("shards")


@given(parts=parts_of, vocab_size=st.sampled_from([251, 257, 65537]), counted=st.booleans(), examples=st.booleans())
def test_what_is_written_is_read(folder, parts, vocab_size, counted, examples):
    path = folder / "a.tokens"
    with ShardWriter(path, vocab_size, examples=examples) as writer:
        for part in parts:
            ids = np.array(part, dtype=np.int64)
            writer.write(ids, ids % 3 if counted else None)
            if examples:
                writer.end_example()
    verify(path)
    shard = open_shard(path)
    joined = np.array([id for part in parts for id in part], dtype=np.int64)
    assert np.array_equal(shard.tokens, joined)
    assert shard.tokens.dtype == {251: np.uint8, 257: np.uint16, 65537: np.uint32}[vocab_size]
    assert shard.header.tokens == len(shard) == len(joined)
    assert shard.header.chars == ((joined % 3).sum() if counted else len(joined))
    if shard.char_counts is not None:
        assert np.array_equal(shard.char_counts, joined % 3)
    assert (shard.char_counts is not None) == (counted and len(joined) > 0)
    assert (shard.starts is not None) == examples
    if shard.starts is not None:
        assert np.array_equal(np.diff(shard.starts), list(map(len, parts)))
    assert sorted(p.name for p in folder.iterdir()) == ["a.tokens"]


@pytest.fixture
def path(tmp_path) -> Path:
    with ShardWriter(tmp_path / "part.tokens", 300, examples=True) as writer:
        writer.write(np.arange(300), np.ones(300, dtype=np.int64))
        writer.end_example()
    return tmp_path / "part.tokens"


def test_the_header_is_readable_json(path):
    raw = path.read_bytes()[:HEADER]
    assert raw.endswith(b" \n")
    assert json.loads(raw)["dtype"] == "uint16"


def damaged(path: Path, change) -> None:
    raw = bytearray(path.read_bytes())
    path.write_bytes(bytes(change(raw)))


def test_truncated(path):
    damaged(path, lambda raw: raw[:-1])
    with pytest.raises(UserError, match=r"part.tokens is damaged: it has \d+ bytes, but its header says \d+\. Delete"):
        open_shard(path)


def test_a_changed_byte_is_seen_by_verify_alone(path):
    def flip(raw):
        raw[HEADER + 10] ^= 1
        return raw

    damaged(path, flip)
    open_shard(path)
    with pytest.raises(UserError, match="its checksum differs from the one in its header"):
        verify(path)


@pytest.mark.parametrize("header", [b"", b"\0" * 5000, b"{}".ljust(5000), b'{"format": 1}'.ljust(5000)])
def test_no_header(path, header):
    path.write_bytes(header)
    with pytest.raises(UserError, match="its header cannot be read"):
        open_shard(path)


def test_another_version(path):
    damaged(path, lambda raw: raw.replace(b'"version": 2', b'"version": 9'))
    with pytest.raises(UserError, match="version 9, not 'textdiffusion token shard' version 2"):
        open_shard(path)


def test_missing(tmp_path):
    with pytest.raises(UserError, match="is damaged: it is missing"):
        verify(tmp_path / "none.tokens")


def test_an_error_while_writing_leaves_no_header(tmp_path):
    writer = ShardWriter(tmp_path / "x.tokens", 10, examples=False)
    with pytest.raises(KeyError), writer:
        raise KeyError
    with pytest.raises(UserError, match="header"):
        open_shard(tmp_path / "x.tokens")
