"""What `/v1/models` says about a run: what it is, and which samplers, guides and conditions it takes."""

from __future__ import annotations

import dataclasses
import re
import typing
from typing import Any, Literal

from .. import recipes
from ..config.discovery import import_parts
from ..core.errors import UserError
from ..core.registry import Part
from ..guidance.automata import Automaton
from ..guidance.base import GuideConfig
from ..guidance.patterns import literal
from ..guidance.replacement import Replacement
from ..inference.api import TextDiffusion
from ..inference.options import replaces_given
from ..samplers.base import check_compatible
from ..storage.packaged import is_packaged, read_card
from .limits import Limits

_TYPES = {bool: "bool", int: "int", float: "float"}


def facts(run: TextDiffusion, limits: Limits) -> dict[str, Any]:
    """The facts of a run as JSON."""
    text, sampler = run.config.text, run.config.sampler
    bidirectional = run.model.process.bidirectional
    replaced = replaces_given(run.model)
    return {
        "recipe": run.config.recipe,
        "variant": run.config.variant,
        "what": _what(run),
        "parameters": sum(parameter.numel() for parameter in run.model.parameters()),
        "noise": run.config.process.kind,
        "tokenizer": {
            "kind": run.tokenizer.kind,
            "vocab_size": run.tokenizer.vocab_size,
            "concatenates": _concatenates(run),
        },
        "length": text.length,
        "max_length": max_length(run, limits),
        "steps": sampler.steps or text.length,
        "max_steps": limits.steps,
        "max_n": max_rows(run, text.length, limits),
        "sampler": sampler.kind,
        "temperature": sampler.temperature,
        "top_p": sampler.top_p,
        "samplers": [
            {"name": name, "what": summary(type(each)), "default": name == sampler.kind, "settings": settings(each)}
            for name, each in run.samplers().items()
        ],
        "guides": [
            {"name": name, "what": summary(guide), "settings": settings(guide)}
            for name, guide in allowed_guides(run).items()
        ],
        "infills": bidirectional,
        "infill_warning": run.infill_warning,
        "open_gaps": text.model_padding and bidirectional and not replaced,
        "label": list(text.labels) if text.label else None,
        "source": text.has_source,
        "task": run.task.name if run.task is not None else None,
        "chat": run.chat_template is not None,
    }


def max_length(run: TextDiffusion, limits: Limits) -> int:
    """The longest canvas of a run on this server."""
    return limits.length if run.config.text.layout == "stream" else min(limits.length, run.config.text.length)


def max_rows(run: TextDiffusion, length: int, limits: Limits) -> int:
    """The most texts of `length` tokens that one request may have: they are written at once."""
    return min(limits.n, run.chunk_rows(length))


def allowed_guides(run: TextDiffusion) -> dict[str, type[GuideConfig]]:
    """The guides that a request may name: those that the run allows and that read no file of the server."""
    import_parts()
    return {name: guide for name, guide in GuideConfig.choices().items() if _is_allowed(guide, run)}


def _is_allowed(guide: type[GuideConfig], run: TextDiffusion) -> bool:
    fields = [field for field in dataclasses.fields(typing.cast(Any, guide)) if field.default is dataclasses.MISSING]
    if any(field.name == "path" for field in fields):
        return False
    try:
        bound = guide(**{field.name: "a" for field in fields}).bind(run)
        check_compatible(bound, run.model.process)
    except UserError:
        return False
    return not isinstance(bound, Replacement) or replaces_given(run.model)


def settings(part: Any) -> list[dict[str, Any]]:
    """The settings of a part, or of a class of parts: name, type, default, choices."""
    cls = part if isinstance(part, type) else type(part)
    hints = typing.get_type_hints(cls)
    found = []
    for field in dataclasses.fields(cls):
        default = field.default if isinstance(part, type) else getattr(part, field.name)
        if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        entry = {"name": field.name, **_setting(hints[field.name], default)}
        if what := explained(cls, field.name):
            entry["what"] = what
        found.append(entry)
    return found


def explained(cls: type, name: str) -> str:
    """What the docstrings of a part and of its bases say about a setting: the sentences that name it."""
    for base in cls.__mro__:
        text = " ".join((base.__dict__.get("__doc__") or "").replace("\n    -", " .-").split())
        sentences = [each.strip(" .-") for each in re.split(r"(?<=[.)]) (?=[A-Z`.])|(?<=[;:]) ?\.-|\.-", text)]
        if found := [each for each in sentences if f"`{name}`" in each]:
            return " ".join(f"{each}." for each in found)
    return ""


def _setting(hint: Any, default: Any) -> dict[str, Any]:
    required = default is dataclasses.MISSING
    entry: dict[str, Any] = {"type": _TYPES.get(hint, "text"), "required": required}
    if typing.get_origin(hint) is Literal:
        entry |= {"type": "choice", "choices": list(typing.get_args(hint))}
    elif isinstance(hint, type) and issubclass(hint, Part):
        entry |= {"type": "choice", "choices": list(hint.choices())}
        default = default.kind
    if not required:
        entry["default"] = str(default) if default in (float("inf"), float("-inf")) else default
    return entry


def summary(part: type) -> str:
    """The first paragraph of a part's docstring, in one line."""
    return " ".join((part.__doc__ or "").partition("\n\n")[0].split())


def _what(run: TextDiffusion) -> str:
    if run.folder is not None and is_packaged(run.folder):
        return read_card(run.folder).what
    try:
        return recipes.description(run.config.recipe).partition("\n")[0]
    except UserError:
        return ""


def _concatenates(run: TextDiffusion) -> bool:
    """Whether words and patterns can be required."""
    try:
        Automaton.from_pattern(literal("a"), run.tokenizer)
    except UserError:
        return False
    return True
