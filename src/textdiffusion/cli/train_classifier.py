"""`textdiffusion train-classifier RUN --data FILE --out FOLDER`"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .output import note, print_json, print_line, status
from .parsing import RunName


@dataclass(frozen=True, kw_only=True)
class TrainClassifier:
    """Train a classifier that steers a run: sample RUN --guide classifier:path=FOLDER,label=LABEL.

    It reads noisy texts with the run's tokenizer, codec and process, and works only with this run.
    """

    run: RunName
    """The run's folder, a name from `textdiffusion models`, or a repository id on the hub."""
    data: str
    """Labelled texts: lines of text, tab, label; or .jsonl or .csv with the fields `text` and `label`."""
    out: str
    """Folder for the classifier."""
    steps: int = 1000
    """Training steps."""
    width: int = 128
    """Width of the network."""
    depth: int = 2
    """Number of blocks."""
    batch_size: int = 64
    """Texts per step."""
    lr: float = 1e-3
    """Learning rate."""
    balanced: bool = False
    """Train on every label equally often: for texts of which few have the label you want."""
    seed: int = 0
    """The same seed gives the same classifier."""
    json: bool = False
    """Print JSON."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Run on this device."""

    def execute(self) -> None:
        from ..core.files import check_new_folder
        from ..data.labels import read_labelled
        from ..guidance.trained_classifier import run_fingerprint
        from ..inference.api import TextDiffusion
        from ..training.classifier import ClassifierConfig, most_frequent, train_classifier

        check_new_folder(self.out, "the classifier")
        settings = ClassifierConfig(
            self.width, self.depth, self.steps, self.batch_size, self.lr, balanced=self.balanced, seed=self.seed
        )
        examples = read_labelled(self.data)
        run = TextDiffusion.from_pretrained(self.run, device=self.device)
        with status("Training ...") as show:
            classifier, accuracy = train_classifier(
                run,
                examples,
                settings,
                progress=lambda done, loss: show(f"Training: {done:.0%}, {loss:.3f} nats"),
            )
        figures = {
            "right": {t: each.accuracy for t, each in accuracy.items()},
            "balanced": {t: each.balanced for t, each in accuracy.items()},
        }
        classifier.save(Path(self.out), {"data": self.data, **figures, "run": run_fingerprint(run)})
        label, base_rate = most_frequent(examples)
        if self.json:
            print_json({"labels": list(classifier.labels), **figures, "most_frequent": base_rate})
        else:
            if accuracy:
                for name, values in (("Accuracy", figures["right"]), ("Mean accuracy per label", figures["balanced"])):
                    shown = ", ".join(f"{value:.1%} at t={t}" for t, value in values.items())
                    print_line(f"{name} on held-out texts: {shown}")
                print_line(f"Always answering {label!r}, the most frequent label, would be right for {base_rate:.1%}.")
            else:
                print_line(
                    f"The accuracy is unknown: {len(examples)} texts are too few to hold any out; give 10 or more."
                )
            note(
                f"Next: textdiffusion sample {self.run} --guide classifier:path={self.out},label={classifier.labels[0]}"
            )
