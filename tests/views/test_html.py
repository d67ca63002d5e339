import base64
import dataclasses
import gzip
import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textdiffusion.core.errors import UserError
from textdiffusion.samplers.base import Step
from textdiffusion.views import palette
from textdiffusion.views.frames import Cell, Frame, State, frames
from textdiffusion.views.html import write_html

VOID = {"meta", "input"}


class Page(HTMLParser):
    """What the page holds; fails where an element is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.texts: dict[str, str] = {}
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts[self.open[-1]] = self.texts.get(self.open[-1], "") + data


def stored(path: Path) -> dict:
    packed = re.search(r'id="data">([^<]*)</script>', path.read_text(encoding="utf-8"))
    assert packed
    return json.loads(gzip.decompress(base64.b64decode(packed[1])))


def replayed(data: dict) -> list[list[list[tuple[str, int, int]]]]:
    """(text, level, kind) of each position of each row of each frame, by applying the changes in order."""
    rows: list[list[int]] = []
    result = []
    for _, _, _, changes in data["frames"]:
        for row, *pairs in changes:
            while len(rows) <= row:
                rows.append([])
            at = 0
            for skipped, code in zip(pairs[::2], pairs[1::2], strict=True):
                at += skipped
                rows[row] += [-1] * (at + 1 - len(rows[row]))
                rows[row][at] = code
                at += 1
        levels = data["levels"]
        result.append(
            [[(data["texts"][c // 3 // levels], c // 3 % levels, c % 3) for c in row if c >= 0] for row in rows]
        )
    return result


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 5), st.integers(1, 12))
def test_changes_reproduce_every_frame(tmp_path_factory, play, letters, seed, count, rows, length):
    draw = random.Random(seed)
    hole = letters.vocab_size
    history = [[[draw.randint(0, hole) for _ in range(length)] for _ in range(rows)]]
    for _ in range(count - 1):
        keep = draw.random()
        history.append([[i if draw.random() < keep else draw.randint(0, hole) for i in row] for row in history[-1]])
    steps = list(play(history, hole, confidence=draw.random()))
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_html(frames(steps, letters), path, "title", {})
    data = stored(path)
    shown = replayed(data)
    ids = {letters.token_text(i): i for i in range(hole)}
    assert [[[ids.get(text, hole) for text, _, _ in row] for row in frame] for frame in shown] == history
    level = palette.level(round(max(float(step.confidence.max()) for step in steps), 2))
    for frame in shown:
        for row in frame:
            assert all((text, shade, kind) == ("", 0, 1) or (shade, kind) == (level, 0) for text, shade, kind in row)
    assert data["total"] == count - 1
    assert [frame[0] for frame in data["frames"]] == list(range(count))
    assert [frame[2] for frame in data["frames"]] == [float(i) for i in range(count)]


def test_rows_may_grow_and_shrink(tmp_path):
    def frame(index: int, *rows: str) -> Frame:
        return Frame(index, 3, 0.5, 0.0, tuple(tuple(Cell(c, 1.0, State.GIVEN) for c in row) for row in rows))

    told = [("ab",), ("abc", "x"), ("a",), ("abd", "xyz")]
    write_html([frame(i, *rows) for i, rows in enumerate(told)], tmp_path / "page.html", "", {})
    shown = [[[text for text, _, _ in row] for row in frame] for frame in replayed(stored(tmp_path / "page.html"))]
    assert shown == [[["a", "b"]], [["a", "b", "c"], ["x"]], [["a"], []], [["a", "b", "d"], ["x", "y", "z"]]]


HOSTILE = ["</script><script>alert(1)</script>", "<!--", "{{DATA}}", "&amp;", "\u2028", "\x00\x1b\x07", "\ud800", "\\"]


@settings(max_examples=40)
@given(st.lists(st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(), max_size=6)), min_size=1, max_size=6))
def test_any_text_is_data(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("page") / "page.html"
    cells = tuple(Cell(text, 1.0, State.DECIDED) for text in texts)
    write_html([Frame(0, 0, 0.0, 0.0, (cells,))], path, "".join(texts), {texts[0]: texts[-1]})
    page = Page(path.read_text(encoding="utf-8"))
    plain = path.with_name("plain.html")
    write_html([Frame(0, 0, 0.0, 0.0, ((Cell("a", 1.0, State.DECIDED),),))], plain, "a", {"a": "a"})
    assert page.tags == Page(plain.read_text(encoding="utf-8")).tags
    assert [len(row) for row in replayed(stored(path))[0]] == [len(texts)]


def test_the_page_is_whole(tmp_path, play, unmask, letters):
    write_html(
        frames(play(unmask(letters, ["hello\nworld"], 3), letters.vocab_size), letters),
        tmp_path / "page.html",
        "A <title>",
        {"recipe": "mdlm", "seed": 0},
    )
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.texts["title"] == "A <title>"
    assert page.texts["dt"] == "recipe:seed:"
    assert page.texts["dd"] == "mdlm0"
    assert "hello\nworld" in text  # without JavaScript
    assert not re.search(r"https?:|//[a-z]|@import|url\(", text)
    assert not any({"src", "href"} & set(attrs) for _, attrs in page.tags)
    assert "{{" not in text
    labels = {attrs.get("aria-label") for _, attrs in page.tags}
    assert {"Step", "Speed", "One step back", "One step forward"} <= labels
    assert "prefers-reduced-motion" in text
    assert "prefers-color-scheme: dark" in text
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_the_same_frames_give_the_same_page(tmp_path, play, unmask, letters):
    for name in ("a", "b"):
        steps = play(unmask(letters, ["hello"], 3), letters.vocab_size)
        write_html(frames(steps, letters), tmp_path / name, "title", {})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_noise_is_kept_in_both_directions(tmp_path, play, letters):
    steps: list[Step] = [dataclasses.replace(step, t=1 - step.t) for step in play([[[0]], [[29]], [[29]]], 29)]
    write_html(frames(steps, letters), tmp_path / "page.html", "", {})
    assert [frame[1] for frame in stored(tmp_path / "page.html")["frames"]] == [0.0, 0.5, 1.0]


def test_a_failure_leaves_the_old_page(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("old")

    def broken():
        yield Frame(0, 1, 1.0, 0.0, ())
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_html(broken(), path, "", {})
    with pytest.raises(ValueError, match="no frames"):
        write_html([], path, "", {})
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(UserError, match=r"missing/page\.html: No such file"):
        write_html([Frame(0, 1, 1.0, 0.0, ())], tmp_path / "missing" / "page.html", "", {})


def test_long_runs_stay_small(tmp_path, play, letters):
    """64 steps of 4 rows x 64 in which a quarter of all positions changes at every step: the worst case by far."""
    draw = random.Random(0)
    rows = [[draw.randrange(letters.vocab_size) for _ in range(64)] for _ in range(4)]
    history = [rows]
    for _ in range(63):
        history.append([[draw.randrange(29) if draw.random() < 0.25 else i for i in row] for row in history[-1]])
    path = tmp_path / "page.html"
    write_html(frames(play(history, 29), letters), path, "", {})
    changes = 64 * 4 * 64 / 4
    assert path.stat().st_size < 3 * changes + 20_000
