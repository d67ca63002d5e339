"""What a user asks of sampling beside the rows themselves, and what a run makes of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from ..config import overrides
from ..config.compatibility import sampler_problem
from ..core.batch import Batch
from ..core.errors import UserError
from ..core.randomness import Rng
from ..core.registry import runnable
from ..data import templates
from ..diffusion.model import DiffusionModel
from ..diffusion.process import TokenProcess
from ..guidance.logits import AllowedTokens, Temperature, TopKTopP
from ..guidance.replacement import Replacement
from ..parts import GuidePart, SamplerPart
from ..samplers.base import Guide, Outermost, Request, Sampler, Step, check_compatible
from ..samplers.masked_view import adapt_model

if TYPE_CHECKING:
    from .api import TextDiffusion


@dataclass(frozen=True)
class SamplingOptions:
    """How rows are sampled. `steps` and `sampler` are the run's own unless given; guides act in turn, the first first.

    A sampler is a name, `ddim:eta=1` with settings, or its settings as an object; so is a guide, which may also be
    an object of the package `guides`.
    """

    steps: int | None = None
    seed: int = 0
    temperature: float = 1.0
    sampler: str | SamplerPart | None = None
    guides: Sequence[str | GuidePart | Guide] = ()
    top_k: int = 0
    top_p: float = 1.0

    def resolve(self, run: TextDiffusion, batch: Batch) -> Generation:
        """What samples the rows of `batch`, or parts of it. Whatever a user can get wrong is refused here."""
        own = run.config.sampler
        part = overrides.sampler(self.sampler, own) if isinstance(self.sampler, str) else self.sampler or own
        sampler = runnable(part)
        if why_not := sampler_problem(sampler, run.config, run.model.process):
            raise UserError(f"{why_not} It can use {', '.join(run.samplers())}.")
        model = adapt_model(sampler, run.model, self.seed)
        # Settings of samplers that take places one by one may say 0: one step a token.
        steps = self.steps if self.steps is not None else part.steps or batch.tokens.shape[1]
        if steps < 1:
            raise UserError(f"{steps} steps cannot be made: it must be at least 1.")
        guides: list[Guide] = []
        if batch.condition_mask is not None:
            guides.append(AllowedTokens(torch.from_numpy(templates.allowed_sets(run.tokenizer))))
        for asked in self.guides:
            settings = overrides.guide(asked) if isinstance(asked, str) else asked
            guides.append(settings.bind(replace(run, model=model)) if isinstance(settings, GuidePart) else settings)
            check_compatible(guides[-1], model.process)
            if model is not run.model and getattr(guides[-1], "process", model.process) is not model.process:
                raise UserError(f"{type(guides[-1]).__name__} was made for other noise; give the guide by its name.")
        guides += [Temperature(self.temperature)] if self.temperature != 1.0 else []
        guides += [TopKTopP(self.top_k, self.top_p)] if (self.top_k, self.top_p) != (0, 1.0) else []
        replacing = [guide for guide in guides if isinstance(guide, Replacement)]
        replaced = batch.condition_mask is not None and replaces_given(model)
        if len(replacing) > replaced:
            raise UserError("repaint is for infilling, once, with runs that were trained without conditioning masks.")
        if replacing and isinstance(model.process, TokenProcess) and any(isinstance(g, Outermost) for g in guides):
            raise UserError(
                "repaint and a word or pattern that every text has exclude each other here; give it a weight."
            )
        if replaced:  # last, so that nothing changes what is given
            others = [guide for guide in guides if not isinstance(guide, Replacement)]
            guides = [*others, *(replacing or [Replacement(model)])]
        return Generation(model, sampler, steps, tuple(guides), self.seed)


@dataclass(frozen=True)
class Generation:
    """A sampler with its steps and guides."""

    model: DiffusionModel
    sampler: Sampler
    steps: int
    guides: tuple[Guide, ...]
    seed: int

    def run(self, batch: Batch) -> Iterator[Step]:
        """The steps from noise to text."""
        assert batch.row_ids is not None
        rng = Rng.of(self.seed, batch.row_ids)
        if batch.condition_mask is not None and replaces_given(self.model):
            batch = replace(batch, condition_mask=None, replace_mask=batch.condition_mask)
        made = iter(self.sampler(self.model, Request(batch, self.steps, self.guides), rng=rng))
        while True:
            with torch.no_grad():  # not around a `yield`, which would switch it on in the caller
                step = next(made, None)
            if step is None:
                return
            if batch.replace_mask is not None:  # the states of the given tokens are noisy copies, their text is not
                ids, sure = (
                    torch.where(batch.replace_mask, batch.tokens, step.tokens),
                    step.confidence.masked_fill(batch.replace_mask, 1.0),
                )
                step = replace(step, tokens=ids, confidence=sure)
            yield step


def replaces_given(model: DiffusionModel) -> bool:
    """The model was trained without conditioning masks, and given tokens are put in place at every step."""
    return isinstance(model.process, Replacement.processes) and not model.denoiser.trained_with_conditioning
