"""A short form of `benchmarks/fuzz.py`: whatever a user writes is read, or refused with a sentence."""

import importlib.util
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).parents[1] / "benchmarks/fuzz.py"

spec = importlib.util.spec_from_file_location("fuzz", PATH)
assert spec is not None
assert spec.loader is not None
fuzz = importlib.util.module_from_spec(spec)
sys.modules["fuzz"] = fuzz
spec.loader.exec_module(fuzz)


@pytest.mark.parametrize("target", fuzz.targets(), ids=lambda target: target.name)
def test_inputs_are_read_or_refused(target):
    target.run(40)
    assert not target.failures
    assert target.outcomes["refused"] > 0


def test_what_fails_is_kept():
    def fails(text: str) -> None:
        raise ZeroDivisionError(text)

    target = fuzz.Target("failing", fails, lambda: fuzz.texts_of("a"))
    target.run(10)
    assert target.outcomes["failed"] == 10
    assert [key.partition(" at ")[0] for key in target.failures] == ["ZeroDivisionError"]
