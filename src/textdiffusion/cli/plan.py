"""`textdiffusion plan RECIPE --gpus 8 --memory 80`"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from ..core.errors import UserError
from .output import print_json, print_line, print_table

if TYPE_CHECKING:
    from ..config.config import Config


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Show the memory that training takes on one GPU, on several with complete models (ddp), and divided (fsdp).

    Nothing is allocated, so any size can be planned on any machine. GB are 1e9 bytes.
    """

    recipe: Annotated[str, Positional, arg(metavar="RECIPE")]
    """A name from `textdiffusion recipes`."""
    gpus: int = 1
    """Number of GPUs."""
    memory: float = 80.0
    """Memory of one GPU in GB."""
    variant: str = "default"
    """Recipe variant."""
    size: Literal["recipe", "tiny", "small", "base"] = "recipe"
    """Network size, as for train."""
    length: int = 0
    """Tokens per window (0 = the recipe's, or 1,024 where it leaves that to the text)."""
    vocab_size: int = 0
    """Tokens of the vocabulary (0 = that of --init, or the recipe's, or 8,192)."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Features are computed in this type."""
    set: Annotated[UseAppendAction[tuple[tuple[str, ...], ...]], arg(metavar="KEY=VALUE ...")] = ()
    """Set any field of config.json by its path, as for train."""
    init: str = ""
    """Plan to start from this run, whose network and vocabulary count."""
    json: bool = False
    """Print JSON."""

    def execute(self) -> None:
        import torch

        from ..core.memory import size
        from ..training.memory import ActivationBytes, StateBytes, layouts

        for name in ("gpus", "memory"):
            if not 0 < getattr(self, name) < 1e6:
                raise UserError(f"--{name} is {getattr(self, name)}; it must be above 0 and below a million.")
        config, vocab_size = self._config()
        state = StateBytes.of(config, vocab_size)
        activations = ActivationBytes.of(config, vocab_size, getattr(torch, self.dtype))
        plans = layouts(state, activations, self.gpus, int(1e9 * self.memory))
        if self.json:
            print_json(
                {
                    "vocab_size": vocab_size,
                    "length": config.text.length,
                    "state": asdict(state),
                    "activations": asdict(activations),
                    "layouts": [asdict(plan) | {"fits": plan.fits} for plan in plans],
                }
            )
            return
        frozen = f", {state.trainable:,} of them trained" if state.trainable < state.parameters else ""
        print_line(
            f"{config.recipe}: {state.parameters:,} parameters{frozen}; windows of {config.text.length:,} tokens, "
            f"a vocabulary of {vocab_size:,}; {self.gpus} GPUs of {self.memory:g} GB."
        )
        print_line(
            f"A row of the batch adds {size(activations.row)} of activations ({size(activations.row_checkpointed)} "
            f"with gradient checkpointing) and at most {size(activations.row_logits)} of logits.\n"
        )
        rows = []
        for plan in plans:
            parts = (plan.weights, plan.gradients, plan.optimizer, plan.average, plan.gathered)
            sizes = [size(part) for part in (*parts, max(0, plan.free))]
            counts = [str(plan.rows), str(plan.rows_checkpointed)]
            rows.append([plan.name, *sizes, *(counts if plan.fits else ["does not fit", ""])])
        columns = ("PER GPU", "WEIGHTS", "GRADIENTS", "OPTIMIZER", "AVERAGE", "COMPLETE FOR A MOMENT", "LEFT")
        print_table((*columns, "ROWS", "ROWS, CHECKPOINTING"), rows)
        fitting = next((plan for plan in plans[-2:] if plan.fits), plans[-1])
        if not fitting.fits:
            print_line("\nNothing fits: use more GPUs, a shorter text.length, or an adapter (backbone.lora_rank=16).")
            return
        checkpointed = not fitting.rows
        settings = ["backbone.gradient_checkpointing=true"] if checkpointed else []
        micro = self.gpus * (fitting.rows_checkpointed if checkpointed else fitting.rows)
        settings += [f"training.parallel={fitting.name}"] if fitting.name != "one GPU" else []
        batch = config.training.batch_size
        parts = (n for n in range(-(-batch // micro), batch + 1) if batch % (n * self.gpus) == 0)
        if (accumulated := next(parts, 0)) == 0:  # no number of equal parts fits
            settings.append(f"training.batch_size={micro}")
        elif accumulated > 1:
            settings.append(f"training.grad_accumulation={accumulated}")
        launcher = "" if self.gpus == 1 else f"torchrun --nproc-per-node {min(self.gpus, 8)} -m "
        options = f" --set {' '.join(settings)}" if settings else ""
        print_line(f"\n{launcher}textdiffusion train {self.recipe} --data ... --out ...{options}")

    def _config(self) -> tuple[Config, int]:
        from .. import recipes
        from ..config.overrides import apply_overrides, with_size
        from ..data.tokenizers.loading import load
        from ..storage.hub import find_run
        from ..training.initial import with_network_of

        config = recipes.get(self.recipe)(self.variant)
        if self.size != "recipe":
            config = with_size(config, self.size)
        config = apply_overrides(config, [setting for group in self.set for setting in group])
        vocab_size = self.vocab_size or config.text.vocab_size or 8192
        if self.init:
            run: Path = find_run(self.init)
            config = with_network_of(config, run)
            vocab_size = load(run / "tokenizer.json").vocab_size
        return replace(config, text=replace(config.text, length=self.length or config.text.length or 1024)), vocab_size
