"""What a notebook shows: the card of a model and a recorded stream."""

import html
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from textdiffusion import TextDiffusion

MakeRun = Callable[..., Path]


def test_a_model_is_a_short_card(tiny_run: MakeRun):
    model = TextDiffusion.from_pretrained(tiny_run("mdlm"))
    lines = repr(model).splitlines()
    assert lines[0] == "TextDiffusion"
    assert len(lines) <= 8
    size = sum(p.numel() for p in model.model.parameters())
    for part in (
        "mdlm (default)",
        f"{size:,}",
        f"characters, {model.tokenizer.vocab_size} tokens",
        "windows of 32 tokens",
        "unmasking, 6 steps",
    ):
        assert part in repr(model), part
    assert "tensor" not in repr(model)


def test_a_recording_plays_itself(tiny_run: MakeRun, tmp_path: Path):
    model = TextDiffusion.from_pretrained(tiny_run("mdlm"))
    recording = model.record(num=2, length=8, steps=3, seed=4)
    assert list(recording.texts) == model.generate(num=2, length=8, steps=3, seed=4)
    assert repr(recording) == "\n\n".join(recording.texts)
    assert [frame.index for frame in recording.frames] == [0, 1, 2, 3]
    shown = recording._repr_html_()
    (source,) = re.findall(r'srcdoc="([^"]*)"', shown)
    page = html.unescape(source)
    assert page == recording.save_html(tmp_path / "a.html").read_text(encoding="utf-8")
    assert not re.search(r'(?:src|href)="?http', page)  # self-contained
    assert 'sandbox="allow-scripts"' in shown


def test_a_recorded_answer_is_a_grid(packaged: Path):
    model = TextDiffusion.from_pretrained("sudoku")
    puzzle = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
    recording = model.record(batch=model.infill_batch(puzzle), steps=2)
    assert "".join(cell.text for cell in recording.frames[-1].rows[0]).count("\n") == 9


def test_recordings_are_saved_as_animations(tiny_run: MakeRun, tmp_path: Path):
    pytest.importorskip("PIL")
    model = TextDiffusion.from_pretrained(tiny_run("mdlm"))
    assert model.record(length=8, steps=2).save_gif(tmp_path / "a.gif").read_bytes().startswith(b"GIF8")
