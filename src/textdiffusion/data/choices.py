"""Tokenizer, layout and length chosen from the text, where a configuration leaves them to it."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from .config import Layout, TextConfig
from .documents import open_source, read_units
from .sources import Source
from .tokenizers.learning import learn_from

SAMPLE = 4_000_000  # characters that are looked at
NUM_EXAMPLES = 2_000  # examples whose tokens are counted

MAX_DOCUMENT = 2_000  # characters of the median document up to which documents are examples
MIN_EXAMPLES = 20  # fewer lines or documents are read as running text
MAX_EXAMPLE = 256  # tokens of an example; longer ones are read as running text
MAX_CONVERSATION = 1024  # tokens of the longest window that is chosen for conversations
WINDOW = 128  # tokens of a window of running text

SMALL_TEXT = 50_000  # characters below which pieces and words are too rare to learn
BPE_SIZES = ((300_000, 512), (3_000_000, 1024), (15_000_000, 2048), (math.inf, 4096))
"""The most characters of a text, and the size of its vocabulary of pieces of words."""
MAX_WORDS = 2_000  # words of a text whose words become tokens

_SENTENCE_END = re.compile(r"[.!?…。！？।۔][\"'”’»)\]]*\s*$")
_PUNCTUATION_END = re.compile(r"[,;:\-–—({]\s*$")


@dataclass(frozen=True)
class TextSample:
    """The beginning of a text. `characters` is the size of the whole, estimated if the sample is not all of it."""

    documents: Sequence[str]
    characters: int

    @cached_property
    def lines(self) -> list[str]:
        return [line for document in self.documents for line in document.splitlines()]

    @cached_property
    def words(self) -> Counter[str]:
        return Counter(word for document in self.documents for word in document.split())


def choose(config: TextConfig, cache: Path) -> tuple[TextConfig, str]:
    """The configuration with its tokenizer, layout and length chosen from the training text, and what was chosen.

    Only what is `auto` (0 for the length) is chosen; nothing to choose gives an empty message. Raises UserError for
    text that cannot be read.
    """
    if "auto" not in (config.tokenizer, config.layout) and config.length:
        return config, ""
    sample = read_sample(open_source(config.data, config, cache), config)
    layout: Layout = config.layout
    tokenizer: dict[str, Any] = {"tokenizer": config.tokenizer}
    layout_reason = tokenizer_reason = ""
    if layout == "auto":
        layout, layout_reason = _layout(sample, config)
    if config.tokenizer == "auto":
        tokenizer, tokenizer_reason = _tokenizer(sample, layout)
    length, length_reason = config.length, ""
    if layout != "stream" and (config.layout == "auto" or not length):
        longest = _longest(sample, replace(config, **tokenizer, layout=layout, length=length or 2))
        if config.layout == "auto" and not config.messages and longest > (config.length or MAX_EXAMPLE):
            layout, layout_reason = "stream", f"its {layout} are longer than {config.length or MAX_EXAMPLE} tokens"
        elif not length:
            longest = min(longest, MAX_CONVERSATION) if config.messages else longest
            length, length_reason = _rounded(longest), "99 % of the examples fit"
    if not length:
        length, length_reason = WINDOW, ""
    chosen: dict[str, Any] = tokenizer | {"layout": layout, "length": length}
    if config.layout == "auto" and layout != "stream" and not config.packing:
        chosen["model_padding"] = True  # a model that predicts padding knows where examples end
    message = _message(config, chosen, layout_reason, tokenizer_reason, length_reason)
    return replace(config, **chosen), message


def read_sample(source: Source, config: TextConfig) -> TextSample:
    """The first `SAMPLE` characters of a text; of conversations, answers with what precedes them."""
    if config.is_chat:
        units = read_units(source, replace(config, layout="documents"))
        chunks = (replace(unit, text=unit.all_text, document=number) for number, unit in enumerate(units))
    else:
        chunks = source.chunks()
    documents: list[list[str]] = []
    last, characters, bytes_read = -1, 0, 0
    for chunk in chunks:
        if chunk.document != last:
            documents.append([])
            last = chunk.document
        documents[-1].append(chunk.text)
        characters, bytes_read = characters + len(chunk.text), chunk.bytes_read
        if characters >= SAMPLE:
            break
    else:
        bytes_read = source.size
    scale = max(1.0, source.size / bytes_read) if bytes_read else 1.0
    return TextSample(["".join(parts) for parts in documents], round(characters * scale))


def _layout(sample: TextSample, config: TextConfig) -> tuple[Layout, str]:
    if config.has_prompts or config.label:
        return "documents", "each record has messages, a source or a label"
    lengths = [len(document) for document in sample.documents]
    if len(lengths) >= MIN_EXAMPLES and median(lengths) <= MAX_DOCUMENT:
        return "documents", f"{len(lengths):,} short texts"
    if stands_alone(sample.lines):
        return "lines", "each line stands alone"
    return "stream", ""


def stands_alone(lines: Sequence[str]) -> bool:
    """Whether each line is a text of its own: most end a sentence, or all are short and none ends in the middle of one.

    Lines of prose that were broken at a margin, verse, dialogue and source code are not.
    """
    filled = [line for line in lines if line.strip()]
    if len(filled) < MIN_EXAMPLES or len(lines) - len(filled) > 0.02 * len(lines):
        return False
    if sum(line[0].isspace() for line in filled) > 0.02 * len(filled):
        return False

    def share(pattern: re.Pattern[str]) -> float:
        return sum(bool(pattern.search(line)) for line in filled) / len(filled)

    if share(_SENTENCE_END) >= 0.6:
        return True
    return max(map(len, filled)) <= 40 and share(_PUNCTUATION_END) < 0.01


def _tokenizer(sample: TextSample, layout: str) -> tuple[dict[str, Any], str]:
    """Settings of the tokenizer, and the reason."""
    size = _approximately(sample.characters)
    alphabet = len(set().union(*sample.documents))
    words = sample.words
    count = words.total()
    if sample.characters < SMALL_TEXT:
        return {"tokenizer": "characters"}, f"only {size} characters"
    if count < 0.03 * sum(map(len, sample.documents)) and alphabet <= 40:
        return {"tokenizer": "characters"}, f"{alphabet} different characters and hardly a space"
    if layout != "stream" and count < 1.5 * len(sample.lines):
        return {"tokenizer": "characters"}, "single words"
    frequent = [word for word in words if words[word] > 1]
    if layout != "stream" and len(frequent) <= MAX_WORDS and sum(words[word] for word in frequent) >= 0.999 * count:
        return {"tokenizer": "words"}, f"{len(words):,} different words"
    pieces = next(pieces for most, pieces in BPE_SIZES if sample.characters <= most)
    return {"tokenizer": "bpe", "vocab_size": pieces + max(0, alphabet - 256)}, f"{size} characters"


def _longest(sample: TextSample, config: TextConfig) -> int:
    """Tokens of an example, with its source and end tokens, that 99 % of the examples do not exceed."""
    examples = list(_examples(sample, config.layout))
    tokenizer = learn_from(examples, config)
    chosen = random.Random(0).sample(examples, min(NUM_EXAMPLES, len(examples)))
    counts = [len(tokenizer.encode(text)) + 1 for text in chosen]
    return math.ceil(quantiles(counts, n=100)[-1]) if len(counts) > 1 else max(counts, default=0)


def _examples(sample: TextSample, layout: str) -> Iterator[str]:
    texts: Iterable[str] = sample.lines if layout == "lines" else sample.documents
    return (text for text in texts if text.strip())


def _rounded(length: int) -> int:
    return max(8, -(-length // 8) * 8)


def _approximately(count: int) -> str:
    return f"{count / 1e6:.1f} million" if count >= 1e6 else f"{round(count, -3):,}" if count >= 1e4 else f"{count:,}"


def _message(config: TextConfig, chosen: dict[str, Any], layout: str, tokenizer: str, length: str) -> str:
    """What was chosen, why, and how to choose otherwise."""

    def because(reason: str) -> str:
        return f" ({reason})" if reason else ""

    lines: dict[str, str] = {}
    if config.tokenizer == "auto":
        pieces = f"{chosen['vocab_size']:,} pieces of words (bpe)" if "vocab_size" in chosen else chosen["tokenizer"]
        lines["--tokenizer"] = f"tokens are {pieces}{because(tokenizer)}"
    if config.layout == "auto":
        reading = "running text" if chosen["layout"] == "stream" else f"one example per {chosen['layout'].rstrip('s')}"
        lines["--layout"] = f"read as {reading}{because(layout)}"
    if not config.length:
        lines["--length"] = f"windows of {chosen['length']} tokens{because(length)}"
    options = ", ".join(lines)
    return "\n".join([f"Chosen from the text ({options} change it):", *(f"  {line}" for line in lines.values())])
