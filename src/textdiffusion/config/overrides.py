"""Changes to a configuration written as text: `backbone.width=384`, sizes, and samplers and guides by name."""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from collections.abc import Iterable
from dataclasses import replace
from difflib import get_close_matches
from typing import Any, Literal

from ..core.errors import UserError
from ..core.registry import Part, from_dict, to_dict
from ..guidance.base import GuideConfig
from ..objectives.base import Likelihood, Objective
from ..samplers.base import Sampler
from .config import Config

Size = Literal["tiny", "small", "base"]

SIZES: dict[Size, tuple[int, int]] = {
    "tiny": (128, 4),  # 0.8 million parameters
    "small": (384, 6),  # 11 million
    "base": (768, 12),  # 85 million
}
"""Width and depth of the backbone; embeddings and n-gram tables come on top."""

MAX_NUMBER = 10**300  # whole numbers below it can be written as floats

_ALIASES = {"model": "backbone"}  # the name that people use for the network's settings


def with_size(config: Config, size: Size) -> Config:
    """The configuration with a backbone of that size.

    AdamW's learning rate falls as 1 / width, as wider matrices need; Muon's updates have one size at any width.
    """
    width, depth = SIZES[size]
    training = replace(config.training, lr=config.training.lr * config.backbone.width / width)
    return replace(config, backbone=replace(config.backbone, width=width, depth=depth), training=training)


def apply_overrides(config: Config, settings: Iterable[str]) -> Config:
    """The configuration with fields set by path: `training.lr=1e-3`, `backbone.width=256`, `codec.kind=tokens`.

    A part is set by its name, with settings or without: `sampler=ddim`, `sampler=ddim:eta=1`, or `sampler.kind=ddim`;
    it starts from its defaults. `model.` is another name for `backbone.`. Raises UserError for text without `=`,
    unknown paths (naming the nearest that exists) and values of the wrong type.
    """
    data = to_dict(config)
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise UserError(f"--set {setting} has no value; write it as backbone.width=384.")
        keys = path.strip().split(".")
        keys[0] = _ALIASES.get(keys[0], keys[0])
        _set(data, Config, keys, text, path)
    return from_dict(Config, data)


def sampler(text: str, default: Sampler) -> Sampler:
    """The sampler that `NAME` or `NAME:key=value,key=value` means; the default sampler keeps its other settings.

    Raises UserError for an unknown name or setting.
    """
    return _part(text, Sampler.choices(), "sampler", default)


def guide(text: str) -> GuideConfig:
    """The guide that `NAME:key=value,key=value` means; a comma not followed by `key=` belongs to the value before it.

    Raises UserError for an unknown name or setting, and where a setting without a default is missing.
    """
    name = text.partition(":")[0]
    if "=" in name:
        raise UserError(f"Write {name.partition('=')[0]}:{_example(name)} (guide {name!r} has no ':').")
    return _part(text, GuideConfig.choices(), "guide")


def loss(text: str) -> Objective | Likelihood:
    """The objective or likelihood that `NAME` or `NAME:key=value,key=value` means.

    Raises UserError for an unknown name or setting.
    """
    return _part(text, Objective.choices() | Likelihood.choices(), "objective or likelihood")


def _example(setting: str) -> str:
    """`word=love` as the settings of the guide `word` that were probably meant: `text=love`."""
    name, _, value = setting.partition("=")
    part = GuideConfig.choices().get(name)
    fields = dataclasses.fields(part) if part else ()
    return f"{fields[0].name if fields else 'KEY'}={value}"


def _part(text: str, choices: dict[str, Any], role: str, default: Part | None = None) -> Any:
    """The part that `NAME:key=value,...` means; `role` is what it is for, or its path in the configuration."""
    name, _, settings = text.partition(":")
    key = name.strip().replace("-", "_")
    if key not in choices:
        problem = f"{role} is {name!r}" if "." in role else f"There is no {role} {name!r}"
        raise UserError(f"{problem}{_suggestion(key, choices)}")
    cls = choices[key]
    fields = dataclasses.fields(cls)
    if type(default) is cls:
        data = to_dict(default)
    else:
        data = {"kind": cls.kind} | {f.name: _default(f) for f in fields if not _is_required(f)}
    names = "|".join(f.name for f in fields)
    # A comma begins a setting where `key=` or `field.key=` follows; texts and patterns contain commas too.
    for setting in filter(None, re.split(rf",(?=\s*(?:\w+|(?:{names})\.\w+)\s*=)", settings)):
        field, equals, value = setting.partition("=")
        if not equals:
            required = _is_required(fields[0])  # then its value was most likely meant
            example = f"{fields[0].name}={setting}" if required else f"{fields[-1].name}={fields[-1].default}"
            raise UserError(f"{setting!r} in the {role} has no value; write it as {name}:{example}.")
        _set(data, cls, field.strip().split("."), value, f"{name}.{field.strip()}")
    missing = [f.name for f in fields if f.name not in data]
    if missing:
        raise UserError(f"The {role} {name} needs {' and '.join(missing)}; write it as {name}:{missing[0]}=...")
    return from_dict(cls, data, name)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _default(field: dataclasses.Field[Any]) -> Any:
    factory = field.default_factory
    return to_dict(field.default if factory is dataclasses.MISSING else factory())


def _paths(cls: type, prefix: str = "") -> list[str]:
    """Every path below a dataclass that exists whatever kinds its parts have."""
    paths: list[str] = []
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        nested = _nested(hints[field.name], None)
        paths += _paths(nested, f"{prefix}{field.name}.") if nested else [f"{prefix}{field.name}"]
    return paths


def _set(data: dict[str, Any], cls: type, keys: list[str], text: str, path: str) -> None:
    """Sets the field at `keys` below `cls`; `path` is how the user wrote all of it."""
    key, *rest = keys
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]
    if key not in names:
        if cls is Config:
            raise UserError(f"The configuration has no {key!r}{_suggestion(path, _paths(Config), names)}")
        owner = path.rpartition(".")[0]
        if not names:
            raise UserError(f"{owner} ({cls.__name__}) has no {key!r}: it has no settings.")
        paths = [f"{owner}.{name}" for name in names]
        raise UserError(f"{owner} ({cls.__name__}) has no {key!r}{_suggestion(f'{owner}.{key}', paths, names)}")
    nested = _nested(hints[key], data.get(key))
    if nested and issubclass(nested, Part) and rest in ([], ["kind"]):
        data[key] = to_dict(_part(text, hints[key].choices(), path))
    elif nested and not rest:
        examples = ", ".join(f"{path}.{f.name}" for f in dataclasses.fields(typing.cast(Any, nested))[:3])
        raise UserError(f"{path} is a group of settings; set one of them, such as {examples}.")
    elif nested:
        _set(data[key], nested, rest, text, path)
    elif rest:
        raise UserError(f"{path} does not exist: {path.removesuffix('.' + '.'.join(rest))} is a single value.")
    else:
        data[key] = _value(hints[key], text, path)


def _nested(hint: Any, data: Any) -> type | None:
    """The class of a nested configuration; where the field allows several parts, `data` tells which by its `kind`."""
    if not isinstance(hint, type) or not (dataclasses.is_dataclass(hint) or issubclass(hint, Part)):
        return None
    if issubclass(hint, Part) and isinstance(data, dict):
        return hint.choices().get(data.get("kind", ""))
    return hint if dataclasses.is_dataclass(hint) else None


def _value(hint: Any, text: str, path: str) -> Any:
    """A value of the type `hint`, which `from_dict` checks again."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return next((a for a in args if str(a) == text), text)
    if origin is tuple:
        return [_value(args[0], item.strip(), path) for item in text.strip("[]").split(",") if item.strip()]
    types_ = args if origin in (typing.Union, types.UnionType) else (hint,)
    if types.NoneType in types_ and text.lower() in ("none", "null"):
        return None
    if bool in types_:
        if text.lower() not in ("true", "false"):
            raise UserError(f"{path} is {text!r}; it must be true or false.")
        return text.lower() == "true"
    if str in types_:
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):  # too many digits, brackets in brackets
        value = _number(text)
    # 1e3 is a float to JSON, and a whole number to a person.
    value = int(value) if float not in types_ and isinstance(value, float) and value.is_integer() else value
    if isinstance(value, int) and abs(value) > MAX_NUMBER:
        raise UserError(f"{path} is {_shortened(text)}; it must be a number below 1e300.")
    return value


def _shortened(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}... ({len(text):,} characters)"


def _number(text: str) -> Any:
    try:
        return float(text)  # 1e-3, .5
    except ValueError:
        return text


def _suggestion(word: str, allowed: Iterable[str], listed: Iterable[str] | None = None) -> str:
    """The end of a sentence that refuses `word`: the nearest allowed name, or all of them."""
    names = list(allowed)
    same_field = [n for n in names if n.rpartition(".")[2] == word.rpartition(".")[2]]
    matches = same_field or get_close_matches(word, names, 1, 0.6)
    return f"; did you mean {matches[0]}?" if matches else f"; it can be {', '.join(listed or names)}."
