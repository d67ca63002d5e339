"""The trained models that come with the package: one folder each in `textdiffusion/models`, loaded by name."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from pathlib import Path

from ..core.errors import UserError
from ..core.files import write_text
from ..core.registry import from_dict

CARD = "card.json"
CHECKED = ("config.json", "tokenizer.json", "model.safetensors")
"""The files whose checksums are in the card."""


@dataclass(frozen=True)
class Figure:
    """A measured value with its standard error (None: it has none), and the command that prints it."""

    what: str
    value: float
    error: float | None
    command: str


@dataclass(frozen=True)
class Excerpt:
    """Held-out text that comes with the model, and what was measured on it.

    `data` is a file in the model's folder, or the name of built-in data.
    """

    data: str
    windows: int
    """Number of windows measured, evenly spaced (0: all)."""
    bits: float
    """Bits per character of the model."""
    error: float
    """Standard error of `bits` from the random draws."""
    ngram_bits: float | None
    """Bits per character of a Kneser-Ney n-gram of the training text (None: not measured)."""
    solved: float | None = None
    """For a task: the fraction of questions answered correctly."""


@dataclass(frozen=True)
class Card:
    """What a model is, what it was trained on, what that cost, and how good it is."""

    name: str
    what: str
    data: str
    licence: str
    recipe: str
    parameters: int
    training: str
    """What training it cost."""
    sampler: str
    """The sampling options that suit it, as on the command line (empty: the defaults)."""
    figures: tuple[Figure, ...]
    excerpt: Excerpt
    sha256: dict[str, str]
    """The checksums of `CHECKED`."""


def root() -> Path:
    """The folder of the models."""
    return Path(str(files("textdiffusion"))) / "models"


def names() -> list[str]:
    """The names of the models that this installation has, in alphabetical order."""
    return sorted(path.parent.name for path in root().glob(f"*/{CARD}"))


def find_packaged(source: str | Path) -> Path | None:
    """The folder of the model called `source`, checked; None if there is none, or if `source` is a run's folder.

    A name has no slash. Raises UserError if a file of the model does not match its checksum.
    """
    if not isinstance(source, str) or (Path(source) / "config.json").is_file() or source not in names():
        return None
    return checked_folder(source)


def checked_folder(name: str) -> Path:
    """The folder of the model called `name`. Raises UserError if a file does not match its checksum."""
    folder = root() / name
    for file, expected in read_card(folder).sha256.items():
        if _sha256(folder / file) != expected:
            raise UserError(f"{folder / file} is damaged: its checksum differs. Install textdiffusion again.")
    return folder


def is_packaged(folder: Path) -> bool:
    """Whether a folder is that of a model in the package, in which nothing may be written."""
    return folder.parent == root()


def read_card(folder: Path) -> Card:
    """The card in a folder. Raises UserError if it is missing or damaged."""
    path = folder / CARD
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read {path}: {error}.") from None
    return from_dict(Card, data, str(path))


def write_card(folder: Path, card: Card) -> Card:
    """Writes the card with the checksums of the files in the folder; returns it."""
    card = replace(card, sha256={name: _sha256(folder / name) for name in CHECKED})
    write_text(folder / CARD, json.dumps(asdict(card), indent=2, ensure_ascii=False) + "\n")
    return card


def excerpt_of(folder: Path | None) -> str:
    """The held-out text that comes with a run, as `--data` takes it (empty: none comes with it)."""
    if folder is None or not is_packaged(folder):
        return ""
    data = read_card(folder).excerpt.data
    return str(folder / data) if (folder / data).is_file() else data


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from None
