"""Parts: frozen dataclasses whose fields are settings, and their JSON.

A part without learned state (a sampler, an objective, a schedule) is one such dataclass with methods: it is both the
settings and the thing that runs. A part with learned state (a codec, a network) is a module, and its settings are a
dataclass in the same file, above it: `@builds(Settings)` ties the two together, and `build` makes the module.

A part is registered when it is defined. Its name in `config.json`, in `--set` and on the command line is its class name
in snake case (`DPMSolver` is `dpm_solver`, `TransformerConfig` is `transformer`) unless it gives one itself:
`class PathPlanning(Sampler, name="p2")`.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from abc import ABC
from collections.abc import Callable
from typing import Any, ClassVar, Literal, TypeVar

from torch import nn

from .errors import UserError

T = TypeVar("T")
M = TypeVar("M", bound=type[nn.Module])


class Part:
    """Settings of one part of a model. Subclasses are frozen dataclasses, found by name below their abstract base.

    A class that lists `ABC` among its bases is abstract: it cannot be chosen by name.
    """

    kind: ClassVar[str] = ""
    module: ClassVar[type[nn.Module] | None] = None
    """The class that `build` makes from these settings (None: the part has no learned state and runs as it is)."""

    def __init_subclass__(cls, *, name: str = "", **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        cls.kind, cls.module = name or snake_case(cls.__name__.removesuffix("Config")), None

    @classmethod
    def choices(cls) -> dict[str, Any]:
        """This class and all below it that can be used, by name, in alphabetical order."""
        choices: dict[str, Any] = {}
        pending: list[Any] = [cls]
        while pending:
            part = pending.pop()
            pending += part.__subclasses__()
            if _is_concrete(part):
                choices[part.kind] = part
        return dict(sorted(choices.items()))


def _is_concrete(part: type) -> bool:
    abstract = ABC in part.__bases__ or inspect.isabstract(part)
    return "__dataclass_fields__" in vars(part) and not abstract


def snake_case(name: str) -> str:
    """`DPMSolver` as `dpm_solver`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def builds(settings: type[Part]) -> Callable[[M], M]:
    """Class decorator: `build` makes this module from these settings."""

    def register(module: M) -> M:
        settings.module = module
        return module

    return register


def build(part: Part, **context: Any) -> Any:
    """The module that a part's settings describe.

    The parameters of the module's `__init__` are filled by name from the settings and from `context` (such as `codec`,
    `process`, `vocab_size`); `config` is `part` itself. Settings that are parts with modules are built first. A module
    that needs more than that has a class method `from_config(part, **context)`.
    """
    module = type(part).module
    if module is None:
        raise TypeError(f"{type(part).__name__} has no module; it runs as it is.")
    if hasattr(module, "from_config"):
        return module.from_config(part, **context)
    fields = {field.name: getattr(part, field.name) for field in dataclasses.fields(typing.cast(Any, part))}
    values = (
        context
        | {"config": part}
        | {
            name: build(value, **context) if isinstance(value, Part) and type(value).module else value
            for name, value in fields.items()
        }
    )
    parameters = inspect.signature(module).parameters
    return module(**{name: values[name] for name in parameters if name in values})


def check_bounds(part: object, **limits: tuple[int | float, int | float | None]) -> None:
    """Raises UserError where a field of `part` is outside its limits (None: no upper limit)."""
    for name, (low, high) in limits.items():
        value = getattr(part, name)
        if not value >= low or (high is not None and not value <= high):  # nan is outside too
            allowed = f"at least {low:g}" if high is None else f"in [{low:g}, {high:g}]"
            raise UserError(f"{type(part).__name__}.{name} is {value:g}; it must be {allowed}.")


def to_dict(value: Any) -> Any:
    """A dataclass as plain JSON values; parts carry their `kind`."""
    if not dataclasses.is_dataclass(value):
        return list(value) if isinstance(value, tuple) else value
    fields = {field.name: to_dict(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return {"kind": value.kind, **fields} if isinstance(value, Part) else fields


def from_dict(cls: type, data: Any, where: str = "config") -> Any:
    """The inverse of `to_dict`. Raises UserError for unknown keys and kinds, and for values of the wrong type."""
    if not isinstance(data, dict):
        raise UserError(f"{where} is {data!r}; it must be a JSON object.")
    data = dict(data)
    if issubclass(cls, Part):
        name, choices = data.pop("kind", None), cls.choices()
        if not isinstance(name, str) or name not in choices:
            raise UserError(f"{where}.kind is {name!r}; it can be {', '.join(choices)}.")
        cls = choices[name]
    hints = typing.get_type_hints(cls)
    hints = {field.name: hints[field.name] for field in dataclasses.fields(typing.cast(Any, cls))}
    if unknown := set(data) - set(hints):
        raise UserError(f"{where} has no {', '.join(sorted(unknown))}; it has {', '.join(hints)}.")
    values = {key: _value(hints[key], value, f"{where}.{key}") for key, value in data.items()}
    try:
        return cls(**values)
    except TypeError as error:
        raise UserError(f"{where} is incomplete: {error}.") from None


_TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text", types.NoneType: "null"}


def _value(hint: Any, value: Any, where: str) -> Any:
    if isinstance(hint, type) and (dataclasses.is_dataclass(hint) or issubclass(hint, Part)):
        return from_dict(hint, value, where)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value not in args:
            raise UserError(f"{where} is {value!r}; it can be {', '.join(map(str, args))}.")
        return value
    if origin in (tuple, list) and isinstance(value, list):
        return origin(_value(args[0], v, where) for v in value)
    if origin is dict and isinstance(value, dict):
        return {key: _value(args[1], v, f"{where}.{key}") for key, v in value.items()}
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and types.NoneType in args:
            return None
        if parts := [each for each in args if dataclasses.is_dataclass(each)]:
            return _value(parts[0], value, where)
        allowed = args
    else:
        allowed = (origin or hint,)
    if float in allowed and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise UserError(f"{where} has more than 300 digits; it must be a smaller number.") from None
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        raise UserError(
            f"{where} is {value!r}; it must be {' or '.join(_TYPE_NAMES.get(t, t.__name__) for t in allowed)}."
        )
    return value
