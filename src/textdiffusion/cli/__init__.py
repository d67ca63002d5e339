"""The command line: `textdiffusion COMMAND ...`. Thin: a command reads its options and calls the package."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

from ..core.errors import UserError

COMMANDS = {
    "demo": "train on Shakespeare for a few minutes, watch text emerge from noise, compare with an n-gram",
    "train": "train a recipe on a text of your own",
    "sample": "write text; watch it emerge, or save it as a page or an animation",
    "infill": "fill the gaps of a template: 'The [MASK:5] pear is [MASK:8].'",
    "train-classifier": "train a classifier on labelled texts, to steer a run with",
    "convert": "make a run of published weights of SEDD, MDLM or RADD",
    "evaluate": "measure a run: bits per character, metrics of its texts, solved questions",
    "compare": "put runs in one table, or in a page with charts and samples",
    "frontier": "what samplers, steps and temperatures do to a run's texts",
    "plot": "draw how well a run predicts at every noise level",
    "tune": "choose the noise levels of sampling from a run's own losses",
    "noise": "show on a sentence what the forward process does",
    "recipes": "list the recipes and their variants",
    "samplers": "list the samplers that a run can use",
    "guides": "list what sampling can be steered by",
    "doctor": "look at this machine, what is installed, and a run's files",
}


def main(args: Sequence[str] | None = None) -> None:
    """Runs a command. Exits with 2 after an error of the user's, 1 after one of ours, 130 at Ctrl-C."""
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
        # Whoever read our output has seen enough; flushing at exit must not complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        _fail(f"An error that should not happen: {type(error).__name__}: {error}. --debug shows where it was.", 1)


def _run(words: list[str]) -> None:
    from .. import __version__
    from .parsing import parse

    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return
    if words[0] == "--version":
        print(f"textdiffusion {__version__}")
        return
    name, rest = words[0], words[1:]
    if name not in COMMANDS:
        close = get_close_matches(name, COMMANDS, 1)
        hint = f"did you mean {close[0]}?" if close else f"it can be {', '.join(COMMANDS)}."
        raise UserError(f"There is no command {name!r}; {hint}")
    parse(import_module(f"{__name__}.{name.replace('-', '_')}").Command, rest, f"textdiffusion {name}").execute()


def _overview() -> str:
    lines = [
        "usage: textdiffusion COMMAND [OPTIONS]",
        "",
        "Text diffusion models: train, sample, control, measure and watch.",
        "",
    ]
    lines += [f"  {name:<16} {what}" for name, what in COMMANDS.items()]
    lines += ["", "textdiffusion COMMAND --help shows its options. --debug shows tracebacks, --version the version."]
    return "\n".join(lines)


def _fail(message: str, code: int) -> None:
    sys.stdout.flush()
    print(f"textdiffusion: {message}", file=sys.stderr)
    sys.exit(code)
