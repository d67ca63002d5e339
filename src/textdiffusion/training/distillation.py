"""Distillation of a run into one that takes fewer steps, in rounds that halve the steps of its sampler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from ..config.config import Config
from ..config.overrides import apply_overrides
from ..core.errors import UserError
from ..diffusion.dual import DualAbsorbing
from ..objectives.distillation import Distillation
from ..storage.hub import find_run
from .events import Finished
from .initial import config_of
from .run import train


def distill(
    run: str | Path,
    out: str | Path,
    *,
    steps: int = 8,
    teacher_steps: int = 0,
    data: str = "",
    divergence: Literal["forward", "reverse"] = "forward",
    lr_scale: float = 0.1,
    settings: Sequence[str] = (),
    device: str = "auto",
    **limits: Any,
) -> Finished:
    """Distils `run` into a run in the folder `out` whose sampler takes `steps` steps; returns the last event.

    Each round is a run of its own that starts from the averaged weights of the one before, its teacher, and learns to
    take half as many steps: `OUT-32-steps`, `OUT-16-steps`, ..., and at last `OUT` itself. `teacher_steps` is where the
    halving begins (0: the steps of the run's sampler), `data` the training text (empty: the run's own), `lr_scale` the
    learning rate as a fraction of the run's. `limits` are `steps_per_round`, `max_minutes` and `max_cpu_seconds`; time
    is divided evenly among the rounds. `settings` are those of `--set`. Called again it continues where it stopped.

    Raises UserError for a process that cannot be distilled, for `steps` that are not below the teacher's, and as
    `train` does.
    """
    folder = find_run(run)
    teacher = config_of(folder)
    teacher_steps = teacher_steps or teacher.sampler.steps or teacher.text.length
    if not 1 <= steps < teacher_steps:
        raise UserError(f"steps is {steps}; it must be at least 1 and below the teacher's {teacher_steps}.")
    if data:
        teacher = replace(teacher, text=replace(teacher.text, data=data, valid="", test=""))
    sizes = rounds(teacher_steps, steps)
    paths = [Path(out) if size == steps else Path(f"{out}-{size}-steps") for size in sizes]
    training = _training(teacher, lr_scale, len(sizes), **limits)
    objective = objective_for(teacher)
    first = max((i for i, path in enumerate(paths) if (path / "config.json").is_file()), default=0)
    last: Finished | None = None
    for i in range(first, len(sizes)):
        config = replace(
            teacher,
            objective=objective(steps=sizes[i], divergence=divergence, origin=str(run)),
            sampler=replace(teacher.sampler, steps=sizes[i]),
            training=training,
        )
        config = apply_overrides(config, list(settings))
        last = train(config, paths[i], init=paths[i - 1] if i else folder, device=device)
        if not last.complete:
            break
    assert last is not None
    return last


def rounds(teacher_steps: int, steps: int) -> list[int]:
    """The steps of the student of each round: `steps` times powers of two, the largest less than the teacher's."""
    sizes = [steps]
    while sizes[0] * 2 < teacher_steps:
        sizes.insert(0, sizes[0] * 2)
    return sizes


def objective_for(config: Config) -> type[Distillation]:
    """The distillation of a run's process. Raises UserError where there is none."""
    if isinstance(config.process, DualAbsorbing):
        raise UserError("A run of dual training cannot be distilled: it writes from left to right, one token per step.")
    kinds = Distillation.choices().values()
    for kind in kinds:
        if issubclass(type(config.process).module or object, kind.processes):
            return kind
    allowed = " or ".join(process.__name__ for kind in kinds for process in kind.processes)
    raise UserError(f"A run of process.kind={config.process.kind} cannot be distilled: that needs {allowed}.")


def _training(
    config: Config,
    lr_scale: float,
    num_rounds: int,
    *,
    steps_per_round: int = 1000,
    max_minutes: float = 0.0,
    max_cpu_seconds: float = 0.0,
) -> Any:
    """The training of each round: the run's own, with its limits and a lower learning rate."""
    training = config.training
    return replace(
        training,
        steps=steps_per_round,
        max_minutes=max_minutes / num_rounds,
        max_cpu_seconds=max_cpu_seconds / num_rounds,
        lr=training.lr * lr_scale,
        muon_lr=training.muon_lr * lr_scale if training.optimizer == "muon" else training.muon_lr,
        decay="linear",
        min_lr_ratio=0.0,
        eval_every=0,
        sample_every=0,
        checkpoint_every=0,
    )
