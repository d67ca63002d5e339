"""`textdiffusion sample RUN`"""

from __future__ import annotations

from dataclasses import dataclass

from .writing import Writing


@dataclass(frozen=True, kw_only=True)
class Command(Writing):
    """Write text with a run."""

    num: int = 4
    """How many texts."""
    length: int = 0
    """Tokens in a text (0: a window of the training)."""

    def execute(self) -> None:
        model = self.load()
        batch = model.empty_batch(
            self.num * self.candidates, self.length or None, source=self.source or None, label=self.label or None
        )
        self.write(model, batch, {"num": self.num, "length": batch.tokens.shape[1]})
