"""The tokenizer that comes with published language models, its special tokens, and the template of a chat."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Engine

from ..core.errors import UserError
from ..core.files import write_text
from ..core.reading import FOREIGN_BITS, read_object, read_text
from ..data.tokenizers.base import Tokenizer
from ..data.tokenizers.loading import load_any
from ..data.tokenizers.subwords import Subwords
from .formats import CHAT_ENDS

CHAT_TEMPLATE, SPECIAL_TOKENS = "chat_template.jinja", "special_tokens.json"
FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json"),
    *("vocab.json", "merges.txt", "vocab.txt", "added_tokens.json", "tokenizer.model", CHAT_TEMPLATE),
)
MAX_TEMPLATE_BYTES = 1 << 20

# How Qwen2's vocabulary splits text, which its vocab.json and merges.txt do not say.
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer, ids below its largest that no token has, and what its settings say of special tokens."""

    tokenizer: Tokenizer
    unused: tuple[int, ...]
    special: dict[str, Any]
    """`bos_token`, `eos_token`, `pad_token`, `mask_token` where they exist, and `stop_tokens`, which end an answer."""
    chat_template: str | None

    def id_of(self, token: str) -> int | None:
        """The id of a token by its name."""
        assert isinstance(self.tokenizer, Subwords)
        return self.tokenizer.token_id(token)

    def write(self, run: Path) -> None:
        """Writes what a chat needs to the folder of a run."""
        write_text(run / SPECIAL_TOKENS, json.dumps(self.special, ensure_ascii=False, indent=1) + "\n")
        if self.chat_template:
            write_text(run / CHAT_TEMPLATE, self.chat_template)


def read_vocabulary(folder: Path, tokenizer: str | Path, model_type: str) -> Vocabulary:
    """The vocabulary in a folder; the tokenizer in `tokenizer`, if that is not empty. Raises UserError without one."""
    settings = _object(folder, "tokenizer_config.json")
    special = _special_tokens(settings | _object(folder, "special_tokens_map.json"))
    loaded = _load(Path(tokenizer or folder), model_type, settings)
    if not isinstance(loaded, Subwords):
        raise UserError(f"{tokenizer or folder} has no tokenizer.json; a published language model comes with one.")
    _check_ids(Path(tokenizer or folder), loaded)
    names = set(loaded.vocabulary)
    end = special.get("eos_token") or special.get("sep_token")
    pad = special.get("pad_token") or end
    loaded = loaded.with_named_specials(*(name if name in names else None for name in (end, pad)))
    stops = [*_end_tokens(folder, loaded), *([end] if end else []), *CHAT_ENDS]
    special["stop_tokens"] = list(dict.fromkeys(name for name in stops if name in names))
    unused = sorted(set(range(loaded.vocab_size)) - set(loaded.vocabulary.values()))
    return Vocabulary(loaded, tuple(unused), special, _chat_template(folder, settings))


def _load(path: Path, model_type: str, settings: dict[str, Any]) -> Tokenizer:
    is_plain = path.is_dir() and not (path / "tokenizer.json").is_file() and (path / "vocab.json").is_file()
    if not (is_plain and model_type.startswith("qwen")):
        return load_any(path, ())
    try:
        engine = Engine(models.BPE.from_file(str(path / "vocab.json"), str(path / "merges.txt")))
    except Exception as error:  # the engine raises nothing more specific
        raise UserError(f"{path} has no vocabulary: {error}.") from None
    engine.normalizer, engine.decoder = normalizers.NFC(), decoders.ByteLevel()
    split = pre_tokenizers.Split(Regex(_QWEN2), "isolated")
    engine.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    added = settings.get("added_tokens_decoder")
    by_id = {int(i): _content(each) for i, each in added.items()} if isinstance(added, dict) else {}
    by_id |= {i: name for name, i in _object(path, "added_tokens.json").items() if isinstance(i, int)}
    for i, name in sorted(by_id.items()):
        engine.add_special_tokens([AddedToken(name, special=True, normalized=False)] if name else [])
        if engine.token_to_id(name) != i:
            raise UserError(f"{path}: the added token {name!r} must have the id {i}, not {engine.token_to_id(name)}.")
    return Subwords("file", engine)


def _check_ids(path: Path, tokenizer: Subwords) -> None:
    """Raises UserError where the engine has renumbered a special token, as it does where numbers have a gap."""
    path = path / "tokenizer.json" if path.is_dir() else path
    added = read_object(path).get("added_tokens") if path.is_file() and path.suffix == ".json" else None
    for token in added if isinstance(added, list) else []:
        if isinstance(token, dict) and tokenizer.token_id(_content(token)) != token.get("id"):
            found = tokenizer.token_id(_content(token))
            raise UserError(
                f"{path}: the token {_content(token)!r} has the id {token.get('id')}, but is read as {found}."
            )


def _special_tokens(settings: dict[str, Any]) -> dict[str, Any]:
    kinds = ("bos_token", "eos_token", "pad_token", "mask_token", "sep_token", "cls_token")
    tokens = {kind: _content(settings.get(kind)) for kind in kinds}
    return {kind: name for kind, name in tokens.items() if name}


def _content(token: Any) -> str:
    """The text of a token, which may be an object with settings."""
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else ""


def _end_tokens(folder: Path, tokenizer: Subwords) -> list[str]:
    """The tokens at which generation_config.json says that generation ends."""
    ids = _object(folder, "generation_config.json").get("eos_token_id")
    names = {i: name for name, i in tokenizer.vocabulary.items()}
    return [names[i] for i in (ids if isinstance(ids, list) else [ids]) if i in names]


def _chat_template(folder: Path, settings: dict[str, Any]) -> str | None:
    if (folder / CHAT_TEMPLATE).is_file():
        return read_text(folder / CHAT_TEMPLATE, limit=MAX_TEMPLATE_BYTES)
    template = settings.get("chat_template")
    if isinstance(template, list):  # several by name
        named = {each.get("name"): each.get("template") for each in template if isinstance(each, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None


def _object(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    return read_object(path, int_bits=FOREIGN_BITS) if path.is_file() else {}
