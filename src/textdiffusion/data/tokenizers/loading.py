"""Loads tokenizers: our own files, and vocabularies of other projects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Engine
from tokenizers import decoders, models, normalizers, pre_tokenizers

from ...core.errors import MissingFile, UserError
from ...core.reading import read_object
from .base import UNK, Bytes, Characters, Tokenizer
from .sentencepiece import SentencePiece
from .subwords import Subwords, byte_level

_CLASSES = {cls.kind: cls for cls in (Characters, Bytes, SentencePiece)}  # all other kinds are Subwords
_VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt")


def load(path: str | Path) -> Tokenizer:
    """The tokenizer in `path`: one of ours, or a tokenizer.json of HuggingFace's `tokenizers`.

    Raises UserError if the file is missing or is neither.
    """
    path = Path(path)
    try:
        saved = read_object(path)
    except MissingFile:
        raise UserError(f"There is no tokenizer at {path}.") from None
    except UserError as error:
        raise UserError(f"{path} is not a tokenizer file: it {str(error).removeprefix(f'{path} ')}") from None
    try:
        _check_fields(saved)
        return from_dict(saved)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise UserError(f"{path} is not a tokenizer file: {error!r}.") from None


def _check_fields(saved: dict[str, Any]) -> None:
    """Raises UserError where a field of one of our tokenizers has another type."""
    for name in ("kind", "end", "pad"):
        if not isinstance(value := saved.get(name), str | None):
            raise UserError(f"This is not a tokenizer file: {name} is {str(value)[:40]}; it must be text.")
    for name in ("specials", "characters"):
        texts = saved.get(name, [])
        if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
            raise UserError(f"This is not a tokenizer file: {name} must be a list of texts.")
    if any(len(character) != 1 for character in saved.get("characters", [])):
        raise UserError("This is not a tokenizer file: characters must be a list of single characters.")


def from_dict(saved: dict[str, Any]) -> Tokenizer:
    """The tokenizer with this `to_dict`, or of this tokenizer.json."""
    return _CLASSES.get(saved.get("kind", ""), Subwords).from_dict(saved)


def load_any(path: Path, specials: Sequence[str]) -> Tokenizer:
    """A vocabulary of any origin: tokenizer.json, vocab.json with merges.txt, BERT's vocab.txt, SentencePiece's .model.

    `specials` are the special tokens that the layout needs: existing ones are used, missing ones added. Raises
    UserError if there is no such vocabulary.
    """
    if path.is_dir():
        file = next((path / name for name in _VOCABULARIES if (path / name).exists()), None)
        if file is None:
            raise UserError(f"The folder {path} has no vocabulary: none of {', '.join(_VOCABULARIES)}.")
        path = file
    if not path.exists():
        raise UserError(f"There is no tokenizer at {path}.")
    has_merges = path.name != "tokenizer.json" and path.with_name("merges.txt").exists()
    if path.suffix not in (".model", ".txt") and not has_merges:
        loaded = load(path)
        return loaded.with_specials(specials) if isinstance(loaded, Subwords) else loaded
    try:
        if path.suffix == ".model":
            return SentencePiece(path.read_bytes(), specials)
        if path.suffix == ".txt":
            engine = _bert(path)
        else:
            engine = byte_level(models.BPE.from_file(str(path), str(path.with_name("merges.txt"))))
        return Subwords("file", engine).with_specials(specials)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except Exception as error:  # the engine raises nothing more specific
        raise UserError(f"{path} is not a vocabulary: {error}.") from None


def _bert(vocab: Path) -> Engine:
    engine = Engine(models.WordPiece.from_file(str(vocab), unk_token=UNK))
    if engine.token_to_id(UNK) is None:
        raise UserError(f"This is not a BERT vocabulary: {UNK} is missing.")
    special = ("[", "<")
    uncased = not any(token != token.lower() for token in engine.get_vocab() if not token.startswith(special))
    engine.normalizer = normalizers.BertNormalizer(lowercase=uncased)
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    engine.decoder = decoders.WordPiece(prefix="##")
    return engine
