"""Training classifiers of a run's noisy states, to guide sampling with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from ..core.batch import Batch
from ..core.errors import UserError
from ..core.memory import check_memory
from ..core.randomness import Rng, check_seed, seeded
from ..data.config import TextConfig
from ..data.normalisers import normalise
from ..data.tokenizers.base import Tokenizer
from ..diffusion.densities import low_discrepancy
from ..diffusion.model import DiffusionModel
from ..guidance.classifier import PlugAndPlay
from ..guidance.trained_classifier import TrainedClassifier
from ..networks.classifier import NoisyClassifier
from ..samplers.base import Run

CLEAN_FRACTION = 0.1  # of the rows of a training step have no noise
HELD_OUT_EVERY = 10  # one text in this many is held out
HELD_OUT_TIMES = (0.0, 0.25, 0.5, 0.75)


@dataclass(frozen=True)
class ClassifierConfig:
    """A classifier's network and its training."""

    width: int = 128
    depth: int = 2
    steps: int = 1000
    batch_size: int = 64
    lr: float = 1e-3
    balanced: bool = False
    """Training sees every label equally often, however rare it is among the texts."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("width", "depth", "steps", "batch_size", "lr"):
            if getattr(self, name) <= 0:
                raise UserError(f"{name} is {getattr(self, name)}; it must be above 0.")
        check_seed(self.seed)
        if self.width % (64 if self.width > 64 else 2):
            raise UserError(f"width is {self.width}; it must be a multiple of 64, or even and below 64.")


class Accuracy(NamedTuple):
    """How often a classifier is right, from 0 to 1."""

    accuracy: float
    """Over all texts."""
    balanced: float
    """Over the texts of each label, averaged over the labels: 1 / labels for a classifier that answers blindly."""


def train_classifier(
    run: Run,
    examples: Sequence[tuple[str, str]],
    config: ClassifierConfig,
    *,
    progress: Callable[[float, float], None] = lambda fraction, loss: None,
) -> tuple[TrainedClassifier, dict[str, Accuracy]]:
    """A classifier p(label | x_t) for all noise levels, and its accuracy on a held-out tenth, by t.

    `examples` are (text, label) pairs. t follows the run's time density, and one row in ten has no noise. `progress`
    receives the completed fraction and the loss in nats. Raises UserError for texts with characters that the tokenizer
    lacks, and for runs that no classifier can guide.
    """
    model = run.model.unadapted
    if run.config.text.has_source:
        raise UserError("Classifiers work with runs that have no sources; this one has text.source.")
    if not isinstance(model.process, PlugAndPlay.processes):
        raise UserError(f"No classifier can guide this run: its process is {type(model.process).__name__}.")
    labels = tuple(sorted({label for _, label in examples}))
    tokens, valid_mask = encode_texts([text for text, _ in examples], run.tokenizer, run.config.text)
    targets = torch.tensor([labels.index(label) for _, label in examples])
    order = np.random.default_rng(config.seed).permutation(len(tokens))
    held_out, training = order[: len(tokens) // HELD_OUT_EVERY], order[len(tokens) // HELD_OUT_EVERY :]
    device = next(model.parameters()).device
    _check_memory(config, tokens.shape[1], model.codec.vocab_size)
    with seeded(config.seed, torch.device("cpu")):
        network = NoisyClassifier(
            model.process, model.codec, labels=len(labels), width=config.width, depth=config.depth
        ).to(device)
    sampler = _RowSampler(torch.from_numpy(training), targets, balanced=config.balanced)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.lr, weight_decay=0.01, betas=(0.9, 0.99))
    for step in range(config.steps):
        fraction = step / config.steps
        for group in optimizer.param_groups:
            group["lr"] = config.lr * min(1.0, (step + 1) / 50) * (1.0 - fraction)
        rng = Rng.of(config.seed, config.batch_size, device).fork(step)
        rows = sampler(rng.fork("row").uniform(1)[:, 0].cpu())
        t = model.time_density.icdf(low_discrepancy(rng.fork("t"), config.batch_size))
        t = torch.where(rng.fork("clean").uniform(1)[:, 0] < CLEAN_FRACTION, 0.0, t)
        log_probs = _log_probs(network, model, _batch(tokens, valid_mask, rows).to(device), t, rng, mix_clean=True)
        loss = nn.functional.nll_loss(log_probs, targets[rows].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        progress(fraction, float(loss.detach()))
    network.eval().requires_grad_(False)
    accuracy: dict[str, Accuracy] = {}
    for time in HELD_OUT_TIMES if len(held_out) else ():
        correct = torch.zeros(len(labels))
        for number, rows in enumerate(torch.from_numpy(held_out).split(256)):
            rng = Rng.of(config.seed, len(rows), device).fork("held").fork(number)
            batch = _batch(tokens, valid_mask, rows).to(device)
            log_probs = _log_probs(network, model, batch, torch.full((len(rows),), time, device=device), rng)
            is_correct = log_probs.argmax(-1).cpu() == targets[rows]
            correct += torch.bincount(targets[rows][is_correct], minlength=len(labels))
        counts = torch.bincount(targets[held_out], minlength=len(labels))
        recall = correct[counts > 0] / counts[counts > 0]
        accuracy[f"{time:g}"] = Accuracy(float(correct.sum()) / len(held_out), float(recall.mean()))
    return TrainedClassifier(network, labels), accuracy


class _RowSampler:
    """Rows of a training step from uniform numbers; with `balanced`, every label is equally likely."""

    def __init__(self, rows: torch.Tensor, targets: torch.Tensor, *, balanced: bool) -> None:
        self.rows = rows
        counts = torch.bincount(targets[rows])
        weights = 1.0 / counts[targets[rows]] if balanced else torch.ones(len(rows))
        self.cumulative = weights.double().cumsum(0)

    def __call__(self, uniforms: torch.Tensor) -> torch.Tensor:
        positions = torch.searchsorted(self.cumulative, uniforms.double() * self.cumulative[-1], right=True)
        return self.rows[positions.clamp(max=len(self.rows) - 1)]


def most_frequent(examples: Sequence[tuple[str, str]]) -> tuple[str, float]:
    """The most frequent label and its fraction: the accuracy of always answering it. `examples` are (text, label)."""
    label, count = Counter(label for _, label in examples).most_common(1)[0]
    return label, count / len(examples)


def _check_memory(config: ClassifierConfig, length: int, vocab_size: int) -> None:
    """Raises UserError where the network or a step does not fit into the free memory."""
    width, depth = config.width, config.depth
    weights = width * (vocab_size + 12 * width * depth)
    features = config.batch_size * length * (width * depth * 4 + 5)
    lower = "width" if weights > features else "batch_size"
    check_memory(
        16 * weights + 4 * features,
        f"A classifier of width {width:,} and depth {depth:,} with {config.batch_size:,} texts per step",
        f"lower --{lower.replace('_', '-')}",
    )


def _log_probs(
    network: NoisyClassifier, model: DiffusionModel, batch: Batch, t: torch.Tensor, rng: Rng, mix_clean: bool = False
) -> torch.Tensor:
    """Log probabilities of the labels given noisy texts [b, labels].

    With `mix_clean`, half of the rows of token ids are partly mixed with the clean text. Otherwise nothing teaches the
    network what lies between a mask and a token, and its gradient at the mask is uninformative about tokens.
    """
    with torch.no_grad():
        xt = model.process.add_noise(model.codec.encode(batch.tokens), t, rng=rng.fork("noise"))
    if not mix_clean or xt.is_floating_point():
        return network(xt, t, batch)
    weight = rng.fork("share").uniform(xt.shape[1]) * (rng.fork("mixed").uniform(1) < 0.5)
    is_mixed = rng.fork("there").uniform(xt.shape[1]) < rng.fork("most").uniform(1)
    return network(xt, t, batch, (batch.tokens, weight * is_mixed))


def encode_texts(texts: Sequence[str], tokenizer: Tokenizer, config: TextConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and valid masks [n, l] as the run's examples have them: with their end, cut to a window and padded."""
    tokens = np.full((len(texts), config.length), tokenizer.pad_id or 0, dtype=np.int64)
    valid_mask = np.full(tokens.shape, config.model_padding)
    for row, text in enumerate(texts):
        ids = tokenizer.encode(normalise(config.normaliser, text))
        if tokenizer.end_id is not None:
            ids = np.append(ids, tokenizer.end_id)
        ids = ids[: config.length]
        tokens[row, : len(ids)], valid_mask[row, : len(ids)] = ids, True
    return torch.from_numpy(tokens), torch.from_numpy(valid_mask)


def _batch(tokens: torch.Tensor, valid_mask: torch.Tensor, rows: torch.Tensor) -> Batch:
    mask = valid_mask[rows]
    return Batch(tokens[rows], valid_mask=None if bool(mask.all()) else mask)
