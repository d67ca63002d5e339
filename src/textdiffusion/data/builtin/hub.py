"""Data sets of the HuggingFace hub, streamed once into a local file."""

from __future__ import annotations

import importlib
import json
from itertools import islice
from pathlib import Path

from ...core.errors import UserError
from ...core.files import flush
from ...core.hashing import json_hash
from ...core.scratch import scratch_folder
from ...core.terminal import TextConsole
from ..config import TextConfig
from ..sources import Files
from ..tables import record_texts


def download(name: str, config: TextConfig, cache: Path) -> Files:
    """The data set `name` as a local JSONL file under `cache`, streamed from the hub only if the file is missing.

    Memory is one record. Raises UserError if the extra, the data set or its field is missing; a broken download leaves
    no file behind.
    """
    if not config.field:
        raise UserError(f"hf:{name} holds records. Set text.field to the field with the text, such as text.field=text.")
    request = [name, config.hub_config, config.hub_split, config.fields, config.limit]
    request += [config.skip_bad] if config.skip_bad else []
    path = cache / f"hub-{json_hash(request)}.jsonl"
    if not path.exists():
        _stream_to(path, name, config)
    return Files(f"hf:{name}", [path], config.fields, skip_bad=config.skip_bad)


def _stream_to(path: Path, name: str, config: TextConfig) -> None:
    try:
        load_dataset = importlib.import_module("datasets").load_dataset
    except ImportError:
        raise UserError(f"Reading hf:{name} needs an extra: pip install 'textdiffusion[hf]'.") from None
    console, skipped = TextConsole(stderr=True), 0
    with scratch_folder(path.parent, path.stem) as scratch, console.status(f"Streaming {name}") as status:
        partial = scratch / path.name
        try:
            records = load_dataset(name, config.hub_config or None, split=config.hub_split, streaming=True)
            with partial.open("w", encoding="utf-8") as file:
                for number, record in enumerate(islice(records, config.limit or None), start=1):
                    try:
                        texts = record_texts(record, config.fields, f"hf:{name}, record {number}")
                    except UserError:
                        if not config.skip_bad:
                            raise
                        skipped += 1
                        continue
                    selected = {field: text for field, text in zip(config.fields, texts, strict=True) if field}
                    file.write(json.dumps(selected, ensure_ascii=False) + "\n")
                    if number % 1000 == 0:
                        status.update(f"Streaming {name}: {number:,} records")
        except UserError:
            raise
        except Exception as error:  # the network, the hub and the library each raise their own
            raise UserError(f"hf:{name} cannot be read: {type(error).__name__}: {error}") from error
        flush(partial)
        partial.replace(path)
    if skipped:
        console.print(f"hf:{name}: {skipped} bad records skipped", highlight=False, markup=False)
