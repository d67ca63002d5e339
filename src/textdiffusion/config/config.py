"""The frozen configuration of a run, and its JSON."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Literal

from ..core.errors import UserError
from ..core.registry import from_dict, to_dict
from ..data.config import TextConfig
from ..objectives.base import Likelihood, Objective
from ..parts import (
    CodecPart,
    DenoiserPart,
    DensityPart,
    ProcessPart,
    SamplerPart,
    TrunkPart,
)
from .compatibility import check

SCHEMA = 2


@dataclass(frozen=True)
class Training:
    """How a model is trained."""

    steps: int = 5000
    batch_size: int = 32
    """Rows of the global batch: all ranks and accumulated parts together."""
    grad_accumulation: int = 1
    """Parts into which a rank cuts its share of the batch to save memory."""
    max_minutes: float = 0.0
    """Minutes of training steps, over all resumes, after which the run is complete (0: no limit)."""
    max_cpu_seconds: float = 0.0
    """The same in CPU-seconds of all threads and ranks; compilation and validation do not count."""
    lr: float = 3e-3
    warmup: int = 100
    """Steps until the full learning rate; at most a twentieth of `steps`."""
    decay: Literal["linear", "cosine", "exponential", "inverse_sqrt", "constant"] = "linear"
    """From the warm-up to the end of the run, to the floor; `inverse_sqrt` falls as 1 / sqrt(step). The end is the last
    step or the end of a time limit, whichever comes first; with a time limit the learning rate follows the clock, and
    two runs are no longer bit for bit alike."""
    min_lr_ratio: float = 0.0
    """The share of the learning rate that is left at the end of linear, cosine and exponential decay."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """Muon orthogonalises the updates of the blocks' matrices, but for their modulation; all else is AdamW's."""
    muon_lr: float = 0.01
    weight_decay: float = 0.0
    beta2: float = 0.99
    grad_clip: float = 1.0
    """Largest global norm of the gradient (0: no limit)."""
    density_lr: float = 0.01
    """Of the noise density, and of the ends of a learned schedule."""
    codec_lr: float = 0.0
    """Of learned embeddings (0: as `lr`)."""
    ema: float = 0.9999
    """Decay of the averaged weights, reached slowly: min(ema, (1 + n) / (10 + n)) at step n (0: no average)."""
    seed: int = 0
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    log_every: int = 10
    eval_every: int = 0
    """Steps between validations (0: about ten in a run)."""
    eval_windows: int = 64
    sample_every: int = 0
    """Steps between samples on screen (0: at every validation)."""
    num_samples: int = 2
    checkpoint_every: int = 0
    """Steps between checkpoints (0: at every validation)."""
    keep_checkpoints: int = 3
    """Latest checkpoints kept, beside the best."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "grad_accumulation", "log_every", "eval_windows", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise UserError(f"training.{name} is {getattr(self, name)}; it must be at least 1.")
        if self.batch_size % self.grad_accumulation:
            raise UserError(
                f"training.batch_size {self.batch_size} is not a multiple of grad_accumulation {self.grad_accumulation}."
            )
        limits, intervals = (
            ("max_minutes", "max_cpu_seconds", "grad_clip"),
            ("eval_every", "sample_every", "checkpoint_every"),
        )
        rates = ("lr", "muon_lr", "density_lr", "codec_lr", "weight_decay")
        for name in ("warmup", "num_samples", *limits, *intervals, *rates):
            if not 0 <= getattr(self, name) < math.inf:  # nan is outside too
                raise UserError(f"training.{name} is {getattr(self, name)}; it must be a number of at least 0.")
        if not 0 <= self.min_lr_ratio <= 1:
            raise UserError(f"training.min_lr_ratio is {self.min_lr_ratio}; it must be in [0, 1].")
        if self.min_lr_ratio and self.decay in ("inverse_sqrt", "constant"):
            raise UserError(f"training.min_lr_ratio has no effect on training.decay={self.decay}.")
        if self.decay == "exponential" and not self.min_lr_ratio:
            raise UserError(
                "training.decay=exponential never comes to 0; set training.min_lr_ratio to where it ends, as 0.01."
            )
        if self.optimizer != "muon" and self.muon_lr != type(self).muon_lr:
            raise UserError(f"training.muon_lr has no effect on training.optimizer={self.optimizer}; set it to muon.")
        for name in ("ema", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"training.{name} is {getattr(self, name)}; it must be in [0, 1).")


@dataclass(frozen=True)
class Config:
    """Everything that defines a run. `recipe` and `variant` are its name, nothing branches on them."""

    recipe: str
    variant: str
    text: TextConfig
    codec: CodecPart
    process: ProcessPart
    time_density: DensityPart
    backbone: TrunkPart
    denoiser: DenoiserPart
    objective: Objective
    likelihood: Likelihood
    sampler: SamplerPart
    training: Training = field(default_factory=Training)
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        check(self)


def dumps(config: Config) -> str:
    """The JSON text of a configuration."""
    return json.dumps(to_dict(config), indent=2) + "\n"


def loads(text: str, where: str = "config.json") -> Config:
    """Reads `dumps`' text. Raises UserError naming the key that does not fit, or a schema this version cannot read."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where} is not JSON: {error}.") from None
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema != SCHEMA:
        raise UserError(f"{where} has schema {schema!r}; this version reads {SCHEMA}.")
    try:
        return from_dict(Config, data, where)
    except UserError as error:
        raise UserError(f"{error} If another version of textdiffusion wrote it, use that one.") from None
