"""What the makers of published weights wrote down beside them: config.json, or Hydra's config.yaml. No torch here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..core.errors import UserError

T = TypeVar("T", int, float, bool, str)

FILES = ("config.json", ".hydra/config.yaml")
ONLY = {  # settings under which the weights mean something else, and the value that can be read
    "model_type": "mdlm",
    "graph.type": "absorb",
    "noise.type": "loglinear",
    "backbone": "dit",
    "parameterization": "subs",
}


@dataclass(frozen=True)
class Settings:
    """The settings of one file. Names are paths: `model.length`."""

    path: Path
    data: dict[str, Any]

    @property
    def foreign(self) -> bool:
        """Whether these are other makers' settings, not those of a run of this package."""
        return "schema" not in self.data and any(name in self.data for name in ("graph", "model_type", "backbone"))

    def get(self, kind: type[T], *names: str, default: T | None = None) -> T:
        """The first of `names` that is there. Raises UserError where none is (and no default), or of another type."""
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
        """Raises UserError where a setting gives the weights a meaning that is not known here."""
        for name, allowed in ONLY.items():
            if (value := self._find(name)) not in (None, allowed):
                raise UserError(f"{self.path}: {name} is {value!r}; weights can be converted where it is {allowed!r}.")

    def _find(self, name: str) -> Any:
        value: Any = self.data
        for key in name.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        return value


def settings_in(folder: Path) -> Settings | None:
    """The settings in a folder, or None. Raises UserError where a file cannot be read, or needs PyYAML."""
    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text) if path.suffix == ".json" else _yaml(text)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from None
    return Settings(path, data if isinstance(data, dict) else {})


def _yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise UserError("Reading Hydra's config.yaml needs PyYAML: pip install 'textdiffusion[hf]'.") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(error) from None
