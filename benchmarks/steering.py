"""What the benchmarks of steering share: a classifier trained once, its guides, the best of n by it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from textdiffusion import TextDiffusion
from textdiffusion.core.batch import Batch
from textdiffusion.guidance.base import GuideConfig
from textdiffusion.guidance.classifier import Classifier, Energy
from textdiffusion.guidance.trained_classifier import TrainedClassifier, load, run_fingerprint
from textdiffusion.training.classifier import ClassifierConfig, encode_texts, train_classifier

THROUGH = ("state", "prediction", "energy")


def classifier(run: TextDiffusion, folder: Path, examples: Sequence[tuple[str, str]], steps: int) -> TrainedClassifier:
    """The classifier in the folder, trained and saved there if there is none; training prints its accuracy."""
    if not (folder / "config.json").exists():
        start = time.process_time()
        trained, accuracy = train_classifier(run, examples, ClassifierConfig(width=64, steps=steps))
        right = {t: each.accuracy for t, each in accuracy.items()}
        trained.save(folder, {"right": right, "run": run_fingerprint(run)})
        seconds = round(time.process_time() - start, 1)
        print(json.dumps({"classifier": folder.name, **right, "cpu_seconds": seconds}), flush=True)
    return load(folder, run)


def guides(folder: Path, label: str, weight: float, through: str, exact: int = 0) -> list[GuideConfig]:
    """The guides towards a label; none at weight 0."""
    if not weight:
        return []
    if through == "energy":
        return [Energy(str(folder), label, weight)]
    return [Classifier(str(folder), label, weight, "prediction" if through == "prediction" else "state", exact)]


def best(run: TextDiffusion, judge: TrainedClassifier, label: str, texts: Sequence[str], n: int) -> list[str]:
    """Of every n texts in turn the one that the classifier is surest of."""
    ids, _ = encode_texts(texts, run.tokenizer, run.config.text)
    log_probs = judge.noisy_log_prob(label)(run.model.codec.encode(ids), torch.zeros(len(ids)), Batch(ids))
    return [texts[row * n + int(pick)] for row, pick in enumerate(log_probs.view(-1, n).argmax(1))]
