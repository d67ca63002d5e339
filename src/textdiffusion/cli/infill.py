"""`textdiffusion infill RUN TEMPLATE`"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from .output import note
from .writing import Writing


@dataclass(frozen=True, kw_only=True)
class Command(Writing):
    """Fill the gaps of a template. Text around the gaps is preserved exactly.

    [MASK:5] is a gap of five tokens of the run's tokenizer, [MASK] one as long as the model proposes; \\[MASK is the
    literal text. At the end of a template [MASK] goes on until the model ends the text.
    """

    template: Annotated[str, Positional, arg(metavar="TEMPLATE")]
    """Text with gaps, in quotes: "The [MASK:5] pear is [MASK:8].\""""
    num: int = 4
    """How many texts."""

    def execute(self) -> None:
        model = self.load()
        about = {"source": self.source or None, "label": self.label or None}
        batch = model.infill_batch(self.template, self.num * self.candidates, seed=self.seed, **about)
        if model.infill_warning:
            note(model.infill_warning)
        self.write(model, batch, {"num": self.num, "template": self.template})
