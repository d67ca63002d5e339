"""`textdiffusion distill RUN --steps 8 --out RUN2`"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import UseAppendAction, arg

from .output import print_line
from .parsing import RunName
from .train import UNLIMITED


@dataclass(frozen=True, kw_only=True)
class Distill:
    """Distil a run of masks or uniform noise into one that writes in fewer steps. Repeat the command to continue.

    Rounds halve the steps of the run's sampler until --steps are left; the run of each round stays in a folder of its
    own (OUT-16-steps). All are ordinary runs. Ctrl-C saves and stops.
    """

    run: RunName
    """The run's folder, a name from `textdiffusion models`, or a repository id on the hub."""
    out: str
    """Folder for the distilled run."""
    steps: int = 8
    """Sampling steps of the distilled run."""
    teacher_steps: int = 0
    """Where the halving begins (0 = the steps of the run's own sampler)."""
    data: str = ""
    """Training text (empty = the run's own)."""
    divergence: Literal["forward", "reverse"] = "forward"
    """forward keeps the teacher's diversity, reverse gives sharper text."""
    steps_per_round: int = 0
    """Training steps of each round (0 = 1000, or as many as fit into the limits)."""
    max_minutes: float = 0.0
    """Minutes for all rounds together (0 = no limit)."""
    max_cpu_seconds: float = 0.0
    """CPU-seconds for all rounds together (0 = no limit)."""
    lr_scale: float = 0.1
    """Learning rates as a fraction of the run's."""
    set: Annotated[UseAppendAction[tuple[tuple[str, ...], ...]], arg(metavar="KEY=VALUE ...")] = ()
    """Set any field of config.json by its path: training.batch_size=64."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Run on this device."""

    def execute(self) -> None:
        from ..training.distillation import distill

        last = distill(
            self.run,
            self.out,
            steps=self.steps,
            teacher_steps=self.teacher_steps,
            data=self.data,
            divergence=self.divergence,
            lr_scale=self.lr_scale,
            settings=[setting for group in self.set for setting in group],
            device=self.device,
            steps_per_round=self.steps_per_round or (UNLIMITED if self.max_minutes or self.max_cpu_seconds else 1000),
            max_minutes=self.max_minutes,
            max_cpu_seconds=self.max_cpu_seconds,
        )
        if last.complete and os.environ.get("RANK", "0") == "0":
            print_line(f"Next: textdiffusion sample {self.out} --watch")
