"""`textdiffusion train RECIPE --data PATH --out RUN`"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from tyro.conf import Positional, UseAppendAction, arg

from ..core.errors import UserError
from .output import print_line

if TYPE_CHECKING:
    from ..config.config import Config
    from ..data.config import TextConfig

MIN_MINUTES_TO_COMPILE = 10.0  # minutes below which a run that is limited only by time is not compiled
UNLIMITED = 1_000_000  # steps of a run that is limited only by time


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a recipe on a text. Repeat the command to continue a run that was stopped.

    `textdiffusion recipes` lists the recipes. Ctrl-C saves and stops.
    """

    recipe: Annotated[str, Positional, arg(metavar="RECIPE")]
    """A name from `textdiffusion recipes`."""
    data: str
    """A text file, folder or glob (also .gz, .jsonl, .parquet), - (standard input), hf:NAME, shakespeare, grammar or a
    task (sudoku)."""
    out: str
    """Folder for the run."""
    variant: str = "default"
    """Recipe variant, e.g. as_published."""
    size: Literal["recipe", "tiny", "small", "base"] = "recipe"
    """Network size: tiny (width 128, 4 blocks, 0.8 M parameters), small (384, 6, 11 M) or base (768, 12, 85 M);
    embeddings and n-gram tables come on top."""
    steps: int = 0
    """Training steps (0 = the recipe's, or as many as fit into --max-minutes)."""
    max_minutes: float = 0.0
    """Minutes to train (0 = no limit)."""
    batch_size: int = 0
    """Rows per step (0 = the recipe's)."""
    length: int = 0
    """Tokens per window (0 = the recipe's, which most leave to the text)."""
    tokenizer: str = ""
    """auto (what suits the text), characters, bytes, words, bpe, wordpiece, sentencepiece, or a file or folder to load
    (empty = the recipe's, mostly auto)."""
    layout: Literal["recipe", "auto", "stream", "lines", "documents"] = "recipe"
    """Read one running text (stream), or one example per line or document, whose ends the model then learns, or what
    suits the text (auto, the default of most recipes)."""
    set: Annotated[UseAppendAction[tuple[tuple[str, ...], ...]], arg(metavar="KEY=VALUE ...")] = ()
    """Set any field of config.json by its path: backbone.width=384 training.lr=1e-3 text.mask=mixed."""
    init: str = ""
    """Fine-tune: start from the weights and tokenizer of this run."""
    init_network: bool = False
    """With --init: also take the settings of that run's network (codec, backbone, denoiser)."""
    resume: Literal["auto", "never", "always"] = "auto"
    """Continue a run in the folder: if there is one (auto), never, or always."""
    allow_changes: bool = False
    """Continue it with another learning rate, batch size or weight decay (--set training.lr=...) than it began with."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Run on this device."""
    track: Literal["none", "tensorboard"] = "none"
    """Log to this tracker besides metrics.jsonl (needs the extra `track`)."""

    def execute(self) -> None:
        if self.track == "tensorboard" and find_spec("tensorboard") is None:
            raise UserError("--track tensorboard needs the extra `track`: pip install 'textdiffusion[track]'.")
        config = self.config()
        from ..training.run import train

        last = train(
            config,
            self.out,
            resume=self.resume,
            init=self.init or None,
            init_network=self.init_network,
            allow_changes=self.allow_changes,
            device=self.device,
            track=() if self.track == "none" else (self.track,),
        )
        if last.complete and os.environ.get("RANK", "0") == "0":  # torchrun starts several of these
            print_line(f"Next: textdiffusion sample {self.out} --watch, or textdiffusion evaluate {self.out}")

    def config(self) -> Config:
        """The recipe's configuration with the options applied, --set last. Raises UserError where they do not fit."""
        from .. import recipes
        from ..config.overrides import apply_overrides, with_size

        config = recipes.get(self.recipe)(self.variant)
        if self.size != "recipe":
            config = with_size(config, self.size)
        for option in ("steps", "max_minutes", "batch_size", "length"):
            if getattr(self, option) < 0:
                raise UserError(f"--{option.replace('_', '-')} is {getattr(self, option)}; it must be at least 0.")
        config = replace(config, text=self._text(config.text))
        config = replace(config, training=replace(config.training, **self._training()))
        settings = [setting for group in self.set for setting in group]
        changed = apply_overrides(config, settings)
        if self.layout in ("recipe", "auto", "stream") or changed.text.packing:
            return changed
        # A model trained to predict padding knows where examples end; without it, only their beginnings are right.
        return apply_overrides(config, ["text.model_padding=true", *settings])

    def _text(self, text: TextConfig) -> TextConfig:
        from ..data.builtin.tasks import parse_task
        from ..data.tables import TABLE_SUFFIXES

        task = parse_task(self.data)
        options: dict[str, Any] = {"data": self.data} | (task.text_settings() if task else {})
        table = self.data.startswith("hf:") or any(suffix in self.data for suffix in TABLE_SUFFIXES)
        if self.data != text.data and not table:
            options["field"] = ""  # the recipe's own field is of its own data
        if self.length:
            options["length"] = self.length
        # With another layout or tokenizer, the recipe's own settings stay where they still make sense.
        if self.layout != "recipe":
            options |= {"layout": self.layout, "model_padding": False}
        if self.layout in ("auto", "stream"):
            options |= {"packing": False, "too_long": "truncate"}
        if self.tokenizer:
            from ..data.config import TokenizerKind

            kind = self.tokenizer if self.tokenizer in get_args(TokenizerKind) else "file"
            options |= {"tokenizer": kind, "vocab_size": 0, "tokenizer_path": self.tokenizer if kind == "file" else ""}
            options["subword_sampling"] = text.subword_sampling if kind == "sentencepiece" else 0.0
        return replace(text, **options)

    def _training(self) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if self.batch_size:
            options["batch_size"] = self.batch_size
        if self.max_minutes:
            options["max_minutes"] = self.max_minutes
        if self.steps:
            options["steps"] = self.steps
        elif self.max_minutes:
            options["steps"] = UNLIMITED
            # `compile=auto` decides by the number of steps, which is unknown here.
            options |= {"compile": "off"} if self.max_minutes < MIN_MINUTES_TO_COMPILE else {}
        return options
