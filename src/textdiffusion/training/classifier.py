"""Classifiers of a run's noisy states: trained on labelled texts, kept in a folder of their own, used to steer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ..core.batch import Batch
from ..core.devices import seeded
from ..core.errors import UserError
from ..core.randomness import Rng
from ..data.config import TextConfig
from ..data.normalisers import normalise
from ..data.tokenizers.base import Tokenizer
from ..diffusion.densities import low_discrepancy
from ..diffusion.model import DiffusionModel
from ..guidance.classifier import PlugAndPlay
from ..guidance.trained_classifier import TrainedClassifier
from ..networks.classifier import NoisyClassifier
from ..samplers.base import Run

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


def train(
    run: Run,
    examples: Sequence[tuple[str, str]],
    settings: Settings,
    *,
    progress: Callable[[float, float], None] = lambda share, loss: None,
) -> tuple[TrainedClassifier, dict[str, float]]:
    """A classifier of x_t at all noise levels, and how often it is right on a tenth that is held out.

    t is drawn as in the run's training, and one row in ten has no noise. `progress` is told the share that is done and
    the loss in nats. Raises UserError for texts that the tokenizer lacks characters of, and for runs that no guide with
    a classifier can act on.
    """
    model = run.model.unadapted
    if run.config.text.source:
        raise UserError("Classifiers are for runs without sources; this one writes a text after its source.")
    if not isinstance(model.process, PlugAndPlay.processes):
        raise UserError(f"No classifier can guide this run: it has a {type(model.process).__name__}.")
    labels = tuple(sorted({label for _, label in examples}))
    ids, real = laid_out([text for text, _ in examples], run.tokenizer, run.config.text)
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
        t = model.time_density.icdf(low_discrepancy(rng.fork("t"), settings.batch_size))
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
    return TrainedClassifier(network, labels), right


def _told(
    network: NoisyClassifier, model: DiffusionModel, batch: Batch, t: torch.Tensor, rng: Rng, mixing: bool = False
) -> torch.Tensor:
    """Log probabilities of the labels of noisy texts.

    With `mixing`, half of the rows of ids are mixed with the clean text in part. Else nothing teaches the network what
    lies between a mask and a token, and its gradient at the mask says nothing of tokens.
    """
    with torch.no_grad():
        xt = model.process.add_noise(model.codec.encode(batch.tokens), t, rng=rng.fork("noise"))
    if not mixing or xt.is_floating_point():
        return network(xt, t, batch)
    share = rng.fork("share").uniform(xt.shape[1]) * (rng.fork("mixed").uniform(1) < 0.5)
    there = rng.fork("there").uniform(xt.shape[1]) < rng.fork("most").uniform(1)  # at some of the places
    return network(xt, t, batch, (batch.tokens, share * there))


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
    return Batch(ids[rows], valid_mask=None if bool(seen.all()) else seen)
