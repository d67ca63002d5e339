"""Text that can be read only once: pipes, standard input, and what never ends."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from textdiffusion.core.errors import UserError
from textdiffusion.data import pipes
from textdiffusion.data.config import TextConfig
from textdiffusion.data.documents import with_copied_pipes
from textdiffusion.data.labels import read_labelled
from textdiffusion.data.prepare import prepare

TEXT = "some words of plain text\n" * 4000


@pytest.fixture
def fifo(tmp_path):
    """Makes a pipe that gives some bytes to its first reader."""
    threads = []

    def make(content: bytes) -> str:
        path = tmp_path / f"fifo{len(threads)}"
        os.mkfifo(path)
        threads.append(threading.Thread(target=path.write_bytes, args=(content,), daemon=True))
        threads[-1].start()
        return str(path)

    yield make
    for thread in threads:
        thread.join(timeout=5)


def test_a_pipe_is_text_like_any_other(tmp_path, fifo):
    (tmp_path / "a.txt").write_text(TEXT)
    cache = tmp_path / "cache"
    config = TextConfig(data=str(tmp_path / "a.txt"), tokenizer="bytes")
    copied = with_copied_pipes(TextConfig(data=fifo(TEXT.encode()), tokenizer="bytes"), cache)
    assert Path(copied.data).read_text() == TEXT
    assert prepare(copied, cache).folder == prepare(config, cache).folder
    assert with_copied_pipes(TextConfig(data=fifo(TEXT.encode())), cache).data == copied.data  # so a run can go on
    assert prepare(TextConfig(data=fifo(TEXT.encode()), tokenizer="bytes"), cache).folder.exists()


@pytest.mark.parametrize(
    ("content", "suffix"),
    [('{"text": "a"}\n', ".jsonl"), ('[{"text": "a"}]', ".json"), ("id\ttext\n1\ta\n", ".tsv"), ("text\na\n", ".csv")],
)
def test_the_kind_of_piped_records_is_recognised(tmp_path, fifo, content, suffix):
    config = TextConfig(data=fifo(content.encode()), field="text", layout="documents", tokenizer="bytes", length=8)
    copied = with_copied_pipes(config, tmp_path / "cache")
    assert Path(copied.data).suffix == suffix
    assert prepare(copied, tmp_path / "cache").train.shard.header.examples == 1


def test_standard_input(tmp_path):
    code = (
        "import sys; from pathlib import Path; from textdiffusion.data.pipes import copy_pipe, is_pipe;"
        "print(is_pipe('-') and copy_pipe('-', Path(sys.argv[1]), records=False))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, input=TEXT, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).read_text() == TEXT


def test_labelled_texts_through_a_pipe(fifo):
    assert read_labelled(fifo(b"one\ta\ntwo\tb\n")) == [("one", "a"), ("two", "b")]


def test_what_never_ends(tmp_path, fifo, monkeypatch):
    monkeypatch.setattr(pipes, "MAX_SILENCE", 0.05)
    os.mkfifo(tmp_path / "silent")
    with pytest.raises(UserError, match=r"Nothing came through .*silent for 0.05 seconds"):
        prepare(TextConfig(data=str(tmp_path / "silent")), tmp_path / "cache")
    monkeypatch.setattr(pipes, "MAX_BYTES", 1000)
    with pytest.raises(UserError, match=r"gives more than .* Save the text to a file"):
        prepare(TextConfig(data=fifo(TEXT.encode())), tmp_path / "cache")
    with pytest.raises(UserError, match="gives NULs, not text"):
        prepare(TextConfig(data=fifo(bytes(5000))), tmp_path / "cache")
    for device in ("/dev/zero", "/dev/urandom", "/dev/null"):
        with pytest.raises(UserError, match="is a device, not a text"):
            prepare(TextConfig(data=device), tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
