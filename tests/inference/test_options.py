"""The options of sampling are listed once, and every way to write text takes them."""

import dataclasses
import inspect
import typing
from typing import Any

import pytest

from textdiffusion import TextDiffusion
from textdiffusion.inference.options import SamplingKwargs, SamplingOptions


def test_keyword_arguments_are_the_fields_of_the_options():
    hints = typing.get_type_hints(SamplingOptions)
    fields = [field.name for field in dataclasses.fields(SamplingOptions)]
    assert typing.get_type_hints(SamplingKwargs) == {name: hints[name] for name in fields}


@pytest.mark.parametrize("method", [TextDiffusion.generate, TextDiffusion.infill, TextDiffusion.stream])
def test_methods_that_write_take_them_by_name(method):
    *_, options = inspect.signature(method).parameters.values()
    assert options.kind is options.VAR_KEYWORD
    assert "SamplingKwargs" in str(options.annotation)


def test_an_unknown_option_is_refused():
    options: dict[str, Any] = {"temprature": 0.5}
    with pytest.raises(TypeError, match="temprature"):
        SamplingOptions(**options)
