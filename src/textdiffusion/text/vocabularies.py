"""The tokenizer a configuration asks for: learned from the training text, or loaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from textdiffusion.text.config import TextConfig
from textdiffusion.text.corpora import Unit, read_together
from textdiffusion.text.tokenizers import END, PAD, UNK, Bytes, Characters, Tokenizer, code_points

SUBWORDS = 4096  # the vocabulary size when none is given


class Learner:
    """Looks at all units once, then makes the tokenizer from those before the end of training.

    Where training ends is known only after all were seen, so the characters' first positions are kept.
    """

    def __init__(self, config: TextConfig) -> None:
        self.config = config
        self._position = 0
        self._seen = np.zeros(0x110000, dtype=bool)
        self._first: dict[str, int] = {}

    def look(self, unit: Unit) -> None:
        """Note the characters of the next unit."""
        if self.config.tokenizer not in ("characters", "wordpiece"):
            return
        text = read_together(unit)
        points = code_points(text)
        new = points[~self._seen[points]]
        for character in map(chr, np.unique(new)):
            inside = text.index(character) if self.config.layout == "stream" else 0
            self._first[character] = self._position + inside
        self._seen[new] = True
        self._position += len(unit.text) if self.config.layout == "stream" else 1

    def learn(self, training: Iterator[str], end: int) -> Tokenizer:
        """The tokenizer; `training` are the texts before position `end`. Raises UserError where it cannot be had."""
        config = self.config
        specials = () if config.layout == "stream" else (END, PAD)
        characters = [c for c, first in self._first.items() if first < end]
        if config.tokenizer == "characters":
            return Characters(characters, specials + ((UNK,) if config.unk else ()))
        if config.tokenizer == "bytes":
            return Bytes(specials)
        if config.tokenizer == "sentencepiece":
            from textdiffusion.text.pieces import Pieces

            return Pieces.train(training, config.vocab_size or SUBWORDS, specials)
        from textdiffusion.text import subwords

        if config.tokenizer == "file":
            return subwords.load_any(Path(config.tokenizer_path), specials)
        if config.tokenizer == "words":
            return subwords.train_words(training, config.vocab_size, specials, unk=config.unk)
        vocab_size = config.vocab_size or SUBWORDS
        if config.tokenizer == "wordpiece":
            return subwords.train_wordpiece(training, vocab_size, specials, "".join(characters))
        return subwords.train_bpe(training, vocab_size, specials)
