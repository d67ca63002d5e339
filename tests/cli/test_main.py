"""What every command shares: help, errors, exit codes."""

import io
import subprocess
import sys
import time
from pathlib import Path

import pytest

from textdiffusion import cli
from textdiffusion.cli import COMMANDS, main
from textdiffusion.core.errors import UserError

FAILURES = [
    (["trian"], "There is no command 'trian'; did you mean train?"),
    (["xyzzy"], "There is no command 'xyzzy'; it can be demo, train"),
    (["sample"], "RUN is missing. textdiffusion sample --help"),
    (["train", "mdlm"], "--data and --out are missing. textdiffusion train --help lists the options."),
    (["sample", "run", "--nmu", "3"], "There is no option --nmu; did you mean --num?"),
    (["sample", "run", "--num", "three"], "--num is 'three'; it must be a whole number."),
    (["sample", "run", "--device", "tpu"], "--device is 'tpu'; it can be auto, cpu, cuda or mps."),
    (["sample", "run", "more"], "Unexpected argument: more."),
    (["sample", "run", "--temperature", "hot"], "--temperature is 'hot'; it must be a number."),
    (["sample", "run", "--num"], "--num needs a value."),
    (["sample", "nowhere", "--num", "0"], "--num must be at least 1."),
    (["compare", "run", "--steps", "4", "x"], "--steps is '4', 'x'; each must be a whole number."),
    (["compare"], "RUN is missing"),
    (["sample", "nowhere"], "No folder nowhere"),
    (["sample", "nowhere", "--steps", "-1"], "--steps is -1"),
    (["sample", "nowhere", "--json", "--watch"], "exclude each other"),
    (["sample", "nowhere", "--html", "no/such/folder/x.html"], "there is no folder"),
    (["infill", "nowhere", "[MASK]"], "No folder nowhere"),
    (["evaluate", "nowhere", "--draws", "1"], "--draws is 1"),
    (["evaluate", "nowhere", "--target-error", "0"], "must be above 0"),
    (["noise", ""], "The text is empty."),
    (["noise", "abc", "--t", "1.5"], "t is 1.5"),
    (["train", "mldm", "--data", "x", "--out", "y"], "There is no recipe 'mldm'; did you mean mdlm?"),
    (["train", "mdlm", "--data", "x", "--out", "y", "--variant", "v"], "mdlm has no variant 'v'; it has default"),
    (["train", "mdlm", "--data", "x", "--out", "y", "--set", "backbone.widht=3"], "did you mean backbone.width?"),
    (["train", "mdlm", "--data", "x", "--out", "y", "--set", "width=3"], "did you mean backbone.width?"),
    (["train", "mdlm", "--data", "x", "--out", "y", "--set", "backbone.width"], "has no value"),
    (["train", "mdlm", "--data", "x", "--out", "y", "--steps", "-2"], "--steps is -2"),
    (["demo", "--minutes", "0"], "--minutes is 0"),
    (["demo", "--minutes", "2"], "--minutes has an effect only with --train"),
    (["demo", "--train", "--html", "x.html"], "--html has an effect only without --train"),
    (["models", "hamlet"], "There is no model 'hamlet'"),
    (["convert", "nowhere", "--out", "x"], "There is no folder or file nowhere"),
]


@pytest.mark.parametrize(("words", "says"), FAILURES, ids=[" ".join(words) for words, _ in FAILURES])
def test_errors_are_a_sentence_or_two(textdiffusion, words: list[str], says: str):
    done = textdiffusion(*words)
    assert done.code == 2
    assert done.out == ""
    assert says in done.err
    assert done.err.startswith("textdiffusion: ")
    assert done.err.count("\n") == 1
    assert "Traceback" not in done.err


def test_errors_read_the_same_where_the_terminal_has_no_unicode(monkeypatch: pytest.MonkeyPatch):
    for encoding in ("ascii", "utf-8"):
        monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
        with pytest.raises(UserError, match=r"^--data and --out are missing\. "):
            main(["train", "mdlm", "--debug"])
        with pytest.raises(UserError, match=r"^--num is 'x'; it must be a whole number\.$"):
            main(["sample", "run", "--num", "x", "--debug"])


def test_debug_shows_where():
    with pytest.raises(UserError):
        main(["sample", "nowhere", "--debug"])


def test_an_error_of_ours_is_told_as_one(textdiffusion, monkeypatch: pytest.MonkeyPatch):
    def broken(words: list[str]) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(cli, "_run", broken)
    done = textdiffusion("recipes")
    assert done.code == 1
    assert "An internal error: ZeroDivisionError: oh. --debug" in done.err
    with pytest.raises(ZeroDivisionError):
        main(["--debug"])


def test_an_interrupt_is_no_traceback(textdiffusion, monkeypatch: pytest.MonkeyPatch):
    def stopped(words: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", stopped)
    assert textdiffusion("recipes").code == 130


def test_the_overview_names_every_command(textdiffusion):
    done = textdiffusion()
    assert done.code == 0
    assert done == textdiffusion("--help")
    assert all(f"  {name} " in done.out for name in COMMANDS)
    files = {path.stem for path in Path(cli.__file__).parent.glob("*.py")}
    shared = {"__init__", "measuring", "output", "parsing", "tour"}
    assert files - shared == {entry.module for entry in COMMANDS.values()}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(textdiffusion, name: str):
    done = textdiffusion(name, "--help")
    assert done.code == 0
    assert f"usage: textdiffusion {name}" in done.out
    doc = cli.load(name).__doc__
    assert doc
    assert doc.splitlines()[0].split(",")[0][:40] in " ".join(done.out.split())


def test_help_is_quick_and_without_torch():
    """Under half a second of this process's own time; the clock of a busy machine would be a bad judge."""
    code = (
        "import sys, time, textdiffusion.cli as cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
        "print(time.process_time(), file=sys.stderr)\n"
    )
    for words in (["--help"], ["train", "--help"], ["sample", "--help"]):
        start = time.monotonic()
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
        assert time.monotonic() - start < 60
        assert float(done.stderr.splitlines()[-1]) < 0.5


def test_the_version(textdiffusion):
    from textdiffusion import __version__

    assert textdiffusion("--version").out == f"textdiffusion {__version__}\n"
