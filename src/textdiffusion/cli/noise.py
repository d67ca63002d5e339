"""`textdiffusion noise TEXT`"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from ..core.errors import UserError
from .output import console, note, print_json

if TYPE_CHECKING:
    from ..data.tokenizers.base import Tokenizer

FRAMES = 48  # of an animation


@dataclass(frozen=True, kw_only=True)
class Command:
    """Show on a sentence what the forward process does, of a run or with masks on characters. It needs no model."""

    text: Annotated[str, Positional, arg(metavar="TEXT")]
    """A sentence, in quotes."""
    t: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    """Noise levels between 0 (clean) and 1 (noise)."""
    run: str = ""
    """Show the process and tokenizer of this run."""
    seed: int = 0
    gif: str = ""
    """Save an animation from clean to noise (extra `plot`)."""
    json: bool = False
    """Print JSON."""

    def execute(self) -> None:
        if not self.text:
            raise UserError("There is no text to put noise on.")
        from ..inference.noising import noising
        from ..views.frames import State, frames, visible

        parts = self._parts()
        shown = list(frames(noising(self.text, self.t, *parts, seed=self.seed), parts[0]))
        hole = "_" if console().options.ascii_only else "░"
        lines = [
            "".join(hole if cell.state is State.UNDECIDED else visible(cell.text) for cell in frame.rows[0])
            for frame in shown
        ]
        if self.json:
            print_json([{"t": t, "text": line} for t, line in zip(self.t, lines, strict=True)])
        else:
            for t, line in zip(self.t, lines, strict=True):
                print(f"t = {t:<5g} {line}")
        if self.gif:
            from ..views.gif import write_gif

            levels = [i / (FRAMES - 1) for i in range(FRAMES)]
            write_gif(frames(noising(self.text, levels, *parts, seed=self.seed), parts[0]), Path(self.gif))
            note(f"Saved {self.gif}.")

    def _parts(self) -> tuple[Tokenizer, Any, Any]:
        """Tokenizer, codec and process."""
        if self.run:
            from ..inference.api import TextDiffusion

            model = TextDiffusion.from_pretrained(self.run, device="cpu")
            return model.tokenizer, model.model.codec, model.model.process
        from ..data.tokenizers.base import Characters
        from ..diffusion.absorbing import AbsorbingProcess
        from ..diffusion.alpha_schedules import Linear
        from ..diffusion.codecs import TokenCodec

        tokenizer = Characters(self.text)
        vocab = tokenizer.vocab_size
        return tokenizer, TokenCodec(vocab), AbsorbingProcess(vocab, Linear())
