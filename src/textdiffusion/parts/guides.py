"""What sampling can be steered by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import UserError
from .base import GuidePart, bounded

if TYPE_CHECKING:
    from ..guides import Guide
    from ..model import Model
    from ..text.tokenizers import Tokenizer


@dataclass(frozen=True)
class Without(GuidePart):
    """Never the token `text`, whether or not a space is before it."""

    text: str

    def build(self, model: Model, tokenizer: Tokenizer) -> Guide:
        from ..guides.tokens import Without as Built

        wanted = self.text.strip() or self.text
        ids = [i for i in range(tokenizer.vocab_size) if tokenizer.token_text(i) in (wanted, " " + wanted)]
        if not ids:
            raise UserError(f"{self.text!r} is no token of the run's tokenizer.")
        return Built(ids)


@dataclass(frozen=True)
class Repaint(GuidePart):
    """For infilling with runs that were trained without conditioning masks: each step is followed by `jumps` rounds in
    which noise of `length` steps is put on again and taken off."""

    jumps: int = 5
    length: int = 1

    def __post_init__(self) -> None:
        bounded(self, jumps=(1, None), length=(1, None))

    def build(self, model: Model, tokenizer: Tokenizer) -> Guide:
        from ..guides.infill import GivenTokens

        return GivenTokens(model, self.jumps, self.length)
