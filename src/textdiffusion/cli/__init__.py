"""The command line: `textdiffusion COMMAND ...`. Thin: a command reads its options and calls the package."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import NamedTuple

from ..core.errors import UserError


class Entry(NamedTuple):
    """Where a command is, and what it does."""

    module: str
    class_name: str
    summary: str


COMMANDS = {
    "demo": Entry("demo", "Demo", "Train on Shakespeare for a few minutes, watch text emerge, compare with an n-gram"),
    "train": Entry("train", "Train", "Train a recipe on your own text"),
    "sample": Entry("writing", "Sample", "Write text; watch it emerge, or save it as a page or an animation"),
    "infill": Entry("writing", "Infill", "Fill the gaps of a template: 'The [MASK:5] pear is [MASK:8].'"),
    "train-classifier": Entry("train_classifier", "TrainClassifier", "Train a classifier that steers a run"),
    "convert": Entry("convert", "Convert", "Turn published SEDD, MDLM or RADD weights into a run"),
    "evaluate": Entry("evaluate", "Evaluate", "Measure a run: bits per character, its texts, solved questions"),
    "compare": Entry("compare", "Compare", "Compare runs in one table, or on a page with charts and samples"),
    "frontier": Entry("compare", "Frontier", "Show the effect of samplers, steps and temperatures on a run's texts"),
    "plot": Entry("plot", "Plot", "Plot how well a run predicts at every noise level"),
    "tune": Entry("tune", "Tune", "Choose the noise levels of sampling from a run's own losses"),
    "audit": Entry("audit", "AuditLoss", "Check whether a loss is a bound, on languages known completely"),
    "noise": Entry("noise", "Noise", "Show how the forward process noises a sentence"),
    "recipes": Entry("listing", "Recipes", "List the recipes and their variants"),
    "samplers": Entry("listing", "Samplers", "List the samplers that a run can use"),
    "guides": Entry("listing", "Guides", "List the ways to steer sampling"),
    "doctor": Entry("doctor", "Doctor", "Check this machine, the installation, and a run's files"),
}


def main(args: Sequence[str] | None = None) -> None:
    """Runs a command. Exits with 2 after an error of the user, 1 after an internal error, 130 at Ctrl-C."""
    words = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        _run(words)
    except UserError as error:
        if debug:
            raise
        _fail(str(error), 2)
    except KeyboardInterrupt:
        if debug:
            raise
        _fail("Stopped.", 130)
    except BrokenPipeError:
        # The reader of our output has closed it; flushing at exit must not complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        _fail(f"An internal error: {type(error).__name__}: {error}. --debug shows where it happened.", 1)


def _run(words: list[str]) -> None:
    from .. import __version__
    from .parsing import parse

    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return
    if words[0] == "--version":
        print(f"textdiffusion {__version__}")
        return
    name, options = words[0], words[1:]
    if name not in COMMANDS:
        close = get_close_matches(name, COMMANDS, 1)
        hint = f"did you mean {close[0]}?" if close else f"it can be {', '.join(COMMANDS)}."
        raise UserError(f"There is no command {name!r}; {hint}")
    parse(load(name), options, f"textdiffusion {name}").execute()


def load(name: str) -> type:
    """The class of a command."""
    entry = COMMANDS[name]
    return getattr(import_module(f"{__name__}.{entry.module}"), entry.class_name)


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


def _fail(message: str, code: int) -> None:
    sys.stdout.flush()
    print(f"textdiffusion: {message}", file=sys.stderr)
    sys.exit(code)
