"""`textdiffusion convert SOURCE --out RUN`"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from .output import note, print_line


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Turn published SEDD, MDLM or RADD weights into a run.

    Their config.json or .hydra/config.yaml must be in the same folder.
    """

    source: Annotated[str, Positional, arg(metavar="SOURCE")]
    """A folder with weights, or a file of weights."""
    out: str
    """Folder for the run."""
    tokenizer: str = ""
    """A tokenizer.json, a folder with GPT-2's vocab.json and merges.txt, or `bytes` (empty = the one in the source)."""
    allow_pickle: bool = False
    """Also read .bin, .pth and .ckpt files; only do so for sources you trust."""

    def execute(self) -> None:
        from ..published.conversion import convert

        if self.allow_pickle:
            note("Pickle files can contain programs. Only tensors are read from them, but use only sources you trust.")
        run = convert(self.source, self.out, tokenizer=self.tokenizer, allow_pickle=self.allow_pickle)
        size = sum(p.numel() for p in run.model.parameters())
        print_line(f"{self.out}: {size:,} parameters, recipe {run.config.recipe}")
        print_line(f"Next: textdiffusion sample {self.out} --watch")
