"""What the weights of a run belong to: their configuration, tokenizer and training text.

Files of weights carry it, so that those of another run are noticed even where every shape agrees.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.registry import to_dict
from .config import Config

PATHS = {"data", "valid", "test", "tokenizer_path"}
"""Settings of the text that may change after training, because a file may move."""
FREE = {"schema", "sampler"}
"""What may change after training: the weights do not depend on it."""


def run_identity(config: Config, tokenizer_hash: str, text_sha256: Mapping[str, str]) -> dict[str, Any]:
    """The identity of a run's weights, as JSON.

    `tokenizer_hash` is the tokenizer's `fingerprint`, the `json_hash` of its file, and `text_sha256` has the hash of
    each part of the text in tokens.
    """
    data = to_dict(config)
    settings = {name: value for name, value in data.items() if name not in FREE}
    settings["text"] = {name: value for name, value in data["text"].items() if name not in PATHS}
    settings["training"] = {"seed": data["training"]["seed"]}
    return {"config": settings, "tokenizer": tokenizer_hash, "text_sha256": dict(text_sha256)}


def check_identity(identity: Mapping[str, Any], config: Config, tokenizer_hash: str, path: Path) -> None:
    """Raises UserError if the weights in `path` belong to another tokenizer or configuration than those beside them.

    Weights without an identity pass: earlier versions wrote none. So do settings that later versions added.
    """
    if not identity:
        return
    hint = "The files of a run belong together: restore the one that was replaced or edited."
    if identity.get("tokenizer") != tokenizer_hash:
        raise UserError(f"The weights {path} belong to another tokenizer than the tokenizer.json of this run. {hint}")
    stored = identity.get("config")
    current = _pruned(run_identity(config, tokenizer_hash, {})["config"], stored)
    if change := next(differences(stored, current), None):
        key, old, new = change
        raise UserError(
            f"The weights {path} belong to another configuration than the config.json of this run: {key} was {old!r} "
            f"in training and is now {new!r}. {hint}"
        )


def text_hashes(identity: Mapping[str, Any]) -> dict[str, str]:
    """The hashes of the parts of the training text in an identity; none where it has none."""
    hashes = identity.get("text_sha256")
    return {k: v for k, v in hashes.items() if isinstance(v, str)} if isinstance(hashes, dict) else {}


def differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The keys whose values differ, with both values; of parts of different kinds, the kind alone."""
    if isinstance(old, dict) and isinstance(new, dict):
        if old.get("kind") != new.get("kind"):
            yield f"{path}.kind", old.get("kind"), new.get("kind")
            return
        for key in [*old, *(key for key in new if key not in old)]:
            yield from differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif old != new:
        yield path, old, new


def _pruned(value: Any, like: Any) -> Any:
    """`value` without the keys that `like` does not have."""
    if isinstance(value, dict) and isinstance(like, dict):
        return {key: _pruned(value[key], like[key]) for key in value if key in like}
    return value
