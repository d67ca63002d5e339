"""Data sets of the HuggingFace hub, streamed once into a local file of our own."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from itertools import islice
from pathlib import Path

from rich.console import Console

from ...core.errors import UserError
from ..config import TextConfig
from ..sources import Files
from ..tables import texts_of


def spool(name: str, config: TextConfig, cache: Path) -> Files:
    """The data set `name` as a local JSONL file under `cache`, read from the hub only where that is missing.

    Memory is one record. Raises UserError where the extra, the data set or its field is missing; a broken download
    leaves nothing behind.
    """
    if not config.field:
        raise UserError(f"hf:{name} holds records: set text.field to the one with the text, as text.field=text.")
    wanted = [name, config.hub_config, config.hub_split, config.fields, config.limit]
    key = hashlib.sha256(json.dumps(wanted).encode()).hexdigest()[:16]
    path = cache / f"hub-{key}.jsonl"
    if not path.exists():
        _download(name, config, path)
    return Files(f"hf:{name}", [path], config.fields)


def _download(name: str, config: TextConfig, path: Path) -> None:
    try:
        load_dataset = importlib.import_module("datasets").load_dataset
    except ImportError:
        raise UserError(f"Reading hf:{name} needs an extra: pip install 'textdiffusion[hf]'.") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("w", encoding="utf-8") as file, Console(stderr=True).status(f"Streaming {name}") as status:
            records = load_dataset(name, config.hub_config or None, split=config.hub_split, streaming=True)
            for number, record in enumerate(islice(records, config.limit or None), start=1):
                texts = texts_of(record, config.fields, f"hf:{name}, record {number}")
                kept = {field: text for field, text in zip(config.fields, texts, strict=True) if field}
                file.write(json.dumps(kept, ensure_ascii=False) + "\n")
                if number % 1000 == 0:
                    status.update(f"Streaming {name}: {number:,} records")
        os.replace(partial, path)
    except UserError:
        raise
    except Exception as error:  # the network, the hub and the library each raise their own
        raise UserError(f"hf:{name} cannot be read: {type(error).__name__}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
