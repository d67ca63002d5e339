"""The command line: `textdiffusion COMMAND ...`. Thin: a command reads its options and calls the package."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import NamedTuple, NoReturn

from ..core.errors import UserError
from ..core.terminal import never_fail_to_encode, visible


class Entry(NamedTuple):
    """Where a command is, and what it does."""

    module: str
    class_name: str
    summary: str


MAX_MESSAGE = 1000  # characters of an error: values that it names can be long

COMMANDS = {
    "demo": Entry("demo", "Demo", "See what the models can do, in a minute and without training"),
    "train": Entry("train", "Train", "Train a recipe on your own text"),
    "plan": Entry("plan", "Plan", "Show the memory that training takes, on one GPU and on many"),
    "sample": Entry("sample", "Sample", "Write text; watch it emerge, or save it as a page or an animation"),
    "infill": Entry("writing", "Infill", "Fill the gaps of a template: 'The [MASK:5] pear is [MASK:8].'"),
    "revise": Entry("writing", "Revise", "Revise a text: put noise on it and take it off again"),
    "train-classifier": Entry("train_classifier", "TrainClassifier", "Train a classifier that steers a run"),
    "distill": Entry("distill", "Distill", "Distil a run into one that writes in fewer steps"),
    "convert": Entry("convert", "Convert", "Turn published weights into a run: LLaDA, Dream, SDAR, BERT, SEDD, MDLM"),
    "evaluate": Entry("evaluate", "Evaluate", "Measure a run: bits per character, its texts, solved questions"),
    "compare": Entry("compare", "Compare", "Compare runs in one table, or on a page with charts and samples"),
    "frontier": Entry("compare", "Frontier", "Show the effect of samplers, steps and temperatures on a run's texts"),
    "plot": Entry("plot", "Plot", "Plot how well a run predicts at every noise level"),
    "tune": Entry("tune", "Tune", "Choose the noise levels of sampling from a run's own losses"),
    "audit": Entry("audit", "AuditLoss", "Check whether a loss is a bound, on languages known completely"),
    "noise": Entry("noise", "Noise", "Show how the forward process noises a sentence"),
    "models": Entry("models", "Models", "List the trained models that come with the package"),
    "recipes": Entry("listing", "Recipes", "List the recipes and their variants"),
    "samplers": Entry("listing", "Samplers", "List the samplers that a run can use"),
    "guides": Entry("listing", "Guides", "List the ways to steer sampling"),
    "studio": Entry("studio", "Studio", "Write, watch, revise and compare in the browser"),
    "serve": Entry("serve", "Serve", "Serve runs over HTTP, with routes shaped as those of OpenAI"),
    "doctor": Entry("doctor", "Doctor", "Check this machine, the installation, and a run's files"),
}


def main(args: Sequence[str] | None = None) -> None:
    """Runs a command. Exits with 2 after an error of the user, 1 after an internal error, 130 at Ctrl-C."""
    never_fail_to_encode()
    words = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    _replace_unprintable()
    try:
        _run([_as_text(word) for word in words])
        sys.stdout.flush()
    except UserError as error:
        if debug:
            raise
        _fail(str(error), 2)
    except KeyboardInterrupt:
        if debug:
            raise
        _fail("Stopped.", 130)
    except BrokenPipeError:
        _discard_output()
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        if sentence := _of_the_machine(error):
            _fail(sentence, 2)
        _fail(f"An internal error: {type(error).__name__}: {error}. --debug shows where it happened.", 1)


def _run(words: list[str]) -> None:
    from .. import __version__
    from .output import print_line
    from .parsing import parse

    if not words or words[0] in ("-h", "--help", "help"):
        print_line(_overview())
        return
    if words[0] == "--version":
        print_line(f"textdiffusion {__version__}")
        return
    name, options = words[0], words[1:]
    if name not in COMMANDS:
        close = get_close_matches(name, COMMANDS, 1)
        hint = f"did you mean {close[0]}?" if close else f"it can be {', '.join(COMMANDS)}."
        raise UserError(f"There is no command {name!r}; {hint}")
    parse(load(name), options, f"textdiffusion {name}").execute()


def _as_text(word: str) -> str:
    """An argument as text. Where the locale is not UTF-8, Python leaves the bytes of other characters as surrogates."""
    if "\0" in word:
        raise UserError("An argument contains a NUL character; remove it.")
    try:
        return os.fsencode(word).decode("utf-8") if any("\ud800" <= c <= "\udfff" for c in word) else word
    except ValueError:
        raise UserError(f"The argument {visible(word)!r} is not text in UTF-8.") from None


def _of_the_machine(error: Exception) -> str | None:
    """A sentence for what files, memory and locale refuse (None: another error)."""
    if isinstance(error, OSError) and error.strerror:
        names = [str(name) for name in (error.filename, error.filename2) if name]
        subject = f"Cannot use {' and '.join(names)}" if names else "Cannot write the output"
        return f"{_shortened(subject)}: {error.strerror}."
    if isinstance(error, UnicodeEncodeError):
        return f"This machine's locale cannot name {_shortened(error.object)!r}; set PYTHONUTF8=1."
    if isinstance(error, MemoryError) or re.search(r"not enough memory|out of memory|can't allocate", str(error)):
        amount = re.search(r"allocate ([\d.]+ \w+)", str(error))
        figure = f" ({amount[1]} more were asked for)" if amount else ""
        return f"The memory is not enough{figure}; use a smaller batch, length, network or number of texts."
    return None


def _shortened(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}... ({len(text):,} characters)"


def load(name: str) -> type:
    """The class of a command."""
    entry = COMMANDS[name]
    return getattr(import_module(f"{__name__}.{entry.module}"), entry.class_name)


def _replace_unprintable() -> None:
    """Where the terminal's encoding lacks a character, prints a question mark instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace" if stream is sys.stdout else "backslashreplace")


def _overview() -> str:
    lines = [
        "usage: textdiffusion COMMAND [OPTIONS]",
        "",
        "Text diffusion models: train, sample, control, measure and watch.",
        "",
    ]
    lines += [f"  {name:<16} {entry.summary}" for name, entry in COMMANDS.items()]
    lines += [
        "",
        "textdiffusion COMMAND --help lists the options of a command, --version prints the version, and --debug",
        "shows the traceback of an error.",
    ]
    return "\n".join(lines)


def _fail(message: str, code: int) -> NoReturn:
    from .output import note

    try:
        sys.stdout.flush()
    except OSError:
        _discard_output()
    note(f"textdiffusion: {message if len(message) <= MAX_MESSAGE else message[:MAX_MESSAGE] + ' ...'}")
    sys.exit(code)


def _discard_output() -> None:
    """Sends what is still to be written nowhere, so that flushing at exit does not complain again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
