"""An example of every guide, and the runs that they steer, for tests."""

import dataclasses
import typing
from pathlib import Path

import torch

from textdiffusion import TextDiffusion
from textdiffusion.guidance.base import GuideConfig
from textdiffusion.guidance.trained_classifier import TrainedClassifier, run_fingerprint
from textdiffusion.networks.classifier import NoisyClassifier

LETTERS = ("text.tokenizer=characters", "text.layout=stream", "text.model_padding=false")
ENDED = ("text.layout=lines", "text.model_padding=true")
RUNS = [("mdlm",), ("mdlm", *ENDED), ("udlm", "text.mask=none"), ("cdcd", "text.mask=none")]
VALUES = {"label": "red", "pattern": "[A-Za-z .\n]*"}
"""Values of settings without a default, by their names; the others follow from their types."""
VALUES_BY_TYPE = {str: "fig", int: 1, float: 1.0, bool: True}


def example(kind: type[GuideConfig], **values: str) -> GuideConfig:
    """The settings of a guide: its defaults, and examples of those that it requires."""
    types = typing.get_type_hints(kind)
    required = [
        f.name
        for f in dataclasses.fields(typing.cast(typing.Any, kind))
        if f.default is f.default_factory is dataclasses.MISSING
    ]
    return kind(**{name: values[name] if name in values else VALUES_BY_TYPE[types[name]] for name in required})


def save_classifier(run: TextDiffusion, folder: Path) -> None:
    """A classifier of the run that has learned nothing."""
    torch.manual_seed(0)
    network = NoisyClassifier(run.model.process, run.model.codec, labels=2, width=32, depth=1)
    TrainedClassifier(network, ("green", "red")).save(folder, {"run": run_fingerprint(run)})
