"""Which parts of a configuration fit together: every rule of that kind, each a sentence for the user.

Parts declare what they work with (`processes`, `codecs`, `backbones`, `objectives`: tuples of classes), and
`check` holds any part to that, those of a contributor too. Only rules about pairs of settings are written out here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

from ..core.errors import UserError
from ..data.config import TextConfig
from ..data.masks import scatters_conditions
from ..diffusion.absorbing import AbsorbingProcess
from ..diffusion.gaussian import GaussianProcess
from ..parts import (
    Autoregressive,
    BlockAbsorbing,
    BlockAncestral,
    BlockDenoiserConfig,
    DiffusionLM,
    EmbeddingDenoiserConfig,
    Embeddings,
    FirstHitting,
    Gaussian,
    GaussianELBO,
    GaussianSteps,
    LossSecondMoment,
    MinVariance,
    NextToken,
    SimplexDenoiserConfig,
    SquaredError,
    Uniform,
    X0Regression,
)
from ..samplers.base import incompatibility


@runtime_checkable
class Parts(Protocol):
    """What the rules read of a configuration."""

    @property
    def text(self) -> TextConfig: ...

    @property
    def codec(self) -> Any: ...

    @property
    def process(self) -> Any: ...

    @property
    def time_density(self) -> Any: ...

    @property
    def backbone(self) -> Any: ...

    @property
    def denoiser(self) -> Any: ...

    @property
    def objective(self) -> Any: ...

    @property
    def likelihood(self) -> Any: ...

    @property
    def sampler(self) -> Any: ...


def check(config: Parts) -> None:
    """Raises UserError where the parts of a configuration do not fit together."""
    for problem in _problems(config):
        raise UserError(problem)


def check_train(config: Parts) -> None:
    """Raises UserError where a new run of this configuration should not begin. Existing runs may have it."""
    for problem in _training_problems(config):
        raise UserError(problem)


def _problems(config: Parts) -> Iterator[str]:
    text, objective = config.text, config.objective
    name = type(objective).__name__
    if text.packing and not config.backbone.supports_packing:
        kind = type(config.backbone).__name__
        yield f"text.packing needs backbone.kind=transformer: {kind} would mix the examples of a packed row."
    if isinstance(config.denoiser, BlockDenoiserConfig) and text.label:
        yield "Block diffusion takes no label; give text.source a field with the label's name instead."
    learned = isinstance(config.process, Gaussian) and config.process.schedule == "learned"
    if learned and not isinstance(objective, GaussianELBO):
        yield (
            f"process.schedule=learned needs objective.kind=gaussian_elbo: under {name} the noise would vanish. "
            "log_sigma has fixed ends."
        )
    if isinstance(config.time_density, MinVariance) and not isinstance(objective, GaussianELBO):
        yield f"MinVariance works with objective.kind=gaussian_elbo, not with {name}; Uniform works with all."
    if isinstance(config.time_density, LossSecondMoment) and not isinstance(objective, DiffusionLM):
        yield (
            f"LossSecondMoment works with objective.kind=diffusion_lm: {name} does not weight draws, which would "
            "change what is learned."
        )
    yield from _objective_problems(config)
    if isinstance(config.sampler, BlockAncestral) and isinstance(config.process, BlockAbsorbing):
        blocks = -(-text.length // config.process.block_size)
        if 0 < config.sampler.steps < blocks:
            yield f"sampler.steps is {config.sampler.steps}; a window's {blocks} blocks take at least one step each."


def _objective_problems(config: Parts) -> Iterator[str]:
    objective = config.objective
    networks_of_states = (EmbeddingDenoiserConfig, SimplexDenoiserConfig)
    head = config.denoiser.output_head if isinstance(config.denoiser, networks_of_states) else None
    if isinstance(objective, SquaredError):
        if isinstance(head, X0Regression) and head.bias:  # it would be a parameter without a gradient
            yield "denoiser.output_head.bias has no effect on SquaredError; set it to false."
        if isinstance(config.codec, Embeddings) and config.codec.learned:
            yield (
                "SquaredError would make all learned embeddings equal; set codec.learned=false or "
                "objective.kind=mse_with_cross_entropy."
            )
    if isinstance(objective, DiffusionLM) and not isinstance(head, X0Regression):
        yield "DiffusionLM fits regressed states; set denoiser.output_head.kind=x0_regression."
    if isinstance(objective, GaussianELBO) and not isinstance(config.time_density, (MinVariance, Uniform)):
        # Other densities fit cross-entropy, which the integrand of the bound is not.
        name = type(config.time_density).__name__
        yield f"GaussianELBO works with time_density.kind=min_variance or uniform, not with {name}."
    if isinstance(objective, NextToken) and config.time_density != Uniform():
        yield "time_density has no effect on NextToken, which has no noise levels; leave it at its default."


def _training_problems(config: Parts) -> Iterator[str]:
    sampler, length = config.sampler, config.text.length
    if isinstance(config.denoiser, BlockDenoiserConfig) and config.text.condition_dropout:
        yield "text.condition_dropout has no use in block diffusion: nothing samples blocks without their condition."
    if isinstance(sampler, GaussianSteps) and sampler.grid == "tuned":
        yield "sampler.grid=tuned is for sampling from a run that `textdiffusion tune` has measured."
    one_per_token = isinstance(sampler, (Autoregressive, FirstHitting))
    more = isinstance(sampler, FirstHitting) and sampler.steps > length
    if one_per_token and sampler.steps not in (0, length) and not more:
        yield (
            f"sampler.steps is {sampler.steps}; {type(sampler).__name__} takes one step for each of the {length} "
            "tokens of a window; 0 asks for that too."
        )


def sampler_problem(sampler: Any, config: Parts, process: object) -> str | None:
    """Why a sampler cannot drive a run whose noise is `process`, directly or as masks, as a sentence (None: it can)."""
    problem = incompatibility(sampler, process)
    as_masks = isinstance(process, GaussianProcess) and issubclass(AbsorbingProcess, sampler.processes)
    if problem is None or not as_masks:
        return problem
    name = type(sampler).__name__
    if not scatters_conditions(config.text.mask):
        return f"{name} needs an embedding run trained with given tokens anywhere, such as text.mask=random."
    if isinstance(config.objective, SquaredError):
        return (
            f"{name} draws tokens from a distribution, which squared error does not learn; "
            "objective.kind=score_interpolation does."
        )
    return None
