"""The settings that come with published weights: config.json, or Hydra's config.yaml."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..core.errors import UserError
from ..core.reading import FOREIGN_BITS, parse_json, read_text

T = TypeVar("T", int, float, bool, str)

MAX_SETTINGS_BYTES = 1 << 20
FILES = ("config.json", ".hydra/config.yaml")
REQUIRED: dict[str, tuple[object, ...]] = {  # settings that change the weights' meaning, and values that are known
    "model_type": ("mdlm", "bd3lm"),
    "graph.type": ("absorb",),
    "noise.type": ("loglinear",),
    "backbone": ("dit",),
    "parameterization": ("subs",),
    "cross_attn": (True,),
    "causal": (False,),
}


@dataclass(frozen=True)
class PublishedSettings:
    """The settings in one file. Names are paths, such as `model.length`."""

    path: Path
    data: dict[str, Any]

    def get(self, kind: type[T], *names: str, default: T | None = None) -> T:
        """The value of the first of `names` that is set, else the default.

        Raises UserError if there is neither, or the value has another type.
        """
        for name in names:
            value = self._find(name)
            if value is None:
                continue
            allowed = (int, float) if kind is float else kind
            if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
                raise UserError(f"{self.path}: {name} is {value!r}; it must be of type {kind.__name__}.")
            return kind(value)
        if default is None:
            raise UserError(f"{self.path} has no {' or '.join(names)}.")
        return default

    def check(self) -> None:
        """Raises UserError at a setting that gives the weights a meaning which cannot be converted."""
        for name, allowed in REQUIRED.items():
            if (value := self._find(name)) not in (None, *allowed):
                known = " or ".join(map(repr, allowed))
                raise UserError(f"{self.path}: {name} is {value!r}; only weights with {known} can be converted.")

    def _find(self, name: str) -> Any:
        value: Any = self.data
        for key in name.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        return value


def find_settings(folder: Path) -> PublishedSettings | None:
    """The settings in a folder (None: it has none). Raises UserError if a file cannot be read, or needs PyYAML."""
    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if path is None:
        return None
    try:
        text = read_text(path, limit=MAX_SETTINGS_BYTES)
        data = parse_json(text, str(path), int_bits=FOREIGN_BITS) if path.suffix == ".json" else _yaml(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from None
    return PublishedSettings(path, data if isinstance(data, dict) else {})


def _yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise UserError("Reading Hydra's config.yaml needs PyYAML: pip install 'textdiffusion[hf]'.") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(error) from None
