"""`textdiffusion train-classifier RUN --data FILE --out FOLDER`"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .output import note, print_json, status
from .parsing import RunName


@dataclass(frozen=True, kw_only=True)
class Command:
    """Train a classifier of a run's noisy texts, to steer with: --guide classifier:path=FOLDER,label=LABEL.

    It shares the run's tokenizer, states and noise, and works with no other run.
    """

    run: RunName
    """The run's folder, or its repository id on the hub."""
    data: str
    """Labelled texts: lines `text TAB label`, or .jsonl or .csv with `text` and `label`."""
    out: str
    """The classifier's folder."""
    steps: int = 1000
    """Training steps."""
    width: int = 128
    depth: int = 2
    batch_size: int = 64
    lr: float = 1e-3
    seed: int = 0
    json: bool = False
    """Print JSON."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"

    def execute(self) -> None:
        from ..data.labels import read_labelled
        from ..guidance.trained_classifier import run_fingerprint
        from ..inference.api import TextDiffusion
        from ..training.classifier import ClassifierConfig, train_classifier

        settings = ClassifierConfig(self.width, self.depth, self.steps, self.batch_size, self.lr, seed=self.seed)
        examples = read_labelled(self.data)
        run = TextDiffusion.from_pretrained(self.run, device=self.device)
        with status("Training ...") as say:
            made, right = train_classifier(
                run,
                examples,
                settings,
                progress=lambda share, loss: say(f"Training: {share:.0%}, {loss:.3f} nats"),
            )
        made.save(Path(self.out), {"data": self.data, "right": right, "run": run_fingerprint(run)})
        if self.json:
            print_json({"labels": list(made.labels), "right": right})
        else:
            print("Right on held-out texts: " + ", ".join(f"{share:.1%} at t={t}" for t, share in right.items()))
            note(f"Next: textdiffusion sample {self.run} --guide classifier:path={self.out},label={made.labels[0]}")
