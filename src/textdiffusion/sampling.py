"""What a user asks of sampling beside the rows themselves, and what a run makes of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from . import overrides
from .batch import Batch
from .errors import UserError
from .guides import Guide
from .guides.infill import GivenTokens
from .guides.temperature import Temperature
from .guides.tokens import Without
from .model import Model
from .parts import GuidePart, SamplerPart
from .randomness import Rng
from .samplers.step import Request, Step, require

if TYPE_CHECKING:
    from .api import TextDiffusion


@dataclass(frozen=True)
class Sampling:
    """How rows are sampled. `steps` and `sampler` are the run's own unless given; guides act in turn, the first first.

    A sampler is a name, `one_step:eta=1` with settings, or its settings as an object; so is a guide, which may also be
    an object of the package `guides`.
    """

    steps: int | None = None
    seed: int = 0
    temperature: float = 1.0
    sampler: str | SamplerPart | None = None
    guides: Sequence[str | GuidePart | Guide] = ()

    def settled(self, run: TextDiffusion, batch: Batch) -> Settled:
        """What samples the rows of `batch`, or parts of it. Whatever a user can get wrong is refused here."""
        model, own = run.model, run.config.sampler
        part = overrides.sampler(self.sampler, own) if isinstance(self.sampler, str) else self.sampler or own
        if not isinstance(model.process, part.build().processes):
            raise UserError(
                f"{type(part).__name__} cannot drive this run's {type(model.process).__name__}; "
                f"it can use {', '.join(run.samplers())}."
            )
        # Settings of samplers that go from left to right may say 0: one step a token.
        steps = self.steps if self.steps is not None else part.steps or batch.ids.shape[1]
        if steps < 1:
            raise UserError(f"{steps} steps cannot be made: it must be at least 1.")
        guides: list[Guide] = []
        if batch.given is not None:
            ids = (run.tokenizer.end_id, run.tokenizer.pad_id, run.tokenizer.unk_id)
            special = [i for i in ids if i is not None]
            guides += [Without(special)] if special else []
        for asked in self.guides:
            settings = overrides.guide(asked) if isinstance(asked, str) else asked
            guides.append(settings.build(model, run.tokenizer) if isinstance(settings, GuidePart) else settings)
            require(guides[-1], model.process)
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise UserError(f"temperature {self.temperature} is not allowed: it must be above 0.")
        guides += [Temperature(self.temperature)] if self.temperature != 1.0 else []
        return Settled(model, part, steps, tuple(guides), self.seed)


@dataclass(frozen=True)
class Settled:
    """A sampler with its steps and guides."""

    model: Model
    part: SamplerPart
    steps: int
    guides: tuple[Guide, ...]
    seed: int

    def sampled(self, batch: Batch) -> Iterator[Step]:
        """The steps from noise to text."""
        assert batch.rows is not None
        rng, guides = Rng.of(self.seed, batch.rows), self.guides
        if batch.given is not None and replaces_given(self.model):
            guides += (GivenTokens(batch.ids, batch.given, self.model.codec, self.model.process),)
            batch = replace(batch, given=None)
        sampler = self.part.build()
        require(sampler, self.model.process)
        made = iter(sampler(self.model, Request(batch, self.steps, guides), rng=rng))
        while True:
            with torch.no_grad():  # not around a `yield`, which would switch it on in the caller
                step = next(made, None)
            if step is None:
                return
            yield step


def replaces_given(model: Model) -> bool:
    """The model was trained without conditioning masks, and given tokens are put in place at every step."""
    return isinstance(model.process, GivenTokens.processes) and model.config.text.mask == "none"
