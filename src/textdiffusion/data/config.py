"""What a run says about its text. No torch here: `--help` reads this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ..core.errors import UserError
from .normalisers import NORMALISERS

TokenizerKind = Literal["characters", "bytes", "words", "bpe", "wordpiece", "sentencepiece", "file"]
Layout = Literal["stream", "lines", "documents"]
Split = Literal["cut", "documents", "files"]
TooLong = Literal["truncate", "drop", "error"]
Mask = Literal[
    "none",
    "prefix",
    "random",
    "given_span",
    "span",
    "shuffled_span",
    "prefixes",
    "spans",
    "given_spans",
    "mixed",
    "question",
]

LEARNED = ("words", "bpe", "wordpiece", "sentencepiece")  # kinds whose vocabulary size is chosen


@dataclass(frozen=True)
class TextConfig:
    """Where the text comes from and how it becomes examples.

    The tokenizer learns from the training part alone. Fractions are cut from the end: training, validation, test.
    Raises UserError where a value is not allowed or would have no effect.
    """

    data: str = "shakespeare"
    """A file, folder or glob (text, .jsonl, .csv, .tsv, .parquet, .gz), hf:NAME, shakespeare, grammar:SIZE:SEED or a
    task such as sudoku:LEVEL:SIZE:SEED (docs/tasks.md)."""
    valid: str = ""
    """Validation text from a source of its own, instead of a part of the data."""
    test: str = ""
    """Test text from a source of its own."""
    field: str = ""
    """The field (column) that holds the text of JSONL, CSV, TSV, Parquet and hub data."""
    source: str = ""
    """The field that holds what the text answers to: it stands before the text and is always given."""
    label: str = ""
    """The field that holds the text's label, which the network is told."""
    labels: tuple[str, ...] = ()
    """The labels there are (empty: those of the data)."""
    encoding: str = "utf-8"
    hub_config: str = ""
    """The configuration (subset) of a hub data set."""
    hub_split: str = "train"
    limit: int = 0
    """Read at most so many documents of the data (0: all)."""
    normaliser: str = "none"

    tokenizer: TokenizerKind = "characters"
    tokenizer_path: str = ""
    """Of `file`: tokenizer.json, BERT's vocab.txt, SentencePiece's .model, or a folder of vocab.json and merges.txt."""
    vocab_size: int = 0
    """Size of a learned vocabulary (0: all words for `words`, else 4096)."""
    unk: bool = False
    """Read characters or words that the vocabulary lacks as [UNK] instead of refusing them."""
    subword_sampling: float = 0.0
    """SentencePiece only: training draws segmentations with probability proportional to p^this (0: always the best)."""

    layout: Layout = "stream"
    length: int = 128
    """Tokens in a window."""
    split: Split = "cut"
    """Where parts may be cut: anywhere (between examples, unless a stream), between documents, or between files."""
    valid_fraction: float = 0.05
    test_fraction: float = 0.05
    packing: bool = False
    """Several short examples share a window, each seeing only itself."""
    model_padding: bool = False
    """Padding counts as text to be modelled, so that the model learns where examples end."""
    too_long: TooLong = "truncate"
    """What happens to examples longer than a window."""

    mask: Mask = "none"
    """Which positions training gives as conditioning; `question` is for tasks: all but what is to be filled in."""
    drop: float = 0.0
    """The share of training rows that do not see their label, nor what is given: for guidance without a classifier."""

    @property
    def gives_tokens(self) -> bool:
        """Training gives a part of what the network sees."""
        return self.mask != "none" or bool(self.source)

    def __post_init__(self) -> None:
        choices = {"tokenizer": TokenizerKind, "layout": Layout, "split": Split, "too_long": TooLong, "mask": Mask}
        for name, allowed in choices.items():
            if (value := getattr(self, name)) not in get_args(allowed):
                raise UserError(f"{name} is {value!r}; it can be {', '.join(get_args(allowed))}.")
        if self.normaliser not in NORMALISERS:
            raise UserError(f"normaliser is {self.normaliser!r}; it can be {', '.join(NORMALISERS)}.")
        if not self.data:
            raise UserError("data is empty; give a file, a folder, hf:NAME, shakespeare or grammar.")
        for name, default in (("hub_config", ""), ("hub_split", "train")):
            if getattr(self, name) != default and not self.data.startswith("hf:"):
                raise UserError(f"{name} has no effect on data={self.data}: it is for hub data, hf:NAME.")
        if self.length < 2:
            raise UserError(f"length is {self.length}; a window has at least 2 tokens.")
        for name in ("limit", "vocab_size", "subword_sampling"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} is {getattr(self, name)}; it cannot be negative.")
        self._check_fractions()
        self._check_tokenizer()
        self._check_conditions()
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
            raise UserError("packing and subword_sampling exclude each other: a drawn segmentation has any length.")
        if self.packing and self.model_padding:
            raise UserError("packing and model_padding exclude each other: packed windows mask their padding out.")

    @property
    def fields(self) -> tuple[str, str, str]:
        """The fields of a record that hold its text, source and label; empty where there is none."""
        return self.field, self.source, self.label

    def _check_conditions(self) -> None:
        if self.source and (self.layout != "documents" or self.packing or self.subword_sampling):
            raise UserError("source needs layout=documents, without packing and subword_sampling.")
        if self.label and (self.layout == "stream" or self.packing):
            raise UserError("label needs layout=documents or layout=lines, without packing: a row has one label.")
        if self.labels and not self.label:
            raise UserError("labels has no effect without label, the field that holds them.")
        if not 0 <= self.drop < 1:
            raise UserError(f"drop is {self.drop}; it lies in [0, 1).")
        if self.drop and not (self.label or self.source or (self.mask != "none" and self.layout != "stream")):
            raise UserError("drop needs something to be dropped: a label, a source, or a mask of lines or documents.")

    def _check_fractions(self) -> None:
        for name in ("valid", "test"):
            fraction = getattr(self, f"{name}_fraction")
            if not 0 <= fraction < 1:
                raise UserError(f"{name}_fraction is {fraction}; it lies in [0, 1).")
        if self.valid_fraction + self.test_fraction >= 1:
            total = self.valid_fraction + self.test_fraction
            raise UserError(f"valid_fraction and test_fraction add up to {total:g}: nothing is left for training.")

    def _check_tokenizer(self) -> None:
        if (self.tokenizer == "file") != bool(self.tokenizer_path):
            raise UserError("tokenizer=file and tokenizer_path go together: give both or neither.")
        if self.vocab_size and self.tokenizer not in LEARNED:
            raise UserError(f"vocab_size has no effect on tokenizer={self.tokenizer}; it is for {', '.join(LEARNED)}.")
        if self.unk and self.tokenizer not in ("characters", "words"):
            raise UserError(f"unk has no effect on tokenizer={self.tokenizer}; it is for characters and words.")
        if self.subword_sampling and self.tokenizer not in ("sentencepiece", "file"):
            raise UserError(f"subword_sampling needs tokenizer=sentencepiece, not {self.tokenizer}.")
