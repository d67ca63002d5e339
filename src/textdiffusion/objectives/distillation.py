"""Distillation: a student learns to say in one step what its teacher says in two."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from ..core.batch import Batch
from ..core.randomness import Rng
from ..core.registry import check_bounds
from ..core.types import Logits, PerPosition, Times, Tokens
from ..diffusion.absorbing import AbsorbingProcess
from ..diffusion.model import DiffusionModel
from ..diffusion.uniform import UniformProcess
from .base import Loss, Objective, add_noise, per_token, stratified_uniforms
from .discrete import gaussian_state

MIN_LOG_PROB = -100.0  # of impossible tokens, so that 0 log 0 is 0


class Lesson(NamedTuple):
    """What a teacher says of x_t at time t: `logits` of p(x0 | x_t), and how much each position counts (0: nothing)."""

    xt: Tokens
    t: Times
    logits: Logits
    weight: PerPosition


@dataclass(frozen=True, kw_only=True)
class Distillation(Objective):
    """A divergence of the student's predictions from what the teacher says, nats per token.

    `steps` is the number of steps that the student learns to take, and `origin` the name of the run that it is
    distilled from, for the model card. `divergence` decides what the student makes of different lessons at one x_t:

    - `forward`, KL(teacher || student): their mean, as diverse as the teacher.
    - `reverse`, KL(student || teacher): their geometric mean, normalised. What any lesson excludes is excluded, so
      text is sharper than the teacher's.
    """

    follows_bound: ClassVar[bool] = False

    steps: int = 8
    divergence: Literal["forward", "reverse"] = "forward"
    origin: str = ""

    def __post_init__(self) -> None:
        check_bounds(self, steps=(1, None))

    @abstractmethod
    def lesson(self, teacher: DiffusionModel, batch: Batch, rng: Rng) -> Lesson:
        """What the teacher says of noised rows of `batch`."""

    def __call__(self, model: DiffusionModel, batch: Batch, *, rng: Rng, teacher: DiffusionModel | None = None) -> Loss:
        """One t per row, stratified over the global batch. Without a `teacher` the model is its own, as it is now."""
        with torch.no_grad():
            lesson = self.lesson(model if teacher is None else teacher, batch, rng)
        taught = lesson.logits.flatten(0, 1)

        def divergence(logits: Tensor, position: Tensor) -> Tensor:
            student, target = (x.log_softmax(-1).clamp(min=MIN_LOG_PROB) for x in (logits, taught[position]))
            log_p, log_q = (target, student) if self.divergence == "forward" else (student, target)
            return (log_p.exp() * (log_p - log_q)).sum(-1)

        position = torch.arange(len(taught), device=taught.device).view(lesson.xt.shape)
        prediction = model.denoiser(lesson.xt, lesson.t, batch=batch)
        nats = prediction.map_positions(divergence, lesson.weight > 0.0, position) * lesson.weight
        total = per_token(nats.sum(-1), batch).mean()
        return Loss(total, {"divergence": total.detach()})


@dataclass(frozen=True, kw_only=True)
class SelfDistillation(Distillation):
    """Masks: one step of the student learns what two steps of half the size of the teacher say (SDTT).

    Deschenaux and Gulcehre (2024). From x_t, a noised text, the teacher reveals tokens at random down to the time in
    the middle of the student's step, and predicts again. A position revealed until then has the first prediction as its
    lesson, one that is still masked the second, which knows the tokens just drawn; it counts as much as it is likely to
    be revealed in the second step. Nats are those of the student's steps from noise to text, per token.

    A student with independent tokens cannot say which tokens go together: with an ideal teacher that reveals one token
    in its first step, the mean of the second predictions is the first. What it gains from `forward` is the teacher's
    own averaging; `reverse` prefers the tokens that most of the teacher's paths agree on.
    """

    processes: ClassVar[tuple[type, ...]] = (AbsorbingProcess,)

    def lesson(self, teacher: DiffusionModel, batch: Batch, rng: Rng) -> Lesson:
        process, density = teacher.process, teacher.time_density
        step = (stratified_uniforms(batch, rng=rng.fork("t")) * self.steps).ceil().clamp(min=1.0)
        t, middle, s = (density.sampling_times((step - part) / self.steps) for part in (0.0, 0.5, 1.0))
        xt = add_noise(teacher, batch.tokens, t, batch, rng=rng.fork("noise"))
        masked = process.is_noisy(xt) & batch.target_mask
        first = teacher.denoiser(xt, t, batch=batch)
        between = torch.where(masked, process.reverse(xt, first, t, middle, rng=rng.fork("reverse")), xt)
        second = teacher.denoiser(between, middle, batch=batch)
        late = process.is_noisy(between)
        logits = torch.where(late[..., None], second.logits, first.logits)
        late_prob = 1.0 - process.schedule.mask_prob(s) / process.schedule.mask_prob(middle)
        weight = torch.where(late, late_prob[:, None], 1.0) * masked
        return Lesson(xt, t, logits, weight * self.steps)


@dataclass(frozen=True, kw_only=True)
class ConsistencyDistillation(Distillation):
    """Uniform noise: the student says at t what the teacher says a step earlier on the same path (Duo's distillation).

    Sahoo et al. (2025), section 4. Both see argmax(a x_0 + eps) with the same eps: a path of the Gaussian diffusion
    whose argmax is the uniform process, with x_0 in place of the prediction. The step has the length 1 / `steps`.
    """

    processes: ClassVar[tuple[type, ...]] = (UniformProcess,)

    def lesson(self, teacher: DiffusionModel, batch: Batch, rng: Rng) -> Lesson:
        process, target = teacher.process, batch.target_mask
        u = stratified_uniforms(batch, rng=rng.fork("t"))
        t, s = (teacher.time_density.sampling_times(at) for at in (u, (u - 1.0 / self.steps).clamp(min=0.0)))
        eps = rng.fork("noise").normal(batch.tokens.shape[1], process.vocab_size)
        states = (gaussian_state(process, batch.tokens, eps, at).argmax(-1) for at in (t, s))
        xt, xs = (torch.where(target, state, batch.tokens) for state in states)
        return Lesson(xt, t, teacher.denoiser(xs, s, batch=batch).logits, target.float())
