"""The cost of a run's training, and its validations, as its folder recorded them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..storage.metrics_log import history


@dataclass(frozen=True)
class TrainingLog:
    """The cost of training, and its validations: CPU-seconds, bits per character, standard error."""

    steps: int
    tokens: int
    cpu_seconds: float
    validations: tuple[tuple[float, float, float | None], ...]


def read_training_log(folder: Path | None) -> TrainingLog | None:
    """The cost and validations in `metrics.jsonl` of a run; None where training was not logged."""
    events = history(folder)
    logged = [data for data in events if data["event"] == "logged" and "cpu_seconds" in data]
    if not logged:
        return None
    validations = tuple(
        (data["cpu_seconds"], data["bits"], data["error"])
        for data in events
        if data["event"] == "validated" and data["bits"] is not None and "cpu_seconds" in data
    )
    return TrainingLog(logged[-1]["step"], logged[-1]["tokens"], logged[-1]["cpu_seconds"], validations)
