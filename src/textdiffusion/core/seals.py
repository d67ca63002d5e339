"""JSON with a checksum of itself, so that a flipped bit or an edit is noticed."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from .errors import UserError

KEY = "sha256"


def seal(data: dict[str, Any]) -> dict[str, Any]:
    """The object with its checksum under the key `sha256`."""
    return {**data, KEY: _checksum(data)}


def unseal(data: dict[str, Any], where: str, *, required: bool = False) -> dict[str, Any]:
    """The object without its checksum; `where` names it in errors.

    Raises UserError if the checksum is wrong, or if there is none although it is `required`: earlier versions wrote
    some files without.
    """
    content = {key: value for key, value in data.items() if key != KEY}
    if (KEY in data or required) and data.get(KEY) != _checksum(content):
        raise UserError(f"{where} is damaged or was edited: its checksum is wrong.")
    return content


def _checksum(data: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
