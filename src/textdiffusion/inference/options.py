"""How to sample: the options that every way to write text shares, and what they become for a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

import torch

from ..config import overrides
from ..config.compatibility import sampler_problem
from ..core.batch import Batch
from ..core.cancellation import check_cancelled
from ..core.errors import UserError
from ..core.memory import check_memory
from ..core.randomness import Rng, check_seed
from ..data import templates
from ..diffusion.model import DiffusionModel
from ..diffusion.process import TokenProcess
from ..guidance.base import GuideConfig
from ..guidance.logits import GREEDY, AllowedTokens, Greedy, Temperature, TopKTopP
from ..guidance.replacement import Replacement
from ..samplers.base import Guide, Outermost, Request, Sampler, Step, check_compatible
from ..samplers.masked_view import adapt_model
from .continuation import ended_step
from .run import Run, check_count

OnStep = Callable[[Step], object]
"""What is called with every step of the rows that are written, in chunks one after the other."""

_STEP_BYTES = 8  # the time of a step, and its copies


class SamplingKwargs(TypedDict, total=False):
    """The fields of `SamplingOptions` as keyword arguments."""

    steps: int | None
    seed: int | None
    temperature: float | None
    sampler: str | Sampler | None
    guides: Sequence[str | GuideConfig | Guide]
    top_k: int | None
    top_p: float | None


@dataclass(frozen=True)
class SamplingOptions:
    """How rows are sampled. None always means the default."""

    steps: int | None = None
    """Denoising steps (None: the sampler's own number)."""
    seed: int | None = 0
    """The same seed gives the same texts; the first 4 of 8 texts are those of `num=4`."""
    temperature: float | None = None
    """Divides the logits: below 1 safer and less diverse text, above 1 the reverse; 0 takes the likeliest tokens.
    None: the sampler's own, 1 unless the run says otherwise."""
    sampler: str | Sampler | None = None
    """A name, with settings as in `ddim:eta=1`, or an object of `samplers` (None: the run's own sampler)."""
    guides: Sequence[str | GuideConfig | Guide] = ()
    """What steers the text, such as `without:text=pear`, or objects of `guidance`; they act in turn."""
    top_k: int | None = 0
    """Sample from the k most likely tokens at each position (0: all)."""
    top_p: float | None = None
    """Sample from the fewest tokens that together have this probability (None: the sampler's own, as above)."""

    def resolve(self, run: Run, batch: Batch) -> Generation:
        """The sampler, steps and guides for the rows of `batch`, or for chunks of it.

        Raises UserError for options that are not allowed, or that the run's process does not allow.
        """
        default = run.infilling_sampler if has_text_after_gaps(batch) else run.config.sampler
        sampler = overrides.sampler(self.sampler, default) if isinstance(self.sampler, str) else self.sampler or default
        if problem := sampler_problem(sampler, run.config, run.model.process):
            raise UserError(f"{problem} This run can use {', '.join(run.samplers())}.")
        seed = check_seed(self.seed or 0)
        model = adapt_model(sampler, run.model, seed)
        # Samplers that write position by position may have 0 steps: one per token.
        steps = self.steps if self.steps is not None else sampler.steps or batch.tokens.shape[1]
        check_count("steps", steps)
        check_memory(steps * _STEP_BYTES, f"Sampling in {steps:,} steps", "lower steps (--steps)")
        return Generation(model, sampler, steps, self._guides(run, model, batch, sampler), seed, run.end_ids)

    def _guides(self, run: Run, model: DiffusionModel, batch: Batch, sampler: Sampler) -> tuple[Guide, ...]:
        """All guides, the first first: those of the template, of the user, and of temperature, top-k and top-p."""
        guides: list[Guide] = []
        if batch.condition_mask is not None:
            guides.append(AllowedTokens(torch.from_numpy(templates.allowed_sets(run.tokenizer))))
        for each in self.guides:
            settings = overrides.guide(each) if isinstance(each, str) else each
            guide = settings.bind(replace(run, model=model)) if isinstance(settings, GuideConfig) else settings
            check_compatible(guide, model.process)
            if model is not run.model and getattr(guide, "process", model.process) is not model.process:
                raise UserError(
                    f"This {type(guide).__name__} was made for another process; give the guide by its name."
                )
            guides.append(guide)
        temperature = sampler.temperature if self.temperature is None else self.temperature
        if 0.0 <= temperature <= GREEDY:
            guides.append(Greedy())
        elif temperature != 1.0:
            guides.append(Temperature(temperature))
        truncation = TopKTopP(self.top_k or 0, sampler.top_p if self.top_p is None else self.top_p)
        if truncation != TopKTopP():
            guides.append(truncation)
        return _with_replacement(guides, model, batch)


def has_text_after_gaps(batch: Batch) -> bool:
    """Whether a given token follows a free one in any row; padding is not given."""
    given = batch.condition_mask
    if given is None:
        return False
    given = given if batch.valid_mask is None else given & batch.valid_mask
    return bool((given[:, 1:] & batch.target_mask.cumsum(-1)[:, :-1].bool()).any())


def _with_replacement(guides: list[Guide], model: DiffusionModel, batch: Batch) -> tuple[Guide, ...]:
    """The guides, with replacement of the given tokens last where the model needs it, so that no guide changes them."""
    replacements = [guide for guide in guides if isinstance(guide, Replacement)]
    replaces = batch.condition_mask is not None and replaces_given(model)
    if len(replacements) > replaces:
        raise UserError(
            "The guide repaint is for infilling, once, with runs that were trained without conditioning masks."
        )
    required = [guide for guide in guides if isinstance(guide, Outermost) and not isinstance(guide, Greedy)]
    if replacements and isinstance(model.process, TokenProcess) and required:
        raise UserError(
            "The guide repaint cannot be used here with a word or pattern that every text must have; "
            "give the word or pattern a weight."
        )
    if not replaces:
        return tuple(guides)
    others = [guide for guide in guides if not isinstance(guide, Replacement)]
    return (*others, *(replacements or [Replacement(model)]))


@dataclass(frozen=True)
class Generation:
    """A model, with the sampler, steps and guides that write its texts."""

    model: DiffusionModel
    sampler: Sampler
    steps: int
    guides: tuple[Guide, ...]
    seed: int
    end_ids: frozenset[int] = frozenset()
    t_start: float = 1.0
    """The noise level to begin at; below 1 the tokens of the rows are noised to it (see `samplers.base.Request`)."""

    def run(self, batch: Batch, seeds: Sequence[int] | None = None) -> Iterator[Step]:
        """The steps from noise to text; of prompts, until every row has ended, if the sampler keeps what it reveals.

        `seeds` are one for each row (None: this generation's for all).
        """
        assert batch.row_ids is not None
        rng = Rng.of(self.seed if seeds is None else seeds, batch.row_ids)
        if batch.condition_mask is not None and replaces_given(self.model):
            batch = replace(batch, condition_mask=None, replace_mask=batch.condition_mask)
        steps = iter(self.sampler(self.model, Request(batch, self.steps, self.guides, t_start=self.t_start), rng=rng))
        while True:
            check_cancelled()
            with torch.no_grad():  # not around a `yield`, which would switch gradients off in the caller
                step = next(steps, None)
            if step is None:
                return
            step = _with_given_tokens(step, batch)
            ended = None
            if batch.text_starts is not None and self.sampler.keeps_tokens:
                ended = ended_step(step, batch, self.end_ids, self.model.codec.vocab_size)
            yield step if ended is None else ended
            if ended is not None:
                return

    def finish(self, batch: Batch, on_step: OnStep | None = None) -> Step:
        """The last step of `run`. `on_step` receives every step; an exception that it raises ends the sampling."""
        for step in self.run(batch):
            if on_step is not None:
                on_step(step)
        return step


def _with_given_tokens(step: Step, batch: Batch) -> Step:
    """The step with the given tokens as its text: under replacement its state has noisy copies of them."""
    given = batch.replace_mask
    if given is None:
        return step
    tokens = torch.where(given, batch.tokens, step.tokens)
    return replace(step, tokens=tokens, confidence=step.confidence.masked_fill(given, 1.0))


def replaces_given(model: DiffusionModel) -> bool:
    """Whether a Gaussian or uniform model sees noisy copies of given tokens, as it was trained without any given."""
    return isinstance(model.process, Replacement.processes) and not model.denoiser.trained_with_conditioning


def check_stop(stop: Sequence[str]) -> None:
    """Raises UserError for an empty stop text."""
    if not all(stop):
        raise UserError("A stop text is empty; give at least one character.")


def truncate(text: str, stop: Sequence[str]) -> str:
    """The text before the first of the `stop` texts in it, if any."""
    return text[: min((found for each in stop if (found := text.find(each)) >= 0), default=len(text))]
