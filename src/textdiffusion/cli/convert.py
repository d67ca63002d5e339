"""`textdiffusion convert SOURCE --out RUN`"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from .output import note, print_line


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Turn published weights into a run: LLaDA, Dream, SDAR, Fast-dLLM v2 and others, or SEDD, MDLM and RADD.

    Their config.json or .hydra/config.yaml must be beside them. See docs/large-models.md.
    """

    source: Annotated[str, Positional, arg(metavar="SOURCE")]
    """A folder with weights, a file of weights, or a repository id on the hub."""
    out: str
    """Folder for the run."""
    copy: bool = False
    """Copy a language model's weights into the run, which otherwise refers to them where they are."""
    block: int | None = None
    """Tokens per block of a language model's attention, 0 for attention to everything (default: as published)."""
    mask: str = ""
    """The token that stands for the mask, for a language model that has none of its own."""
    tokenizer: str = ""
    """A tokenizer.json, a folder with GPT-2's vocab.json and merges.txt, or `bytes` (empty = the one in the source)."""
    allow_pickle: bool = False
    """Also read .bin, .pth and .ckpt files; only do so for sources you trust."""

    def execute(self) -> None:
        from ..published.conversion import convert

        if self.allow_pickle:
            note("Pickle files can contain programs. Only tensors are read from them, but use only sources you trust.")
        run = convert(
            self.source,
            self.out,
            tokenizer=self.tokenizer,
            allow_pickle=self.allow_pickle,
            copy=self.copy,
            block=self.block,
            mask=self.mask,
        )
        size = sum(p.numel() for p in run.model.parameters())
        print_line(f"{self.out}: {size:,} parameters, recipe {run.config.recipe} ({run.config.variant})")
        if run.config.variant == "causal":
            note("This is a causal model, which has yet to learn to denoise.")
            print_line(
                f"Next: textdiffusion train adapted --init {self.out} --init-network --data my.txt --out runs/mine"
            )
        else:
            print_line(f"Next: textdiffusion sample {self.out} --watch")
