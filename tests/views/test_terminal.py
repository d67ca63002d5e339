import io

import pytest
import torch
from rich.cells import cell_len
from rich.console import Console

from textdiffusion.data.tokenizers.base import Characters
from textdiffusion.views import terminal
from textdiffusion.views.frames import frames
from textdiffusion.views.palette import ON_ANY
from textdiffusion.views.terminal import history, picture, watch


def screen(width: int = 60, height: int = 12, terminal: bool = True) -> Console:
    return Console(
        file=io.StringIO(),
        width=width,
        height=height,
        force_terminal=terminal,
        color_system="truecolor" if terminal else None,
        legacy_windows=False,
        _environ={},
    )


def pipe(width: int = 60) -> Console:
    return screen(width, terminal=False)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_plain_lines_where_there_is_no_terminal(play, unmask, letters):
    console = pipe(width=20)
    steps = list(play(unmask(letters, ["hello world", "other words"], 64), letters.vocab_size))
    assert watch(iter(steps), letters, console=console) is steps[-1]
    lines = written(console).splitlines()
    assert len(lines) == 8 * 2  # long lines are not wrapped
    assert lines[0] == "[step 0/64, noise 100%] 1: " + "░" * 11
    assert lines[-2] == "[step 64/64, noise 0%, 64 network calls] 1: hello world"
    assert "\x1b" not in written(console)
    assert [line.split("/")[0] for line in lines[::2]] == [f"[step {i}" for i in (0, 9, 18, 27, 37, 46, 55, 64)]


def test_a_sampler_that_stops_early_shows_its_last_step(play, unmask, letters):
    console = pipe()
    steps = list(play(unmask(letters, ["hello"], 100), letters.vocab_size))[:51]
    assert history(iter(steps), letters, console=console, count=3) is steps[-1]
    assert [line.split(",")[0] for line in written(console).splitlines()] == ["[step 0/100", "[step 50/100"]
    assert history(iter(steps[:41]), letters, console=console, count=3) is steps[40]
    assert "[step 40/100" in written(console).splitlines()[-1]


def test_a_dumb_terminal_gets_plain_lines(play, letters):
    console = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"})
    watch(play([[letters.encode("ab").tolist()]], letters.vocab_size), letters, console=console)
    assert written(console).strip().endswith("ab")
    assert "\x1b[?25l" not in written(console)


def test_output_that_knows_no_unicode(play):
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    tokenizer = Characters("aé\n")
    a, newline = tokenizer.encode("a\n").tolist()
    e = tokenizer.encode("é").tolist()[0]
    watch(play([[[a, e, newline, 3]]], 3), tokenizer, console=Console(file=file, _environ={}))
    file.flush()
    assert file.buffer.getvalue().splitlines()[0].endswith(b" a??_")


def test_live_view(play, unmask, letters, monkeypatch):
    monkeypatch.setattr(terminal, "_MIN_PAUSE", 0.0)
    monkeypatch.setattr(terminal, "_MAX_DRAWING", float("inf"))
    for style in (*terminal._CHANGED, *terminal.DECIDED):
        monkeypatch.setattr(style, "_ansi", None)  # it keeps the codes of its first terminal
    console = screen()
    steps = list(play(unmask(letters, ["hello world"], 4), letters.vocab_size, confidence=1.0))
    given = torch.zeros(1, 11, dtype=torch.bool)
    given[0, 6:] = True
    assert watch(iter(steps), letters, given, console) is steps[-1]
    output = written(console)
    for i in range(5):
        assert f"step {i}/4" in output
    red, green, blue = bytes.fromhex(ON_ANY[-1][1:])
    assert f"38;2;{red};{green};{blue}mhello" in output.replace("1;38", "38")
    assert "\x1b[4mworld" in output
    assert output.count("\x1b[?25l") == 1  # the cursor is hidden,
    assert output.count("\x1b[?25h") == 1  # and comes back


def test_the_cursor_comes_back_when_sampling_fails(play, letters):
    def broken():
        yield from play([[[0]]], letters.vocab_size)
        raise KeyboardInterrupt

    console = screen()
    with pytest.raises(KeyboardInterrupt):
        watch(broken(), letters, console=console)
    assert written(console).count("\x1b[?25h") == 1


def test_it_does_not_flood(play, unmask, letters, monkeypatch):
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.0005  # two looks a step: 1000 steps a second
        return now

    monkeypatch.setattr(terminal.time, "monotonic", clock)
    drawn = 0

    def counted(*args):
        nonlocal drawn
        drawn += 1
        return picture(*args)

    monkeypatch.setattr(terminal, "picture", counted)
    watch(play(unmask(letters, ["ab"], 2000), letters.vocab_size), letters, console=screen())
    assert 5 < drawn <= 20 * now + 2


def test_no_color_is_honoured(play, unmask, letters):
    console = Console(file=io.StringIO(), force_terminal=True, width=60, height=9, _environ={"NO_COLOR": "1"})
    watch(play(unmask(letters, ["hello"], 2), letters.vocab_size), letters, console=console)
    assert "hello" in written(console)
    assert "38;" not in written(console)


@pytest.mark.parametrize("width", [1, 7, 33, 80])
@pytest.mark.parametrize("height", [1, 4, 9, 24])
@pytest.mark.parametrize("rows", [1, 2, 12])
def test_the_picture_fits(play, letters, width, height, rows):
    console = screen(width, height)
    ids = letters.encode("some words\nwhich go on. " * 6).tolist()
    frame = next(frames(play([[ids] * rows], letters.vocab_size), letters))
    lines = picture(frame, console, rows).plain.split("\n")
    assert len(lines) <= max(3, height - 1)
    assert all(cell_len(line) <= width for line in lines)


def test_rows_that_find_no_room_are_counted(play, unmask, letters):
    frame = next(frames(play([unmask(letters, ["abc"] * 10, 1)[1]], letters.vocab_size), letters))
    lines = picture(frame, screen(height=9), 10).plain.split("\n")
    assert lines[2:] == [" 1 abc", " 2 abc", " 3 abc", " 4 abc", " 5 abc", "... 5 more rows"]
    lines = picture(frame, screen(height=13), 10).plain.split("\n")
    assert lines[-1] == "10 abc"


def test_a_row_higher_than_the_screen_is_cut(play, letters):
    ids = letters.encode("abcdefghij" * 20).tolist()
    for rows, note in ((1, "... the rest of this row"), (3, "... the rest of this row and 2 more rows")):
        frame = next(frames(play([[ids] * rows], letters.vocab_size), letters))
        lines = picture(frame, screen(width=42, height=6), rows).plain.split("\n")
        assert len(lines) == 5
        assert lines[-1] == note


def test_one_row_keeps_its_line_breaks(play, letters):
    def body(text, rows, **size):
        ids = [letters.encode(text).tolist()] * rows
        frame = next(frames(play([ids], letters.vocab_size), letters))
        return picture(frame, screen(**size), rows).plain.split("\n")[2:]

    assert body("ab\ncd\n", 1) == ["ab⏎", "cd⏎"]
    assert body("ab\ncd\n", 2) == ["1 ab⏎cd⏎", "2 ab⏎cd⏎"]
    assert body("a\nb\nc\nd\n", 1, height=6) == ["a⏎b⏎c⏎d⏎"]  # no room for the breaks


def test_wide_characters_are_folded_by_columns(play):
    tokenizer = Characters("漢a")
    wide, a = tokenizer.encode("漢a").tolist()
    frame = next(frames(play([[[wide] * 4 + [a]]], 2), tokenizer))
    assert picture(frame, screen(width=5), 1).plain.split("\n")[2:] == ["漢漢", "漢漢a"]


def test_text_cannot_steer_the_terminal(play, octets):
    console = pipe()
    history(play([[list(b"\x1b]0;x\x07")]], octets.vocab_size), octets, console=console)
    assert written(console).strip().endswith("␛]0;x␇")
    assert "\x1b" not in written(console)


def test_text_is_not_markup(play, octets):
    console = pipe()
    history(play([[list(b"[red]x[/red] :smile:")]], octets.vocab_size), octets, console=console)
    assert "[red]x[/red] :smile:" in written(console)


@pytest.mark.parametrize("console", [pipe(), screen()])
def test_no_steps(letters, console):
    with pytest.raises(ValueError, match="no step"):
        watch(iter(()), letters, console=console)
