"""What is printed shows its control characters and fits the encoding of the output."""

import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.live import Live
from rich.table import Table

from textdiffusion.core.terminal import LAYOUT, TextConsole, encodable, visible

HOSTILE = "\x1b]0;title\x07 \x1b[6n \x9b31m \r \x00 \u202eabc\u2066 \ud800 \x7f"


@given(st.text(st.characters()))
def test_nothing_visible_controls_a_terminal(text: str):
    shown = visible(text, LAYOUT)
    controls = {c for c in shown if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert controls <= {*LAYOUT, "\u200c", "\u200d"}
    assert len(shown) == len(text)


@given(st.text(), st.sampled_from(["ascii", "cp1252", "latin-1", "utf-8", "koi8-r"]))
def test_every_text_can_be_encoded(text: str, encoding: str):
    shown = encodable(visible(text), encoding)
    assert shown.encode(encoding).decode(encoding) == shown
    if encoding == "utf-8":
        assert shown == visible(text)


def test_well_known_symbols_have_substitutes():
    assert encodable("1 ± 2 ░ é", "ascii") == "1 +- 2 _ ?"
    assert encodable("1 ± 2 ░ é", "latin-1") == "1 ± 2 _ é"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_console_shows_whatever_it_is_given(encoding: str):
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    console = TextConsole(file=file, force_terminal=True, width=200)
    table = Table(HOSTILE)
    table.add_row(HOSTILE + "é±")
    console.print(HOSTILE + "é±")
    console.print(table)
    with Live(HOSTILE, console=console, auto_refresh=False) as live:
        live.update(HOSTILE + "é±", refresh=True)
    file.flush()
    written = raw.getvalue()
    for escape in (b"\x1b]0;", b"\x1b[6n", b"\x07", b"\x00", "\x9b31m".encode(), "\u202e".encode(), b"\r "):
        assert escape not in written
    assert b"\x1b[" in written  # rich's own
