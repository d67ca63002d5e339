"""`textdiffusion convert SOURCE --out RUN`"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from .output import note


@dataclass(frozen=True, kw_only=True)
class Command:
    """Make a run of weights that were published in the layout of SEDD, MDLM or RADD.

    Their config.json or .hydra/config.yaml must be there too.
    """

    source: Annotated[str, Positional, arg(metavar="SOURCE")]
    """A folder, or a file of weights."""
    out: str
    """The run's folder."""
    tokenizer: str = ""
    """A tokenizer.json or a folder with GPT-2's vocab.json and merges.txt, or `bytes` (empty: in the source)."""
    allow_pickle: bool = False
    """Read .bin, .pth and .ckpt too, of sources you trust."""

    def execute(self) -> None:
        from ..published.conversion import convert

        if self.allow_pickle:
            note("Pickles can hold programs: of these files tensors alone are read. Trust their source nonetheless.")
        made = convert(self.source, self.out, tokenizer=self.tokenizer, allow_pickle=self.allow_pickle)
        size = sum(p.numel() for p in made.model.parameters())
        print(f"{self.out}: {size:,} parameters of the recipe {made.config.recipe}")
        print(f"Next: textdiffusion sample {self.out} --watch")
