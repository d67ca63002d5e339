"""What commands print: in any encoding, and without the control characters of texts, names and errors."""

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from textdiffusion.cli import main

MakeRun = Callable[..., Path]

HOSTILE = "\x1b]0;owned\x07\x1b[6n\x9b2J\u202eé░"
ESCAPES = ("\x1b]0;", "\x1b[6n", "\x07", "\x9b", "\u202e")
SMALL = ("backbone.width=64", "backbone.depth=1", "text.length=32", "training.eval_windows=2", "sampler.steps=2")


class Stream(io.TextIOWrapper):
    """An output in an encoding, perhaps a terminal."""

    def __init__(self, encoding: str, terminal: bool) -> None:
        self.raw_bytes = io.BytesIO()
        super().__init__(self.raw_bytes, encoding=encoding)
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal

    @property
    def text(self) -> str:
        self.flush()
        return self.raw_bytes.getvalue().decode(self.encoding)


@pytest.fixture
def run_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Runs a command with outputs in an encoding; returns its exit code and all that it printed."""

    def run(encoding: str, *words: object, terminal: bool = False) -> tuple[int, str]:
        out, err = Stream(encoding, terminal), Stream(encoding, terminal)
        code = 0
        with monkeypatch.context() as patch:
            patch.setattr("sys.stdout", out)
            patch.setattr("sys.stderr", err)
            patch.setenv("TERM", "xterm-256color")
            try:
                main([str(word) for word in words])
            except SystemExit as end:
                code = int(end.code or 0)
            return code, out.text + err.text

    return run


def commands(run: Path, folder: Path) -> list[tuple[object, ...]]:
    """Each command, small."""
    template, data = "The [MASK:3] pear é.", folder / "é.txt"
    data.write_text("The red pear is é ±.\n" * 60, encoding="utf-8")
    few = ("--num", 2, "--temperatures", 1)
    return [
        ("--help",),
        ("--version",),
        ("sample", "--help"),
        ("recipes",),
        ("recipes", "cdcd"),
        ("guides",),
        ("samplers", run),
        ("sample", run, "--num", 2),
        ("sample", run, "--num", 1, "--json"),
        ("sample", run, "--num", 2, "--watch"),
        ("infill", run, template, "--num", 1),
        ("noise", "é±", "--t", 0, 0.5, 1),
        ("evaluate", run, "--draws", 2, "--windows", 2, "--num", 2),
        ("compare", run, "--draws", 2, "--windows", 2, "--levels", 0, *few),
        ("frontier", run, *few),
        ("doctor", run),
        ("train", "mdlm", "--data", data, "--out", folder / "é", "--steps", 2, "--batch-size", 2, "--set", *SMALL),
        ("sample", folder / "é", "--num", 2),
        ("sample", "no/such/é"),
        ("sample", run, "--é"),
    ]


def test_every_command_prints_in_any_encoding(run_in, tiny_run: MakeRun, tmp_path: Path):
    for number, words in enumerate(commands(tiny_run("mdlm", "text.test_fraction=0.3"), tmp_path)):
        code, printed = run_in(("ascii", "cp1252")[number % 2], *words)
        is_refused = "é" in str(words[-1]) and words[0] != "infill"
        assert code == (2 if is_refused else 0), printed
        assert "internal error" not in printed
        assert printed


def test_no_text_steers_the_terminal(run_in, tiny_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("textdiffusion.inference.api.TextDiffusion.decode", lambda self, *_: [HOSTILE] * 2)
    monkeypatch.setattr("textdiffusion.data.tokenizers.base.Characters.decode", lambda self, ids: HOSTILE)
    run = tiny_run("mdlm", "text.test_fraction=0.3")
    named = shutil.copytree(run, tmp_path / "named")
    config = json.loads((run / "config.json").read_text())
    (named / "config.json").write_text(json.dumps(config | {"recipe": HOSTILE}))
    measured = ("--draws", 2, "--windows", 2, "--num", 0)
    for words in [
        ("sample", run, "--num", 2),
        ("sample", run, "--num", 2, "--rank"),
        ("sample", run, "--num", 2, "--watch"),
        ("sample", HOSTILE),
        ("sample", run, "--guide", HOSTILE),
        ("infill", run, HOSTILE),
        ("noise", HOSTILE, "--t", 0),
        ("evaluate", named, *measured),
        ("doctor", named),
        (HOSTILE,),
        ("train", HOSTILE, "--data", "x", "--out", "y"),
    ]:
        for terminal in (True, False):
            _, printed = run_in("utf-8", *words, terminal=terminal)
            if terminal or words[:2] != ("sample", run):  # texts in a pipe are data
                assert not [escape for escape in ESCAPES if escape in printed], (words, printed)
            assert printed


def test_json_is_ascii(textdiffusion, tiny_run: MakeRun, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("textdiffusion.inference.api.TextDiffusion.decode", lambda self, *_: [HOSTILE])
    done = textdiffusion("sample", tiny_run("mdlm"), "--num", 1, "--json")
    assert done.out.isascii()
    assert json.loads(done.out)["texts"] == [HOSTILE]
    assert not [escape for escape in ESCAPES if escape in done.out]


def process(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own."""
    command = [sys.executable, "-m", "textdiffusion", *words]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)


def test_arguments_have_accents_in_the_posix_locale():
    locale = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = process("noise", "ab é", "--t", "0", "--json", **locale)
    assert (done.returncode, json.loads(done.stdout)) == (0, [{"t": 0.0, "text": "ab é"}])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_full_disk_is_an_error():
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "textdiffusion", "recipes"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "textdiffusion: Cannot write the output: No space left on device.\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("sample", "a" * 5000), "File name too long"),
        (("train", "mdlm", "--data", "x", "--out", "a\0b"), "NUL character"),
        (("sample", "\udcff"), "is not text in UTF-8"),
    ],
)
def test_arguments_that_no_file_can_have(textdiffusion, words: tuple[str, ...], says: str):
    done = textdiffusion(*words)
    assert (done.code, done.out) == (2, "")
    assert says in done.err
    assert len(done.err) < 400
