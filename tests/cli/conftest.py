"""Commands run inside the test process: a process of their own would spend seconds importing torch."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from textdiffusion.cli import main


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def textdiffusion(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs a command line: `textdiffusion("sample", run, "--num", "2")`."""

    def run(*words: object) -> Done:
        code = 0
        try:
            main([str(word) for word in words])
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return run
