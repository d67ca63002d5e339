"""Chat templates: how the messages of a conversation become one text, in the Jinja of published tokenizers.

A template writes special tokens, such as `<|im_end|>`, as text. Here only those that the template itself writes become
special tokens: a message that spells one stays text, so no user can end or forge a turn.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from ..core.errors import UserError
from ..core.files import write_text
from ..core.reading import FOREIGN_BITS, read_object, read_text
from .tokenizers.base import Ids, Tokenizer

TEMPLATE_FILE, TOKENS_FILE, CONFIG_FILE = "chat_template.jinja", "special_tokens.json", "tokenizer_config.json"

PLAIN = """\
{% for message in messages %}
{{ message.role }}:
{{ message.content }}{{ eos_token }}
{% endfor %}
{% if add_generation_prompt %}
assistant:
{% endif %}
"""
CHATML = """\
{% for message in messages %}
{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' }}
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}
"""
TEMPLATES = {"plain": PLAIN, "chatml": CHATML}
"""Templates by name. `plain` needs no token but the tokenizer's end."""

_GUARD = "\ufdd0"  # a code point that is no character; it keeps a name in a message from being one of a special token
_PROBE = "Probe7Text"


class Message(NamedTuple):
    """What one side said. `role` is usually system, user or assistant."""

    role: str
    content: str


class TurnEnd(NamedTuple):
    """What a template writes after an answer: a special token's id, or a text (None and empty: nothing)."""

    token: int | None = None
    text: str = ""


@dataclass(frozen=True)
class ChatTemplate:
    """The Jinja source of a template.

    `names` are those of special tokens that it may use, such as `bos_token`; `stops` are tokens that end an answer,
    beside the one that the template writes after it.
    """

    source: str
    names: Mapping[str, str] = field(default_factory=dict)
    stops: tuple[str, ...] = ()

    def render(self, messages: Sequence[Message], end: str = "", *, answer: bool = True) -> str:
        """The text of a conversation, with the beginning of an answer after it if `answer`.

        `end` is the name of the end token, unless the template's own `names` say otherwise. Raises UserError for a
        template that is damaged, or refuses the messages.
        """
        conversation = [message._asdict() for message in messages]
        try:
            return _compiled(self.source).render(
                messages=conversation, add_generation_prompt=answer, **{"bos_token": "", "eos_token": end, **self.names}
            )
        except Exception as error:  # a template is a program, and may raise anything
            raise UserError(
                f"The chat template cannot write these messages: {str(error).rstrip('.') or type(error).__name__}."
            ) from None

    def encode(self, messages: Sequence[Message], tokenizer: Tokenizer, *, answer: bool = True) -> Ids:
        """The tokens of `render`, with the special tokens that the template writes. Raises UserError as it does."""
        return encode_rendered(self.render_guarded(messages, tokenizer, answer=answer), tokenizer)

    def render_guarded(self, messages: Sequence[Message], tokenizer: Tokenizer, *, answer: bool = True) -> str:
        """The text of `render` for `encode_rendered`: names of special tokens in messages are marked as text."""
        names = _names(tokenizer)
        guarded = [Message(_guarded(message.role, names), _guarded(message.content, names)) for message in messages]
        return self.render(guarded, _end_name(tokenizer), answer=answer)

    def turn_end(self, tokenizer: Tokenizer) -> TurnEnd:
        """What follows an answer, as the template writes it."""
        messages = [Message("user", "a"), Message("assistant", _PROBE)]
        try:
            after = self.render(messages, _end_name(tokenizer), answer=False).rpartition(_PROBE)
        except UserError:  # it wants other messages, such as a system's
            return TurnEnd()
        if not after[1]:
            return TurnEnd()
        special = tokenizer.special_tokens
        names = [name for name in special if name and after[2].lstrip().startswith(name)]
        return TurnEnd(special[max(names, key=len)]) if names else TurnEnd(text=after[2])

    def stop_ids(self, tokenizer: Tokenizer) -> list[int]:
        """The tokens of `stops`."""
        special = tokenizer.special_tokens
        return [special[name] for name in self.stops if name in special]

    def end_ids(self, tokenizer: Tokenizer) -> Ids:
        """The tokens of `turn_end`, then the end of a text, if that is another token."""
        end, last = self.turn_end(tokenizer), tokenizer.end_id
        ids = (
            np.array([end.token], dtype=np.int64) if end.token is not None else tokenizer.encode_continuation(end.text)
        )
        return ids if last is None or last in ids[-1:] else np.append(ids, last)

    def save(self, folder: Path) -> None:
        """Writes the template, and the special tokens that it has, into a run's folder."""
        write_text(folder / TEMPLATE_FILE, self.source)
        if self.names or self.stops:
            tokens = {**self.names, "stop_tokens": list(self.stops)}
            write_text(folder / TOKENS_FILE, json.dumps(tokens, ensure_ascii=False, indent=1) + "\n")


def load_chat_template(folder: Path) -> ChatTemplate | None:
    """The template in a folder: chat_template.jinja, else in tokenizer_config.json; None if there is none.

    The names of special tokens are in special_tokens.json or tokenizer_config.json. Raises UserError for files that are
    damaged.
    """
    settings: dict[str, Any] = {}
    for path in (folder / CONFIG_FILE, folder / TOKENS_FILE):
        settings |= read_object(path, finite=False, int_bits=FOREIGN_BITS) if path.is_file() else {}
    contents = {name: value.get("content") if isinstance(value, dict) else value for name, value in settings.items()}
    names = {name: text for name, text in contents.items() if name.endswith("_token") and isinstance(text, str)}
    stops = settings.get("stop_tokens")
    stops = tuple(stop for stop in stops if isinstance(stop, str)) if isinstance(stops, list) else ()
    source = settings.get("chat_template")
    if (folder / TEMPLATE_FILE).is_file():
        source = read_text(folder / TEMPLATE_FILE)
    elif isinstance(source, list):  # several, each with a name
        named = {each.get("name"): each.get("template") for each in source if isinstance(each, dict)}
        source = named.get("default")
    return ChatTemplate(source, names, stops) if isinstance(source, str) else None


def named_template(name: str) -> ChatTemplate:
    """A template of `TEMPLATES`, one in a file, or that of a run's or tokenizer's folder. Raises UserError for none."""
    if name in TEMPLATES:
        return ChatTemplate(TEMPLATES[name])
    path = Path(name)
    template = load_chat_template(path) if path.is_dir() else ChatTemplate(read_text(path)) if path.is_file() else None
    if template is None:
        known = ", ".join(TEMPLATES)
        raise UserError(f"There is no chat template {name!r}; it can be {known}, a Jinja file, or a folder with one.")
    return template


def parse_messages(value: Any, where: str) -> tuple[Message, ...]:
    """The messages of a conversation: a list of objects with `role` and `content`. Raises UserError for others."""
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise UserError(f"{where} must be a list of messages, each with a role and a content.")
    messages = []
    for each in value:
        role, content = (each.get("role"), each.get("content")) if isinstance(each, Mapping) else (None, None)
        if not (isinstance(role, str) and isinstance(content, str)):
            raise UserError(f"{where} has a message that is not an object with the texts `role` and `content`.")
        messages.append(Message(role, content))
    return tuple(messages)


def encode_rendered(text: str, tokenizer: Tokenizer) -> Ids:
    """The tokens of a text of `render_guarded`."""
    special, names = tokenizer.special_tokens, _names(tokenizer)
    pieces = re.split(f"({'|'.join(map(re.escape, names))})", text) if names else [text]
    ids: list[Ids] = []
    for number, piece in enumerate(pieces):
        if number % 2:
            ids.append(np.array([special[piece]], dtype=np.int64))
        elif piece:
            encode = tokenizer.encode_continuation if ids else tokenizer.encode
            ids.append(encode(_unguarded(piece, names)))
    return np.concatenate(ids) if ids else np.zeros(0, dtype=np.int64)


def _names(tokenizer: Tokenizer) -> list[str]:
    """The names of special tokens, the longest first."""
    return sorted((name for name in tokenizer.special_tokens if name), key=len, reverse=True)


def _end_name(tokenizer: Tokenizer) -> str:
    return next((name for name, id in tokenizer.special_tokens.items() if id == tokenizer.end_id), "")


def _guarded(text: str, names: Sequence[str]) -> str:
    for name in names:
        text = text.replace(name, f"{name[0]}{_GUARD}{name[1:]}")
    return text


def _unguarded(text: str, names: Sequence[str]) -> str:
    for name in reversed(names):
        text = text.replace(f"{name[0]}{_GUARD}{name[1:]}", name)
    return text


@lru_cache(maxsize=16)
def _compiled(source: str) -> Any:
    """The template, in a sandbox: it reaches neither files nor the attributes of Python's objects."""
    try:
        from jinja2 import TemplateError, nodes
        from jinja2.ext import Extension, loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        raise UserError("Chat templates need jinja2, which torch usually brings: pip install jinja2.") from None

    class Generation(Extension):
        """{% generation %} marks answers for training elsewhere; here its content is written as it is."""

        tags = {"generation"}  # noqa: RUF012 - as Jinja has it

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body).set_lineno(line)

    def refuse(message: str) -> NoReturn:
        raise TemplateError(message)

    environment: Any = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
    environment.globals["raise_exception"] = refuse
    return environment.from_string(source)
