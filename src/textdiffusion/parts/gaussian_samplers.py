"""The samplers of Gaussian processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..core.errors import UserError
from .base import SamplerPart, check_bounds

if TYPE_CHECKING:
    from ..samplers.base import Sampler
    from ..samplers.gaussian import Path


@dataclass(frozen=True)
class GaussianSteps(SamplerPart):
    """What the samplers of Gaussian processes have in common.

    `grid` says at which noise levels the steps are: quantiles of the `trained` density (equal steps of t where none
    was learned), `edm` (even in sigma^(1 / `rho`)), `log` (even in ln sigma), or `tuned` by `textdiffusion tune`.
    `start` scales the first noise. `score_temperature` divides the score: below 1 text is safer and less diverse.
    `clamp` rounds the denoised state to the nearest token's from that t on (1: always, 0: never). `patience` ends a
    row when its tokens have not changed for so many steps (0: never).
    """

    grid: Literal["trained", "edm", "log", "tuned"] = "trained"
    rho: float = 7.0
    init_noise_scale: float = 1.0
    score_temperature: float = 1.0
    clamp: float = 0.0
    patience: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(
            self, rho=(0.1, 100.0), init_noise_scale=(0.0, 2.0), score_temperature=(0.1, 10.0), clamp=(0.0, 1.0)
        )
        check_bounds(self, patience=(0, None))
        if self.rho != 7.0 and self.grid != "edm":
            raise UserError(f"sampler.rho={self.rho:g} has no effect without sampler.grid=edm.")

    def path(self, churn: float = 0.0, gate: float = 0.0) -> Path:
        """These settings, and those of churn where a sampler has it."""
        from ..samplers.gaussian import Path

        return Path(
            self.grid,
            self.rho,
            self.init_noise_scale,
            self.score_temperature,
            self.clamp,
            self.patience,
            s_churn=churn,
            churn_entropy=gate,
        )


@dataclass(frozen=True)
class DDIM(GaussianSteps):
    """DDIM (eta 0) to ancestral (eta 1) sampling of Gaussian processes; `renoise` noises every prediction afresh.

    The network is told a noise level `ahead` steps above the state's: asymmetric time intervals (td of Analog Bits).
    `projection` makes each prediction certain of one token first: the likeliest, or one drawn from the `top_p` nucleus.
    `truncate` cuts the noise of a step to so many standard deviations (0: not at all). `churn` adds noise before each
    step, with a `gate` only where the last prediction had an entropy above so many nats.
    """

    eta: float = 0.0
    renoise: bool = False
    time_offset: float = 0.0
    projection: Literal["none", "greedy", "sample"] = "none"
    top_p: float = 1.0
    max_noise_std: float = 0.0
    s_churn: float = 0.0
    churn_entropy: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, eta=(0.0, 1.0), time_offset=(0.0, None), top_p=(1e-6, 1.0), max_noise_std=(0.0, None))
        if self.top_p != 1.0 and self.projection != "sample":
            raise UserError(f"sampler.top_p={self.top_p:g} has no effect without sampler.projection=sample.")
        if self.renoise and self.eta:
            raise UserError(f"sampler.eta={self.eta:g} has no effect with renoise, which keeps no noise; set eta=0.")
        if self.max_noise_std and not (self.eta or self.renoise):
            raise UserError("sampler.max_noise_std has no effect without noise; set sampler.eta or sampler.renoise.")
        _churning(self, self.s_churn, self.churn_entropy)

    def build(self) -> Sampler:
        from ..samplers.ddim import DDIM as Built

        own = self.eta, self.renoise, self.time_offset, self.projection, self.top_p
        return Built(*own, truncate=self.max_noise_std, path=self.path(self.s_churn, self.churn_entropy))


@dataclass(frozen=True)
class Heun(GaussianSteps):
    """Second order in two network calls a step; `churn` adds noise before each step (EDM).

    With a `gate` churn is only where the last prediction had an entropy above so many nats.
    """

    s_churn: float = 0.0
    churn_entropy: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _churning(self, self.s_churn, self.churn_entropy)

    def build(self) -> Sampler:
        from ..samplers.heun import Heun as Built

        return Built(self.path(self.s_churn, self.churn_entropy))


@dataclass(frozen=True)
class DPMSolver(GaussianSteps):
    """DPM-Solver++(2M): second order in one network call a step; with `eta` its stochastic form (1: SDE)."""

    eta: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, eta=(0.0, None))

    def build(self) -> Sampler:
        from ..samplers.dpm_solver import DPMSolver as Built

        return Built(self.eta, self.path())


def _churning(part: GaussianSteps, churn: float, gate: float) -> None:
    check_bounds(part, s_churn=(0.0, None), churn_entropy=(0.0, None))
    if gate and not churn:
        raise UserError(f"sampler.churn_entropy={gate:g} has no effect without sampler.s_churn.")
