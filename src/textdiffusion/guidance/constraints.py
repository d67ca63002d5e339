"""Guides towards texts that match a pattern: always, or more often."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..core.batch import Batch
from ..core.errors import UserError
from ..core.randomness import Rng
from ..core.registry import check_bounds
from ..core.types import Logits, Mask, Tokens
from ..data.normalisers import normalise
from ..diffusion.model import Denoiser
from ..diffusion.prediction import Prediction, one_hot_logits
from ..diffusion.vector_predictions import GuidedPrediction
from ..samplers.base import Guide, LogitsGuide, Outermost, Request, Run, WrappedDenoiser
from . import patterns, regex
from .automata import Automaton
from .base import GuideConfig
from .lattice import Lattice

_MIN_LOG_PROB = -1e4  # nats of a token that another guide excludes: used only if nothing else matches
_MIN_GUESS = -20.0  # nats of a token at positions that the prediction does not cover


@dataclass(frozen=True)
class Word(GuideConfig):
    """Requires a word, or a phrase, somewhere in the text, or at a `position` counted in tokens from 0.

    With a finite `weight` texts with the word become likelier instead, by that many nats.
    """

    text: str
    position: int = -1
    weight: float = math.inf

    def __post_init__(self) -> None:
        check_bounds(self, position=(-1, None))
        if not self.text.strip():
            raise UserError("word.text is empty; write it as word:text=pear.")

    def bind(self, run: Run) -> Guide:
        text = _normalised(self.text, run)
        if self.position < 0:
            return _constraint(patterns.word(text), f"word {self.text!r}", self.weight, run)
        optional_space = patterns.union([patterns.EMPTY, patterns.literal(" ")])
        node = patterns.concat(optional_space, patterns.literal(text), patterns.word_end(text))
        return _constraint(node, f"word {self.text!r} at {self.position}", self.weight, run, self.position)


@dataclass(frozen=True)
class Without(GuideConfig):
    """Forbids a word or a phrase; with a finite `weight` texts with it become less likely, by that many nats."""

    text: str
    weight: float = math.inf

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise UserError("without.text is empty; write it as without:text=pear.")

    def bind(self, run: Run) -> Guide:
        node = patterns.complement(patterns.word(_normalised(self.text, run)))
        return _constraint(node, f"without {self.text!r}", self.weight, run)


@dataclass(frozen=True)
class Regex(GuideConfig):
    """Requires the whole text to match a regular expression; with a finite `weight` matches become likelier."""

    pattern: str
    weight: float = math.inf

    def bind(self, run: Run) -> Guide:
        shown = self.pattern if len(self.pattern) <= 80 else f"{self.pattern[:77]}..."  # a schema's may be very long
        return _constraint(regex.parse(self.pattern), f"regex '{shown}'", self.weight, run)


def _normalised(text: str, run: Run) -> str:
    """A word as the run's texts have it. Raises UserError if nothing of it remains."""
    name = run.config.text.normaliser
    normalised = normalise(name, text)
    # The rules of text8 turn punctuation at the ends into spaces.
    normalised = normalised.strip(" ") if normalised != text else text
    if not normalised:
        raise UserError(f"Nothing remains of the word {text!r} in this run's texts (text.normaliser={name}).")
    return normalised


def _constraint(node: patterns.Node, name: str, weight: float, run: Run, position: int = 0) -> Guide:
    """The guide towards texts that match `node` from a position on."""
    if math.isnan(weight) or weight == -math.inf:
        raise UserError(f"weight is {weight}; it must be a number of nats, or inf for always.")
    source_end_id = run.tokenizer.end_id if run.config.text.has_source else None
    automaton = Automaton.from_pattern(node, run.tokenizer, position, source_end_id=source_end_id)
    if weight == math.inf:
        return HardConstraint(automaton, run.model.process, name)
    return SoftConstraint(automaton, run.model.process, weight)


@dataclass(frozen=True, eq=False)
class SoftConstraint(LogitsGuide):
    """Multiplies the odds of a match by e^weight, exactly so under each prediction; below 0 matches are avoided.

    A prediction treats positions as independent. Reweighted, its marginals are
    p(x_i) (1 + (e^weight - 1) p(match | x_i)) up to a constant, which takes one pass over positions and states.
    """

    automaton: Automaton
    process: Any  # duck-typed, as in a model
    weight: float

    def wrap(self, denoiser: Denoiser, request: Request) -> Denoiser:
        return LatticeDenoiser(denoiser, self, request, self.reweight)

    def reweight(self, prediction: Prediction, lattice: Lattice, positions: slice, known: Mask) -> Prediction:
        """The prediction with reweighted marginals."""
        match = lattice.log_prob[:, None, None] + lattice.marginals - lattice.class_logp  # log p(match | class)
        match = match[:, positions].nan_to_num(-torch.inf, neginf=-torch.inf).clamp(max=0.0)
        change = torch.logaddexp(torch.log1p(-match.exp()), match + self.weight)[..., lattice.automaton.token_classes]
        return prediction.with_logits(prediction.logits + torch.where(known[..., None], 0.0, change).float())


@dataclass(frozen=True, eq=False)
class HardConstraint(Outermost, LogitsGuide):
    """Makes every text match, whatever the process and the sampler.

    Each prediction is conditioned on a match: means use its marginals, sampling draws one whole text, and reading
    tokens takes the likeliest text that matches. Other guides act before it, wherever they stand; several hard
    constraints act as one. `name` describes the pattern.
    """

    automaton: Automaton
    process: Any  # duck-typed, as in a model
    name: str

    def wrap(self, denoiser: Denoiser, request: Request) -> Denoiser:
        """The denoiser, conditioned on a match. Raises UserError if no text of the request can match."""
        guide = self
        if isinstance(denoiser, LatticeDenoiser) and isinstance(denoiser.guide, HardConstraint):
            name = f"{denoiser.guide.name} and {self.name}"
            guide = HardConstraint(self.automaton.intersection(denoiser.automaton), self.process, name)
            denoiser = denoiser.denoiser
        constrained = LatticeDenoiser(denoiser, guide, request, ConstrainedPrediction)
        constrained.check_satisfiable(guide.name)
        return constrained


class ConstrainedPrediction(GuidedPrediction):
    """A prediction conditioned on a match of the whole text. `positions` are those that it covers."""

    def __init__(self, prediction: Prediction, lattice: Lattice, positions: slice, known: Mask) -> None:
        change = (lattice.marginals - lattice.class_logp)[:, positions]
        # A class without probability keeps it: its tokens have -inf already. Narrowed before it is as large as the
        # vocabulary.
        change = change.nan_to_num(-torch.inf, posinf=0.0, neginf=-torch.inf).to(lattice.logp.dtype)
        logits = lattice.logp[:, positions] + change[..., lattice.automaton.token_classes]
        super().__init__(prediction, logits, known)
        self.lattice, self.positions = lattice, positions

    @property
    def argmax(self) -> Tokens:
        return self.lattice.argmax()[:, self.positions]

    def sample_joint(self, rng: Rng) -> Prediction:
        return Prediction(one_hot_logits(self.lattice.sample(rng)[:, self.positions], self.logits), self.table)


LatticeTransform = Callable[[Prediction, Lattice, slice, Tensor], Prediction]
"""A new prediction from a prediction, its lattice, the positions that it covers and those that are known [b, l]."""


class LatticeDenoiser(WrappedDenoiser):
    """A denoiser whose predictions are transformed together with their lattice."""

    def __init__(
        self, denoiser: Denoiser, guide: SoftConstraint | HardConstraint, request: Request, transform: LatticeTransform
    ) -> None:
        super().__init__(denoiser, self._transform)
        self.guide, self.request, self.transform_lattice = guide, request, transform
        self.automaton = guide.automaton.to(request.batch.tokens.device)

    def _transform(self, prediction: Prediction, xt: Tensor, t: Tensor, batch: Batch) -> Prediction:
        logp = prediction.logits.log_softmax(-1)
        logp = logp.clamp(min=_MIN_LOG_PROB)  # tokens excluded by another guide, if the pattern leaves no choice
        known = torch.zeros_like(xt if xt.ndim == 2 else xt[..., 0], dtype=torch.bool)
        if (prompt := batch.prompt_mask) is not None:
            known, logp = known | prompt, _fix_tokens(logp, batch.tokens, prompt)
        if not xt.is_floating_point():
            visible = ~self.guide.process.is_noisy(xt)
            known, logp = known | visible, _fix_tokens(logp, xt, visible)
        skip, full_batch = self.automaton.outside_text(batch), self._full_batch(batch)
        start, stop = self.request.offset, self.request.offset + xt.shape[1]
        if xt.shape[1] < full_batch.tokens.shape[1]:
            # Nothing is known of later positions: assume the distribution of the last position here.
            guess = logp[:, -1:].clamp(min=_MIN_GUESS).expand(-1, full_batch.tokens.shape[1], -1)
            guess = _fix_tokens(guess, full_batch.tokens, full_batch.tokens < logp.shape[-1])
            logp = torch.cat((guess[:, :start], logp, guess[:, stop:]), dim=1)
            skip = self.automaton.outside_text(full_batch)
        return self.transform_lattice(prediction, Lattice(self.automaton, logp, skip), slice(start, stop), known)

    def _full_batch(self, batch: Batch) -> Batch:
        """The full texts of the rows of `batch` so far; undecided positions hold an id beyond the vocabulary."""
        request = self.request
        if request.full_batch is not None:
            assert batch.row_ids is not None, "row_ids select the rows of full_batch"
            return request.full_batch.select(batch.row_ids)
        prompt = request.batch.prompt_mask
        free = request.batch.target_mask if prompt is None else request.batch.target_mask & ~prompt
        undecided = len(self.automaton.token_classes)
        return replace(request.batch, tokens=torch.where(free, undecided, request.batch.tokens))

    def check_satisfiable(self, name: str) -> None:
        """Raises UserError if no text of the request's length with its given tokens matches the pattern `name`."""
        batch = self.request.full_batch or self._full_batch(self.request.batch)
        vocab_size = len(self.automaton.token_classes)
        logp = torch.zeros(*batch.tokens.shape, vocab_size, device=batch.tokens.device)
        logp = _fix_tokens(logp, batch.tokens, batch.tokens < vocab_size)
        skip = self.automaton.outside_text(batch)
        if bool(Lattice(self.automaton, logp, skip).log_prob.isfinite().all()):
            return
        length = int((~skip).sum(-1).max())
        match self.automaton.nearest_length(length):
            case None:
                reason = ", and neither does one of another length: no tokens of the run spell it, or guides conflict"
            case nearest if nearest == length:
                reason = " together with the given text"
            case nearest:
                reason = f"; texts of {nearest} tokens can"
        raise UserError(f"No text of {length} tokens matches {name}{reason}.")


def _fix_tokens(logp: Logits, tokens: Tokens, mask: Mask) -> Logits:
    """`logp` with certainty of `tokens` at the positions of `mask`."""
    fixed = logp.masked_fill(mask[..., None], -torch.inf)
    return fixed.index_put_((*mask.nonzero(as_tuple=True), tokens[mask]), fixed.new_zeros(()))
