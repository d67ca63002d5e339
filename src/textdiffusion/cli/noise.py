"""`textdiffusion noise TEXT`"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from ..core.errors import UserError
from .output import console, note, print_json, print_line

if TYPE_CHECKING:
    from ..data.tokenizers.base import Tokenizer

NUM_FRAMES = 48  # of an animation


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Show how the forward process noises a sentence: that of a run, or masks on characters, which need no run."""

    text: Annotated[str, Positional, arg(metavar="TEXT")]
    """A sentence, in quotes."""
    t: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    """Noise levels between 0 (clean) and 1 (noise)."""
    run: str = ""
    """Use the process and tokenizer of this run (empty = masks on characters)."""
    seed: int = 0
    """The same seed gives the same noise."""
    gif: str = ""
    """Save a GIF from clean text to noise (needs the extra `plot`)."""
    json: bool = False
    """Print JSON."""

    def execute(self) -> None:
        if not self.text:
            raise UserError("The text is empty.")
        from ..core.terminal import visible
        from ..inference.noising import noising
        from ..views.frames import State, frames

        tokenizer, codec, process, text = self._parts()
        shown = list(frames(noising(text, self.t, tokenizer, codec, process, seed=self.seed), tokenizer))
        undecided = "_" if console().options.ascii_only else "░"
        lines = [
            "".join(undecided if cell.state is State.UNDECIDED else visible(cell.text) for cell in frame.rows[0])
            for frame in shown
        ]
        if self.json:
            print_json([{"t": t, "text": line} for t, line in zip(self.t, lines, strict=True)])
        else:
            for t, line in zip(self.t, lines, strict=True):
                print_line(f"t = {t:<5g} {line}")
        if self.gif:
            from ..views.gif import write_gif

            levels = [i / (NUM_FRAMES - 1) for i in range(NUM_FRAMES)]
            write_gif(
                frames(noising(text, levels, tokenizer, codec, process, seed=self.seed), tokenizer), Path(self.gif)
            )
            note(f"Saved {self.gif}.")

    def _parts(self) -> tuple[Tokenizer, Any, Any, str]:
        """Tokenizer, codec and process, and the text as the run reads it."""
        if self.run:
            from ..data.normalisers import normalise
            from ..inference.api import TextDiffusion

            run = TextDiffusion.from_pretrained(self.run, device="cpu")
            text = normalise(run.config.text.normaliser, self.text)
            return run.tokenizer, run.model.codec, run.model.process, text
        from ..data.tokenizers.base import Characters
        from ..diffusion.absorbing import AbsorbingProcess
        from ..diffusion.alpha_schedules import Linear
        from ..diffusion.codecs import TokenCodec

        tokenizer = Characters(self.text)
        vocab_size = tokenizer.vocab_size
        return tokenizer, TokenCodec(vocab_size), AbsorbingProcess(vocab_size, Linear()), self.text
