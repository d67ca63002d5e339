"""Changes to a configuration written as text: `backbone.width=384`, sizes, samplers and guides by name. No torch here."""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from collections.abc import Iterable
from dataclasses import replace
from difflib import get_close_matches
from typing import Any, Literal, TypeVar

from ..core.errors import UserError
from ..parts import GuidePart, Part, SamplerPart
from .config import Config, from_dict, to_dict

P = TypeVar("P", bound=Part)

Size = Literal["tiny", "small", "base"]

SIZES: dict[Size, tuple[int, int]] = {"tiny": (128, 4), "small": (384, 6), "base": (768, 12)}
"""Width and depth of the trunk: about 1, 10 and 100 million parameters."""

_ALIASES = {"model": "backbone"}  # what people call the network's settings


def with_size(config: Config, size: Size) -> Config:
    """The configuration with a trunk of that size.

    AdamW's learning rate falls as 1 / width, as wider matrices need; Muon's updates have one size at any width.
    """
    width, depth = SIZES[size]
    training = replace(config.training, lr=config.training.lr * config.backbone.width / width)
    return replace(config, backbone=replace(config.backbone, width=width, depth=depth), training=training)


def apply_overrides(config: Config, settings: Iterable[str]) -> Config:
    """The configuration with fields set by path: `training.lr=1e-3`, `backbone.width=256`, `codec.kind=tokens`.

    A part is set by its name, with settings or without: `process.schedule=cosine`, `process.schedule=cosine:s=0.01`, or
    `process.schedule.kind=cosine`; it starts from its defaults. `model.` is another name for `backbone.`. Raises
    UserError at text without `=`, unknown paths (with the nearest that exists) and values of the wrong type.
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


def sampler(text: str, intended: SamplerPart) -> SamplerPart:
    """The sampler that `NAME` or `NAME:key=value,key=value` means; the intended one's settings stay where it is named.

    Raises UserError at an unknown name or setting.
    """
    return _named(text, kinds_of(SamplerPart), "sampler", intended)


def guide(text: str) -> GuidePart:
    """The guide that `NAME:key=value,key=value` means; a comma before something else than `key=` is part of a value.

    Raises UserError at an unknown name or setting, and where a setting without a default is missing.
    """
    return _named(text, kinds_of(GuidePart), "guide")


def kinds_of(part: type[P]) -> dict[str, type[P]]:
    """All samplers, or guides, by the name a user types."""
    return dict(part.choices())


def _named(text: str, kinds: dict[str, Any], what: str, intended: Part | None = None) -> Any:
    name, _, settings = text.partition(":")
    if (key := name.strip().replace("-", "_")) not in kinds:
        raise UserError(
            f"{what} is {name!r}{_or_else(key, kinds)}"
            if "." in what
            else f"There is no {what} {name!r}{_or_else(key, kinds)}"
        )
    kind = kinds[key]
    fields = dataclasses.fields(kind)
    if type(intended) is kind:
        data = to_dict(intended)
    else:
        data = {"kind": kind.kind} | {
            f.name: to_dict(f.default) for f in fields if f.default is not dataclasses.MISSING
        }
    # Texts and patterns have commas of their own.
    names = "|".join(f.name for f in fields)
    for setting in filter(None, re.split(rf",(?=\s*(?:\w+|(?:{names})\.\w+)\s*=)", settings)):
        field, equals, value = setting.partition("=")
        if not equals:
            asked = fields[0].default is dataclasses.MISSING  # what cannot be left out is most likely meant
            example = f"{fields[0].name}={setting}" if asked else f"{fields[-1].name}={fields[-1].default}"
            raise UserError(f"{setting!r} in the {what} has no value; write it as {name}:{example}.")
        _set(data, kind, field.strip().split("."), value, f"{name}.{field.strip()}")
    missing = [f.name for f in fields if f.name not in data]
    if missing:
        raise UserError(f"The {what} {name} needs {' and '.join(missing)}; write it as {name}:{missing[0]}=...")
    return from_dict(kind, data, name)


def sampler_name(part: SamplerPart) -> str:
    """The name a user types for it."""
    return part.kind


def fields_of(kind: type, prefix: str = "") -> list[str]:
    """Every path below a configuration, as far as it does not depend on a part's kind."""
    paths: list[str] = []
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        nested = _nested(hints[field.name], None)
        paths += fields_of(nested, f"{prefix}{field.name}.") if nested else [f"{prefix}{field.name}"]
    return paths


def _set(data: dict[str, Any], kind: type, keys: list[str], text: str, path: str) -> None:
    key, *rest = keys
    hints = typing.get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind)]
    if key not in names:
        if kind is Config:
            raise UserError(f"The configuration has no {key!r}{_or_else(path, fields_of(Config), names)}")
        owner = path.rpartition(".")[0]
        if not names:
            raise UserError(f"{owner} ({kind.__name__}) has no {key!r}: it has no settings.")
        paths = [f"{owner}.{name}" for name in names]
        raise UserError(f"{owner} ({kind.__name__}) has no {key!r}{_or_else(f'{owner}.{key}', paths, names)}")
    nested = _nested(hints[key], data.get(key))
    if nested and issubclass(nested, Part) and rest in ([], ["kind"]):
        data[key] = to_dict(_named(text, hints[key].choices(), path))
    elif nested and not rest:
        inside = ", ".join(f"{path}.{f.name}" for f in dataclasses.fields(typing.cast(Any, nested))[:3])
        raise UserError(f"{path} is a group of settings; set one of them, such as {inside}.")
    elif nested:
        _set(data[key], nested, rest, text, path)
    elif rest:
        raise UserError(f"{path} does not exist: {path.removesuffix('.' + '.'.join(rest))} is a single value.")
    else:
        data[key] = _parsed(hints[key], text, path)


def _nested(hint: Any, data: Any) -> type | None:
    """The class of a nested configuration, as the data's `kind` says where the field allows several."""
    if not isinstance(hint, type) or not (dataclasses.is_dataclass(hint) or issubclass(hint, Part)):
        return None
    if issubclass(hint, Part) and isinstance(data, dict):
        return hint.choices().get(data.get("kind", ""))
    return hint if dataclasses.is_dataclass(hint) else None


def _parsed(hint: Any, text: str, path: str) -> Any:
    """A value of the type `hint`, which `from_dict` checks again."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return next((a for a in args if str(a) == text), text)
    if origin is tuple:
        return [_parsed(args[0], part.strip(), path) for part in text.strip("[]").split(",") if part.strip()]
    kinds = args if origin in (typing.Union, types.UnionType) else (hint,)
    if types.NoneType in kinds and text.lower() in ("none", "null"):
        return None
    if bool in kinds:
        if text.lower() not in ("true", "false"):
            raise UserError(f"{path} is {text!r}; it must be true or false.")
        return text.lower() == "true"
    if str in kinds:
        return text
    try:
        value = json.loads(text)
    except ValueError:
        value = _number(text)
    # 1e3 is a float to JSON, and a whole number to a person.
    return int(value) if float not in kinds and isinstance(value, float) and value.is_integer() else value


def _number(text: str) -> Any:
    try:
        return float(text)  # 1e-3, .5
    except ValueError:
        return text


def _or_else(word: str, allowed: Iterable[str], listed: Iterable[str] | None = None) -> str:
    """The end of a sentence that refuses `word`: the nearest allowed name, or all of them."""
    names = list(allowed)
    same = [n for n in names if n.rpartition(".")[2] == word.rpartition(".")[2]]
    found = same or get_close_matches(word, names, 1, 0.6)
    return f"; did you mean {found[0]}?" if found else f"; it can be {', '.join(listed or names)}."
