"""How a model is trained: the part `training` of a configuration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ..core.errors import UserError
from ..core.randomness import check_seed


@dataclass(frozen=True)
class Training:
    """Settings of the optimizer, the learning rate, the limits and the intervals of training.

    Learning rates are per step; intervals are in optimizer steps.
    """

    steps: int = 5000
    batch_size: int = 32
    """Rows of the global batch: all processes and accumulated micro-batches together."""
    grad_accumulation: int = 1
    """Micro-batches per step and process; more of them save memory."""
    max_minutes: float = 0.0
    """Minutes of training steps, over all resumes, after which the run is complete (0: no limit)."""
    max_cpu_seconds: float = 0.0
    """The same in CPU-seconds of all threads and processes; compilation and validation do not count."""
    lr: float = 3e-3
    warmup: int = 100
    """Steps until the full learning rate; at most a twentieth of `steps`."""
    decay: Literal["linear", "cosine", "exponential", "inverse_sqrt", "constant"] = "linear"
    """The learning rate from the warm-up to the end of the run; `inverse_sqrt` falls as 1 / sqrt(step). The run ends at
    the last step or at a time limit, whichever comes first. With a time limit the learning rate follows the clock, and
    two runs are no longer equal bit for bit."""
    min_lr_ratio: float = 0.0
    """The learning rate at the end of linear, cosine and exponential decay, as a fraction of the full one."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """Muon orthogonalises the updates of the blocks' matrices, except their modulation; AdamW updates all else."""
    muon_lr: float = 0.01
    weight_decay: float = 0.0
    beta2: float = 0.99
    grad_clip: float = 1.0
    """Largest global norm of the gradient (0: no limit)."""
    density_lr: float = 0.01
    """Learning rate of the time density and of a learned schedule's end points."""
    codec_lr: float = 0.0
    """Learning rate of learned embeddings (0: `lr`)."""
    ema: float = 0.9999
    """Decay of the averaged weights, reached slowly: min(ema, (1 + n) / (10 + n)) at step n (0: no average)."""
    seed: int = 0
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    parallel: Literal["auto", "ddp", "fsdp"] = "auto"
    """What each process of torchrun holds: the complete model (ddp), or a part of every tensor (fsdp). auto: the model
    if it takes no more than half of a GPU's memory."""
    log_every: int = 10
    eval_every: int = 0
    """Steps between validations (0: about ten validations per run)."""
    eval_windows: int = 64
    sample_every: int = 0
    """Steps between samples on screen (0: at every validation)."""
    num_samples: int = 2
    checkpoint_every: int = 0
    """Steps between checkpoints (0: at every validation)."""
    keep_checkpoints: int = 3
    """How many of the latest checkpoints to keep, besides the best one."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "grad_accumulation", "log_every", "eval_windows", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise UserError(f"training.{name} is {getattr(self, name)}; it must be at least 1.")
        if self.batch_size % self.grad_accumulation:
            raise UserError(
                f"training.batch_size is {self.batch_size}; it must be a multiple of training.grad_accumulation, "
                f"which is {self.grad_accumulation}."
            )
        intervals = ("eval_every", "sample_every", "checkpoint_every")
        limits = ("max_minutes", "max_cpu_seconds", "grad_clip")
        rates = ("lr", "muon_lr", "density_lr", "codec_lr", "weight_decay")
        for name in ("warmup", "num_samples", *limits, *intervals, *rates):
            if not 0 <= getattr(self, name) < math.inf:  # nan is outside too
                raise UserError(f"training.{name} is {getattr(self, name)}; it must be a number of at least 0.")
        check_seed(self.seed, "training.seed")
        for name in ("ema", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"training.{name} is {getattr(self, name)}; it must be in [0, 1).")
        self._check_decay()
        if self.optimizer != "muon" and self.muon_lr != type(self).muon_lr:
            raise UserError(
                f"training.muon_lr has no effect with training.optimizer={self.optimizer}; set training.optimizer=muon."
            )

    def _check_decay(self) -> None:
        if not 0 <= self.min_lr_ratio <= 1:
            raise UserError(f"training.min_lr_ratio is {self.min_lr_ratio}; it must be in [0, 1].")
        if self.min_lr_ratio and self.decay in ("inverse_sqrt", "constant"):
            raise UserError(f"training.min_lr_ratio has no effect with training.decay={self.decay}.")
        if self.decay == "exponential" and not self.min_lr_ratio:
            raise UserError("training.decay=exponential never reaches 0; set training.min_lr_ratio, e.g. to 0.01.")
