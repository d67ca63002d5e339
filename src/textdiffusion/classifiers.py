"""Classifiers of a run's noisy states: trained on labelled texts, kept in a folder of their own, used to steer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .batch import Batch
from .codecs.table import TableCodec
from .config import to_dict
from .errors import UserError
from .guides.classifier import ByPrediction, Judge, Reader
from .model import Model
from .networks.classifier import NoisyClassifier
from .processes.densities import stratified
from .randomness import Rng
from .text.config import TextConfig
from .text.normalisers import normalise
from .text.tokenizers import Tokenizer, fingerprint
from .training.trainer import seeded
from .training.weights import load_weights, save_tensors, tensors_of

_CLEAN = 0.1  # of the rows of a step have no noise
_HELD_OUT = 10  # one text in so many


@dataclass(frozen=True)
class Settings:
    """A classifier's network and its training."""

    width: int = 128
    depth: int = 2
    steps: int = 1000
    batch_size: int = 64
    lr: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("width", "depth", "steps", "batch_size", "lr"):
            if getattr(self, name) <= 0:
                raise UserError(f"{name} is {getattr(self, name)}; it must be above 0.")
        if self.width % (64 if self.width > 64 else 2):
            raise UserError(f"width is {self.width}; it must be a multiple of 64, or even and below 64.")


@dataclass(frozen=True)
class Classifier:
    """A network, and the labels that it tells apart."""

    network: NoisyClassifier
    labels: tuple[str, ...]

    def judge(self, label: str) -> Judge:
        """log p(label | x_t). Raises UserError for a label that is none."""
        if label not in self.labels:
            raise UserError(f"The classifier has no label {label!r}; it can be {', '.join(self.labels)}.")
        number = self.labels.index(label)
        return lambda xt, t, batch: self.network(xt, t, batch)[:, number]

    def reader(self, label: str) -> Reader:
        """log p(label | clean text). Raises UserError for a label that is none."""
        self.judge(label)
        number = self.labels.index(label)
        return lambda probs, batch: self.network.soft(probs, batch)[:, number]

    def save(self, folder: Path, facts: dict[str, Any]) -> None:
        """Writes config.json and model.safetensors."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder} cannot be made: {error.strerror}.") from None
        shape = {"width": self.network.trunk.width, "depth": len(self.network.trunk.blocks)}
        about = {"kind": "classifier", "schema": 1, "labels": list(self.labels), **shape, **facts}
        (folder / "config.json").write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        save_tensors(
            {name: tensor.cpu() for name, tensor in tensors_of(self.network).items()}, folder / "model.safetensors"
        )


def load(folder: str | Path, model: Model, tokenizer: Tokenizer) -> Classifier:
    """The classifier in a folder, for this model. Raises UserError where it is none, or was trained for another run."""
    path = Path(folder) / "config.json"
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        labels, width, depth = tuple(about["labels"]), about["width"], about["depth"]
        trained_for = about["run"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{folder} is no classifier; textdiffusion train-classifier makes one.") from None
    for name, value in kinship(model, tokenizer).items():
        if trained_for.get(name) != value:
            raise UserError(
                f"The classifier {folder} was trained for a run with another {name}; train one for this run."
            )
    network = NoisyClassifier(model.process, model.codec, labels=len(labels), width=width, depth=depth)
    load_weights(network, Path(folder) / "model.safetensors")
    place = next(model.parameters()).device
    return Classifier(network.eval().requires_grad_(False).to(place), labels)


def kinship(model: Model, tokenizer: Tokenizer) -> dict[str, Any]:
    """What a classifier shares with its run: tokenizer, states and noise."""
    states = model.codec.table() if isinstance(model.codec, TableCodec) else torch.empty(0)
    table = hashlib.sha256(states.detach().cpu().numpy().tobytes()).hexdigest()[:16]
    config = {"process": to_dict(model.config.process), "codec": {**to_dict(model.config.codec), "table": table}}
    return {"tokenizer": fingerprint(tokenizer), **json.loads(json.dumps(config))}


def train(
    model: Model,
    tokenizer: Tokenizer,
    examples: Sequence[tuple[str, str]],
    settings: Settings,
    *,
    progress: Callable[[float, float], None] = lambda share, loss: None,
) -> tuple[Classifier, dict[str, float]]:
    """A classifier of x_t at all noise levels, and how often it is right on a tenth that is held out.

    t is drawn as in the run's training, and one row in ten has no noise. `progress` is told the share that is done and
    the loss in nats. Raises UserError for texts that the tokenizer lacks characters of, and for runs that no guide with
    a classifier can act on.
    """
    if model.config.text.source:
        raise UserError("Classifiers are for runs without sources; this one writes a text after its source.")
    if not isinstance(model.process, ByPrediction.processes):
        raise UserError(f"No classifier can guide this run: it has a {type(model.process).__name__}.")
    labels = tuple(sorted({label for _, label in examples}))
    ids, real = laid_out([text for text, _ in examples], tokenizer, model.config.text)
    targets = torch.tensor([labels.index(label) for _, label in examples])
    order = np.random.default_rng(settings.seed).permutation(len(ids))
    held, used = order[: len(ids) // _HELD_OUT], order[len(ids) // _HELD_OUT :]
    place = next(model.parameters()).device
    with seeded(settings.seed, torch.device("cpu")):
        network = NoisyClassifier(
            model.process, model.codec, labels=len(labels), width=settings.width, depth=settings.depth
        ).to(place)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.lr, weight_decay=0.01, betas=(0.9, 0.99))
    for step in range(settings.steps):
        done = step / settings.steps
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * min(1.0, (step + 1) / 50) * (1.0 - done)
        rng = Rng.of(settings.seed, settings.batch_size, place).fork(step)
        picked = torch.from_numpy(used)[(rng.fork("row").uniform(1)[:, 0].cpu() * len(used)).long()]
        t = model.density.quantile(stratified(rng.fork("t"), settings.batch_size))
        t = torch.where(rng.fork("clean").uniform(1)[:, 0] < _CLEAN, 0.0, t)
        said = _told(network, model, _batch(ids, real, picked).to(place), t, rng, mixing=True)
        loss = nn.functional.nll_loss(said, targets[picked].to(place))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        progress(done, float(loss.detach()))
    network.eval().requires_grad_(False)
    right = {}
    for t in (0.0, 0.25, 0.5, 0.75) if len(held) else ():
        hits = 0
        for number, part in enumerate(torch.from_numpy(held).split(256)):
            rng = Rng.of(settings.seed, len(part), place).fork("held").fork(number)
            batch = _batch(ids, real, part).to(place)
            said = _told(network, model, batch, torch.full((len(part),), t, device=place), rng)
            hits += int((said.argmax(-1).cpu() == targets[part]).sum())
        right[f"{t:g}"] = hits / len(held)
    return Classifier(network, labels), right


def _told(
    network: NoisyClassifier, model: Model, batch: Batch, t: torch.Tensor, rng: Rng, mixing: bool = False
) -> torch.Tensor:
    """Log probabilities of the labels of noisy texts.

    With `mixing`, half of the rows of ids are mixed with the clean text in part. Else nothing teaches the network what
    lies between a mask and a token, and its gradient at the mask says nothing of tokens.
    """
    with torch.no_grad():
        xt = model.process.corrupt(model.codec.encode(batch.ids), t, rng=rng.fork("noise"))
    if not mixing or xt.is_floating_point():
        return network(xt, t, batch)
    share = rng.fork("share").uniform(xt.shape[1]) * (rng.fork("mixed").uniform(1) < 0.5)
    there = rng.fork("there").uniform(xt.shape[1]) < rng.fork("most").uniform(1)  # at some of the places
    return network(xt, t, batch, (batch.ids, share * there))


def laid_out(texts: Sequence[str], tokenizer: Tokenizer, config: TextConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and real positions of texts as the run's own examples are: with their end, cut to a window and padded."""
    ids = np.full((len(texts), config.length), tokenizer.pad_id or 0, dtype=np.int64)
    real = np.full(ids.shape, config.model_padding)
    for row, text in enumerate(texts):
        tokens = tokenizer.encode(normalise(config.normaliser, text))
        if tokenizer.end_id is not None:
            tokens = np.append(tokens, tokenizer.end_id)
        tokens = tokens[: config.length]
        ids[row, : len(tokens)], real[row, : len(tokens)] = tokens, True
    return torch.from_numpy(ids), torch.from_numpy(real)


def _batch(ids: torch.Tensor, real: torch.Tensor, rows: torch.Tensor) -> Batch:
    seen = real[rows]
    return Batch(ids[rows], real=None if bool(seen.all()) else seen)
