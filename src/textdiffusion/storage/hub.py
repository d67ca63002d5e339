"""Finding runs in folders, in the package and on the Hugging Face hub, and uploading them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.reading import read_object
from .packaged import find_packaged, names

FILES = (
    *("config.json", "tokenizer.json", "model.safetensors", "grid.json", "README.md"),
    *("weights.json", "chat_template.jinja", "special_tokens.json"),
)


def find_run(source: str | Path) -> Path:
    """The folder of a run: `source` itself, a model of the package, or a downloaded hub repository.

    A run in the folder `source` comes first, so `./shakespeare` and a run's folder `shakespeare` are never the model of
    that name. Raises UserError if `source` is none of these, and for a damaged model.
    """
    if packaged := find_packaged(source):
        return packaged
    folder = Path(source)
    if not folder.is_dir():
        if not isinstance(source, str) or source.count("/") != 1 or source.startswith((".", "/", "~")):
            models = f", a model of the package ({', '.join(names())})" if names() else ""
            raise UserError(
                f"No folder {source}. A run is a folder made by `train --out`{models}, or a hub id (owner/name)."
            )
        folder = download(source)
    if _has_published_weights(folder):
        raise UserError(
            f"{folder} holds published weights, not a run. Convert them: textdiffusion convert {folder} --out RUN"
        )
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} is not a run folder: config.json is missing.")
    return folder


def _has_published_weights(folder: Path) -> bool:
    """Whether a folder has the settings of another package: Hydra's, or a config.json without a run's schema."""
    path = folder / "config.json"
    if not path.is_file():
        return (folder / ".hydra/config.yaml").is_file()
    try:
        data = read_object(path)
    except UserError:
        return False
    return "schema" not in data and any(key in data for key in ("graph", "model_type", "backbone"))


def download(repo_id: str) -> Path:
    """The folder of a downloaded run. Raises UserError without the extra `hf`, or if the hub has no such run."""
    folder = download_files(repo_id, list(FILES))
    if not (folder / "config.json").is_file():
        raise UserError(f"{repo_id} on the hub is not a textdiffusion run: config.json is missing.")
    return folder


def download_files(repo_id: str, patterns: list[str], revision: str | None = None) -> Path:
    """The folder with the files of a hub repository; its name is that of the commit. Raises UserError as `download`."""
    hub = _import_hub(f"No folder {repo_id}, and reading from the hub")
    try:
        at = {"revision": revision} if revision else {}
        return Path(hub.snapshot_download(repo_id, allow_patterns=patterns, **at))
    except Exception as error:  # the hub's own, and the connection's
        raise UserError(f"No folder {repo_id}, and the hub could not provide it: {_first_line(error)}") from None


def upload(save: Callable[[Path], Path], repo_id: str, private: bool) -> str:
    """Uploads what `save` writes into a temporary folder; returns the repository's address.

    Raises UserError without the extra `hf`, or if the hub refuses.
    """
    api = _import_hub("Uploading").HfApi()
    with tempfile.TemporaryDirectory() as temporary:
        folder = save(Path(temporary) / repo_id.rpartition("/")[2])
        try:
            address = api.create_repo(repo_id, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Upload a textdiffusion run")
        except Exception as error:
            raise UserError(f"The hub refused {repo_id}: {_first_line(error)}") from None
    return str(address)


def _import_hub(purpose: str) -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise UserError(f"{purpose} needs huggingface-hub: pip install 'textdiffusion[hf]'.") from None
    return huggingface_hub


def _first_line(error: Exception) -> str:
    return (str(error).removeprefix("Got: ").strip().splitlines() or [type(error).__name__])[0][:300]
