"""Texts that match a pattern: always, or more often."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..core.batch import Batch
from ..core.errors import UserError
from ..core.randomness import Rng
from ..diffusion.model import Denoiser
from ..diffusion.prediction import GuidedPrediction, Prediction, one_hot_logits
from ..samplers.base import LogitsGuide, Outermost, Request, WrappedDenoiser
from .automata import Automaton
from .lattice import Lattice

_LEAST = -1e4  # nats of a token that others bar: it is taken where nothing else would match
_GUESSED = -20.0  # nats of a token at places that the prediction does not reach


class SoftConstraint(LogitsGuide):
    """The odds of a match are multiplied by e^weight, exactly so under each prediction; below 0 it is avoided.

    A prediction says nothing of how its positions depend on each other. So tilted, its law has the marginals
    p(x_i) (1 + (e^weight - 1) p(match | x_i)) up to a constant, which one pass over positions and states gives.
    """

    def __init__(self, automaton: Automaton, process: Any, weight: float) -> None:
        self.automaton, self.process, self.weight = automaton, process, weight

    def wrap(self, denoiser: Denoiser, request: Request) -> Denoiser:
        """Predictions under which a match is likelier."""
        return Watched(denoiser, self.automaton, self.process, request, self.reweighted)

    def reweighted(self, said: Prediction, lattice: Lattice, places: slice, known: Bool[Tensor, "b l"]) -> Prediction:
        """The prediction with its marginals tilted."""
        match = lattice.log_chance[:, None, None] + lattice.marginals - lattice.by_class  # log p(match | class)
        match = match[:, places].nan_to_num(-torch.inf, neginf=-torch.inf).clamp(max=0.0)
        tilt = torch.logaddexp(torch.log1p(-match.exp()), match + self.weight)[..., lattice.automaton.classes]
        return said.with_logits(said.logits + torch.where(known[..., None], 0.0, tilt).float())


class HardConstraint(Outermost, LogitsGuide):
    """Every text matches, whatever the process and the sampler.

    Each prediction becomes its law given a match: its marginals where means are taken, one draw of the whole text where
    tokens are drawn, the likeliest text that matches where tokens are read. Other guides act before, wherever they
    stand, and several of these are one of all.
    """

    def __init__(self, automaton: Automaton, process: Any, name: str) -> None:
        self.automaton, self.process, self.name = automaton, process, name

    def wrap(self, denoiser: Denoiser, request: Request) -> Denoiser:
        """Predictions given a match. Raises UserError where no text of this length and with these tokens matches."""
        automaton, name = self.automaton, self.name
        if isinstance(denoiser, Watched) and denoiser.watch is ConstrainedPrediction:
            automaton, name = automaton.both(denoiser.automaton), f"{denoiser.name} and {name}"
            denoiser = denoiser.denoiser
        watched = Watched(denoiser, automaton, self.process, request, ConstrainedPrediction, name)
        watched.check()
        return watched


class ConstrainedPrediction(GuidedPrediction):
    """A prediction given that the text matches."""

    def __init__(self, said: Prediction, lattice: Lattice, places: slice, known: Bool[Tensor, "b l"]) -> None:
        tilt = (lattice.marginals - lattice.by_class)[:, places].nan_to_num(-torch.inf, neginf=-torch.inf)
        logits = lattice.logp[:, places] + tilt[..., lattice.automaton.classes]
        super().__init__(said, logits.float(), known)
        self.lattice, self.places = lattice, places

    @property
    def argmax(self) -> Int[Tensor, "b l"]:
        return self.lattice.best()[:, self.places]

    def sample_joint(self, rng: Rng) -> Prediction:
        return Prediction(one_hot_logits(self.lattice.drawn(rng)[:, self.places], self.logits), self.table)


class Watched(WrappedDenoiser):
    """A denoiser whose predictions are seen beside an automaton, which reads the texts that `name` says."""

    def __init__(
        self, denoiser: Denoiser, automaton: Automaton, process: Any, request: Request, watch, name: str = ""
    ) -> None:
        super().__init__(denoiser, self.seen)
        self.process, self.request, self.watch, self.name = process, request, watch, name
        self.automaton = automaton.to(request.batch.tokens.device)

    def seen(self, said: Prediction, xt: Tensor, t: Tensor, batch: Batch) -> Prediction:
        """What `watch` makes of a prediction and the lattice of it."""
        logp = said.logits.log_softmax(-1)
        logp = logp.clamp(min=_LEAST)  # what another guide barred is written where the pattern leaves no choice
        known = torch.zeros_like(xt if xt.ndim == 2 else xt[..., 0], dtype=torch.bool)
        if (told := batch.prompt_mask) is not None:
            known, logp = known | told, _told(logp, batch.tokens, told)
        if not xt.is_floating_point():
            fixed = ~self.process.is_noisy(xt)
            known, logp = known | fixed, _told(logp, xt, fixed)
        skip, whole = self.automaton.outside(batch), self.whole(batch)
        start, stop = self.request.offset, self.request.offset + xt.shape[1]
        places = slice(start, stop)
        if xt.shape[1] < whole.tokens.shape[1]:
            # Of later places no more is known than that they may be like the last one here.
            guess = logp[:, -1:].clamp(min=_GUESSED)
            rest = guess.expand(-1, whole.tokens.shape[1], -1)
            rest = _told(rest, whole.tokens, whole.tokens < logp.shape[-1])
            logp = torch.cat((rest[:, :start], logp, rest[:, stop:]), dim=1)
            skip = self.automaton.outside(whole)
        return self.watch(said, Lattice(self.automaton, logp, skip), places, known)

    def whole(self, batch: Batch) -> Batch:
        """The whole texts of the rows of `batch` as they stand; undecided places hold an id beyond the vocabulary."""
        request = self.request
        if request.full_batch is not None:
            assert batch.row_ids is not None, "which rows these are"
            return request.full_batch.select(batch.row_ids)
        told = request.batch.prompt_mask
        free = request.batch.target_mask if told is None else request.batch.target_mask & ~told
        return replace(request.batch, tokens=torch.where(free, len(self.automaton.classes), request.batch.tokens))

    def check(self) -> None:
        """Raises UserError where nothing matches."""
        whole = self.request.full_batch or self.whole(self.request.batch)
        vocab_size = len(self.automaton.classes)
        logp = torch.zeros(*whole.tokens.shape, vocab_size, device=whole.tokens.device)
        logp = _told(logp, whole.tokens, whole.tokens < vocab_size)
        skip = self.automaton.outside(whole)
        if not bool(Lattice(self.automaton, logp, skip).log_chance.isfinite().all()):
            length = int((~skip).sum(-1).max())
            match self.automaton.nearest(length):
                case None:
                    why = ", nor does one of another length: the run's tokens spell none, or wishes exclude each other"
                case other if other == length:
                    why = " with what is given, which counts too"
                case other:
                    why = f"; texts of {other} tokens can"
            raise UserError(f"No text of {length} tokens matches {self.name}{why}.")


def _told(logp: Float[Tensor, "b l v"], ids: Int[Tensor, "b l"], where: Bool[Tensor, "b l"]) -> Float[Tensor, "b l v"]:
    """Certain of `ids` at the positions `where`."""
    sure = one_hot_logits(torch.where(where, ids, 0), logp)
    return torch.where(where[..., None], sure, logp)
