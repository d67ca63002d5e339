"""loading"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Engine
from tokenizers import decoders, models, normalizers, pre_tokenizers

from ...core.errors import UserError
from .base import UNK, Bytes, Characters, Tokenizer
from .subwords import Subwords


def load(path: str | Path) -> Tokenizer:
    """The tokenizer saved at `path`: one of ours, or a plain `tokenizer.json` of HuggingFace's `tokenizers`.

    Raises UserError where the file is missing or is neither.
    """
    path = Path(path)
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"There is no tokenizer at {path}.") from None
    except ValueError as error:
        raise UserError(f"{path} is no tokenizer.json: {error}.") from None
    if not isinstance(saved, dict):
        raise UserError(f"{path} is no tokenizer.json: it holds a {type(saved).__name__}.")
    try:
        return from_dict(saved)
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is no tokenizer.json of ours or of `tokenizers`: {error!r}.") from None


def from_dict(saved: dict[str, Any]) -> Tokenizer:
    """The tokenizer whose `to_dict` this is."""
    kind = saved.get("kind")
    if kind == "characters":
        return Characters(saved["characters"], saved["specials"])
    if kind == "bytes":
        return Bytes(saved["specials"])
    if kind == "sentencepiece":
        from .sentencepiece import Pieces

        return Pieces.from_dict(saved)
    from .subwords import Subwords

    return Subwords.from_dict(saved)


def load_any(path: Path, specials: Sequence[str]) -> Tokenizer:
    """A foreign vocabulary: tokenizer.json, vocab.json with merges.txt, vocab.txt of BERT, .model of SentencePiece.

    `specials` name the tokens the layout needs: known ones are used, missing ones added. Raises UserError where there
    is no such vocabulary.
    """
    names = ("tokenizer.json", "vocab.json", "vocab.txt")
    if path.is_dir():
        found = next((path / name for name in names if (path / name).exists()), None)
        if found is None:
            raise UserError(f"The folder {path} has no vocabulary: none of {', '.join(names)}.")
        path = found
    if not path.exists():
        raise UserError(f"There is no tokenizer at {path}.")
    if path.suffix == ".model":
        from .sentencepiece import Pieces

        return Pieces(path.read_bytes(), specials)
    try:
        if path.suffix == ".txt":
            loaded = Subwords("file", _bert(path))
        elif path.name != "tokenizer.json" and path.with_name("merges.txt").exists():
            loaded = Subwords("file", _gpt2(path, path.with_name("merges.txt")))
        else:
            loaded = load(path)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except Exception as error:  # the engine raises nothing more specific
        raise UserError(f"{path} is no vocabulary: {error}.") from None
    return loaded.with_specials(specials) if isinstance(loaded, Subwords) else loaded


def _gpt2(vocab: Path, merges: Path) -> Engine:
    engine = Engine(models.BPE.from_file(str(vocab), str(merges)))
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    return engine


def _bert(vocab: Path) -> Engine:
    engine = Engine(models.WordPiece.from_file(str(vocab), unk_token=UNK))
    if engine.token_to_id(UNK) is None:
        raise UserError(f"it is no BERT vocabulary, it has no {UNK}.")
    special = ("[", "<")
    uncased = not any(token != token.lower() for token in engine.get_vocab() if not token.startswith(special))
    engine.normalizer = normalizers.BertNormalizer(lowercase=uncased)
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    engine.decoder = decoders.WordPiece(prefix="##")
    return engine
