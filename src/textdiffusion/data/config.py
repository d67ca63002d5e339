"""Settings of the text: its origin, its tokenizer and its layout. No torch here: `--help` reads this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ..core.errors import UserError
from .normalisers import NORMALISERS

TokenizerKind = Literal["auto", "characters", "bytes", "words", "bpe", "wordpiece", "sentencepiece", "file"]
Layout = Literal["auto", "stream", "lines", "documents"]
Split = Literal["cut", "documents", "files"]
TooLong = Literal["truncate", "drop", "error"]
SimpleMask = Literal["none", "prefix", "random", "given_span", "span", "shuffled_span"]
MixedMask = Literal["prefixes", "spans", "given_spans", "mixed"]
MaskKind = Literal[SimpleMask, MixedMask, "question"]

LEARNED = ("words", "bpe", "wordpiece", "sentencepiece")  # tokenizers with a vocabulary size to choose


UNKNOWN = "unknown"
"""The `data` of a run whose weights others trained."""

MAX_VOCAB_SIZE = 1_000_000  # of a learned tokenizer; published ones have up to 262,144


@dataclass(frozen=True)
class TextConfig:
    """Where the text comes from and how it becomes examples.

    Words and subwords are learned from the training part alone. Validation and test are the end of the data, in this
    order.
    Raises UserError if a value is not allowed or would have no effect.
    """

    data: str = "shakespeare"
    """Training data: a file, folder or glob (text, .jsonl, .ndjson, .json, .csv, .tsv, .parquet, also with .gz, .bz2 or
    .xz), a pipe (- for standard input), hf:NAME, shakespeare, grammar:SIZE:SEED, or a task such as
    sudoku:LEVEL:SIZE:SEED (docs/tasks.md)."""
    valid: str = ""
    """Separate validation data; empty: the validation part is cut from `data`."""
    test: str = ""
    """Separate test data; empty: the test part is cut from `data`."""
    field: str = ""
    """Field (column) with the text, for JSONL, CSV, TSV, Parquet and hub data."""
    source: str = ""
    """Field with the prompt of each text. The prompt precedes the text and is never noised."""
    messages: str = ""
    """Field with a conversation, a list of messages with `role` and `content`. Every answer of the assistant is an
    example, and what precedes it is never noised."""
    chat_template: str = ""
    """Template that writes conversations (empty: plain, or that of the run to start from): plain, chatml, a Jinja file,
    or a folder with one. With `source` and `field` these are a message and its answer."""
    label: str = ""
    """Field with the label of each text, which the network receives as conditioning."""
    labels: tuple[str, ...] = ()
    """All labels, in the order of their ids; empty: the labels that occur in `data`."""
    encoding: str = "utf-8"
    """Character encoding of the files; of several, separated by commas, the first that fits a file. A byte order mark
    decides before them."""
    skip_bad: bool = False
    """Leave out files, records and bytes that cannot be read, and say how many, instead of refusing the text."""
    hub_config: str = ""
    """Configuration (subset) of a hub data set."""
    hub_split: str = "train"
    """Split of a hub data set."""
    limit: int = 0
    """Read only this many documents of `data` (0: all)."""
    normaliser: str = "none"
    """Normalisation of the text: none, lower, or text8 (a-z and single spaces)."""

    tokenizer: TokenizerKind = "characters"
    """Kind of tokenizer; words, bpe, wordpiece and sentencepiece are learned, `file` loads `tokenizer_path`, and `auto`
    is chosen from the text when training begins."""
    tokenizer_path: str = ""
    """Tokenizer to load: tokenizer.json, BERT's vocab.txt, a SentencePiece .model, or a folder with vocab.json and
    merges.txt."""
    vocab_size: int = 0
    """Size of a learned vocabulary (0: every word for `words`, about 4096 for the others)."""
    subword_sampling: float = 0.0
    """Unigram SentencePiece only: sample training segmentations in proportion to p^this (0: always the most likely)."""

    layout: Layout = "stream"
    """Windows of one continuous stream, or one example per line or per document; `auto` is chosen from the text."""
    length: int = 128
    """Tokens per window (0: chosen from the text)."""
    split: Split = "cut"
    """Where the data may be split into parts: `cut` anywhere (between examples, unless a stream), between documents, or
    between files."""
    valid_fraction: float = 0.05
    """Fraction of the data for validation."""
    test_fraction: float = 0.05
    """Fraction of the data for testing."""
    packing: bool = False
    """Pack several short examples into one window. Attention stays within each example."""
    model_padding: bool = False
    """Model the padding as text, so that the model learns where examples end."""
    too_long: TooLong = "truncate"
    """What to do with examples longer than a window."""

    mask: MaskKind = "none"
    """Positions kept clean as conditioning in training; `question`, for tasks: everything except the blanks to fill."""
    condition_dropout: float = 0.0
    """Probability that a training row hides its label and conditioning tokens, for classifier-free guidance."""

    @property
    def conditions_on_tokens(self) -> bool:
        """Whether some positions of training rows are clean conditioning."""
        return self.mask != "none" or self.has_prompts

    @property
    def is_chat(self) -> bool:
        """Whether examples are answers to messages, which a template writes."""
        return bool(self.messages or self.chat_template)

    @property
    def has_source(self) -> bool:
        """Whether a source and its end precede each text."""
        return bool(self.source) and not self.is_chat

    @property
    def has_prompts(self) -> bool:
        """Whether something precedes each text that is never noised: a source, or messages."""
        return bool(self.source or self.messages)

    @property
    def split_between(self) -> Split:
        """Where the data are split: a conversation, which may have several answers, is never cut."""
        return "documents" if self.messages and self.split == "cut" else self.split

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields with a record's text, source and label, empty if there is none; of messages alone."""
        names = self.field, self.source, self.label
        return (*names, self.messages) if self.messages else names

    @property
    def parts(self) -> list[str]:
        """The parts of the data that are not left empty: train, valid and test."""
        held_out = [name for name in ("valid", "test") if getattr(self, name) or getattr(self, f"{name}_fraction")]
        return ["train", *held_out]

    def __post_init__(self) -> None:
        choices = {"tokenizer": TokenizerKind, "layout": Layout, "split": Split, "too_long": TooLong, "mask": MaskKind}
        for name, allowed in (*((n, get_args(kind)) for n, kind in choices.items()), ("normaliser", NORMALISERS)):
            if (value := getattr(self, name)) not in allowed:
                raise UserError(f"{name} is {value!r}; it can be {', '.join(allowed)}.")
        for name in ("data", "valid", "test", "field", "source", "messages", "chat_template", "label"):
            if any("\ud800" <= character <= "\udfff" for character in getattr(self, name)):
                shown = getattr(self, name).encode("utf-8", "backslashreplace").decode()
                raise UserError(
                    f"{name} is not valid text: {shown}. Rename the file, or name its folder or a pattern (a*.txt)."
                )
        if not self.data:
            raise UserError("data is empty; give a file, a folder, hf:NAME, shakespeare or grammar.")
        for name, default in (("hub_config", ""), ("hub_split", "train")):
            if getattr(self, name) != default and not self.data.startswith("hf:"):
                raise UserError(f"{name} has no effect on data={self.data}, only on hub data (hf:NAME).")
        if self.length != 0 and self.length < 2:
            raise UserError(f"length is {self.length}; a window has at least 2 tokens.")
        for name in ("limit", "vocab_size", "subword_sampling"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} is {getattr(self, name)}; it cannot be negative.")
        if self.vocab_size > MAX_VOCAB_SIZE:
            raise UserError(f"vocab_size is {self.vocab_size:,}; it can be at most {MAX_VOCAB_SIZE:,}.")
        self._check_fractions()
        self._check_tokenizer()
        self._check_conditions()
        self._check_layout()

    def _check_fractions(self) -> None:
        for name in ("valid_fraction", "test_fraction", "condition_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must be in [0, 1).")
        total = self.valid_fraction + self.test_fraction
        if total >= 1:
            raise UserError(f"valid_fraction and test_fraction add up to {total:g}, which leaves no text for training.")

    def _check_tokenizer(self) -> None:
        if (self.tokenizer == "file") != bool(self.tokenizer_path):
            raise UserError("tokenizer=file and tokenizer_path go together: give both or neither.")
        if self.vocab_size and self.tokenizer not in LEARNED:
            raise UserError(f"vocab_size has no effect on tokenizer={self.tokenizer}, only on {', '.join(LEARNED)}.")
        if self.subword_sampling and self.tokenizer not in ("sentencepiece", "file"):
            raise UserError(f"subword_sampling needs tokenizer=sentencepiece, not {self.tokenizer}.")

    def _check_conditions(self) -> None:
        if self.source and (self.layout != "documents" or self.subword_sampling):
            raise UserError("source needs layout=documents, without subword_sampling.")
        if self.messages and (self.layout not in ("auto", "documents") or self.subword_sampling):
            raise UserError("messages needs layout=documents, without subword_sampling.")
        if self.messages and (self.field or self.source):
            raise UserError("messages holds whole conversations; leave field and source empty.")
        if self.chat_template and not self.messages and not (self.field and self.source):
            raise UserError("chat_template needs messages, or source and field, which are a message and its answer.")
        if self.label and (self.layout == "stream" or self.packing):
            raise UserError("label needs layout=documents or layout=lines, without packing: a row has only one label.")
        if self.labels and not self.label:
            raise UserError("labels has no effect without label, the field that holds them.")
        has_condition = self.label or self.has_prompts or (self.mask != "none" and self.layout != "stream")
        if self.condition_dropout and not has_condition:
            raise UserError("condition_dropout needs a label, a source, or a mask with layout=lines or documents.")

    def _check_layout(self) -> None:
        if self.layout == "stream":
            for name in ("packing", "model_padding"):
                if getattr(self, name):
                    raise UserError(f"{name} needs layout=lines or layout=documents: a stream has no padding.")
            if self.too_long != "truncate":
                raise UserError(f"too_long={self.too_long} needs layout=lines or layout=documents.")
        lines_of_characters = (self.layout, self.tokenizer, self.packing) == ("lines", "characters", False)
        if self.mask == "question" and not lines_of_characters:
            raise UserError("mask=question needs layout=lines and tokenizer=characters, without packing.")
        if self.packing and self.subword_sampling:
            raise UserError("packing and subword_sampling exclude each other: sampled segmentations vary in length.")
        if self.packing and self.model_padding:
            raise UserError("packing and model_padding exclude each other: packed windows mask their padding out.")
