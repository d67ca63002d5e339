import sys

import pytest

from textdiffusion.core.errors import UserError
from textdiffusion.views import gif, palette
from textdiffusion.views.frames import frames
from textdiffusion.views.gif import write_gif

Image = pytest.importorskip("PIL.Image", reason="pillow (extra `plot`) is not installed")


def shown(play, unmask, tokenizer, texts, steps):
    return frames(play(unmask(tokenizer, texts, steps), tokenizer.vocab_size, confidence=1.0), tokenizer)


@pytest.mark.parametrize(("steps", "expected"), [(0, 1), (7, 8), (59, 60), (200, 60)])
def test_frames_and_durations(tmp_path, play, unmask, letters, steps, expected):
    history = unmask(letters, ["hello world"], max(1, steps))[-steps - 1 :]
    write_gif(frames(play(history, letters.vocab_size), letters), tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as picture:
        assert picture.n_frames == expected
        assert expected == 1 or picture.info["loop"] == 0
        durations = []
        for i in range(expected):
            picture.seek(i)
            durations.append(picture.info.get("duration", 0))
    if expected > 1:
        assert durations[-1] - durations[0] == 3000  # the result can be read
        assert len(set(durations[:-1])) == 1


def test_blocks_become_letters(tmp_path, play, unmask, letters):
    write_gif(shown(play, unmask, letters, ["m" * 40], 4), tmp_path / "a.gif")
    hole, sure = (tuple(bytes.fromhex(c[1:])) for c in (gif._HOLE, palette.ON_DARK[-1]))
    with Image.open(tmp_path / "a.gif") as picture:
        height = picture.height
        box = (0, height - 84, picture.width, height - 58)  # between the bar and the legend
        counts = []
        for i in range(5):
            picture.seek(i)
            pixels = {colour: count for count, colour in picture.convert("RGB").crop(box).getcolors(1 << 16)}
            counts.append((pixels.get(hole, 0), pixels.get(sure, 0)))
    holes, letters_ = zip(*counts, strict=True)
    assert list(holes) == sorted(holes, reverse=True)
    assert holes[0] > 0 == holes[-1]
    assert letters_[0] == 0 < letters_[1] < letters_[-1]


def test_only_what_fits_is_drawn(tmp_path, play, unmask, letters):
    for texts, note in (
        (["a"] * 100, "... 82 more rows"),
        (["a" * 64 * 40], "... the rest of this row"),
        (["a" * 64 * 40] * 3, "... the rest of this row and 2 more rows"),
    ):
        frame = list(shown(play, unmask, letters, texts, 1))[-1]
        lines = gif._layout(frame)
        assert len(lines) <= 37
        assert "".join(sign or "" for sign, _ in lines[-1]) == note


def test_size_stays_reasonable(tmp_path, play, unmask, letters):
    """Only what changes is stored again: 20 frames take less than 4 pictures' worth."""
    texts = ["all the world is a stage. " * 10] * 2
    write_gif(shown(play, unmask, letters, texts, 20), tmp_path / "a.gif")
    write_gif(list(shown(play, unmask, letters, texts, 1))[-1:], tmp_path / "last.gif")
    assert (tmp_path / "a.gif").stat().st_size < 4 * (tmp_path / "last.gif").stat().st_size
    assert {path.name for path in tmp_path.iterdir()} == {"a.gif", "last.gif"}


def test_without_the_better_font(tmp_path, play, octets, monkeypatch):
    monkeypatch.setattr(gif, "find_spec", lambda name: None)
    write_gif(frames(play([[[256] * 4], [list(b"a\nb\t")]], 256), octets), tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as picture:
        assert picture.n_frames == 2


def test_without_pillow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(UserError, match=r"pip install 'textdiffusion\[plot\]'"):
        write_gif([], tmp_path / "a.gif")


def test_no_frames(tmp_path):
    with pytest.raises(ValueError, match="no frames"):
        write_gif([], tmp_path / "a.gif")
