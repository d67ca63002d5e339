"""Which parts of a configuration fit together: every rule of that kind, each a sentence for the user.

Parts declare what they work with (`processes`, `codecs`, `backbones`, `objectives`: tuples of classes), and
`check` holds any part to that, those of a contributor too. Only rules about pairs of settings are written out here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from ..core.errors import UserError
from ..core.registry import Part
from ..data.config import TextConfig
from ..data.masks import scatters_conditions
from ..diffusion.absorbing import Absorbing, AbsorbingProcess
from ..diffusion.binned_densities import LossSecondMoment, MinVariance
from ..diffusion.blocks import BlockAbsorbing
from ..diffusion.curve_densities import Gumbel
from ..diffusion.densities import Uniform
from ..diffusion.gaussian import Gaussian, GaussianProcess
from ..diffusion.sigma_schedules import LearnedLogSigma, LogSigma
from ..diffusion.table_codecs import Embeddings
from ..diffusion.uniform import UniformNoise
from ..networks.block_denoiser import BlockDenoiserConfig
from ..networks.embedding_denoiser import EmbeddingDenoiserConfig
from ..networks.next_token_denoiser import NextTokenDenoiserConfig
from ..networks.output_heads import X0Regression
from ..networks.score_denoiser import ScoreDenoiserConfig
from ..networks.simplex_denoiser import SimplexDenoiserConfig
from ..networks.token_denoiser import MaskDenoiserConfig
from ..objectives.embedding_losses import DiffusionLM, MSEWithCrossEntropy, SquaredError
from ..objectives.gaussian_elbo import GaussianELBO
from ..objectives.next_token import NextToken
from ..samplers.autoregressive import Autoregressive
from ..samplers.base import incompatibility
from ..samplers.blocks import BlockAncestral
from ..samplers.first_hitting import FirstHitting
from ..samplers.gaussian import GaussianSampler
from ..samplers.time_grids import Tuned


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
    yield from _partner_problems(config)
    yield from _denoiser_problems(config)
    text, objective = config.text, config.objective
    name = type(objective).__name__
    if text.packing and not config.backbone.supports_packing:
        kind = type(config.backbone).__name__
        yield f"text.packing needs backbone.kind=transformer: {kind} would mix the examples of a packed row."
    if isinstance(config.denoiser, BlockDenoiserConfig) and text.label:
        yield "Block diffusion takes no label; give text.source a field with the label's name instead."
    schedule = config.process.schedule if isinstance(config.process, Gaussian) else None
    if isinstance(schedule, LearnedLogSigma) and not isinstance(objective, GaussianELBO):
        yield (
            f"process.schedule=learned_log_sigma needs objective.kind=gaussian_elbo: under {name} the noise would "
            "vanish. log_sigma has fixed ends."
        )
    if isinstance(config.time_density, MinVariance) and not isinstance(objective, GaussianELBO):
        yield f"MinVariance works with objective.kind=gaussian_elbo, not with {name}; Uniform works with all."
    if isinstance(config.time_density, LossSecondMoment) and not isinstance(objective, DiffusionLM):
        yield (
            f"LossSecondMoment works with objective.kind=diffusion_lm: {name} does not weight draws, which would "
            "change what is learned."
        )
    yield from _objective_problems(config)
    yield from _density_problems(config)
    if isinstance(config.sampler, BlockAncestral) and isinstance(config.process, BlockAbsorbing):
        blocks = -(-text.length // config.process.block_size)
        if 0 < config.sampler.steps < blocks:
            yield f"sampler.steps is {config.sampler.steps}; a window's {blocks} blocks take at least one step each."
    yield from _process_problems(config)


def _process_problems(config: Parts) -> Iterator[str]:
    """The objective, the likelihood and the sampler say which processes they can act on."""
    process = type(config.process).module
    for part in (config.objective, config.likelihood):
        if problem := incompatibility(part, process):
            yield problem
    if problem := sampler_problem(config.sampler, config, process):
        yield problem


def _density_problems(config: Parts) -> Iterator[str]:
    density, process = config.time_density, config.process
    if isinstance(density, Gumbel) and not isinstance(process.schedule, LogSigma):
        yield (
            "time_density.kind=gumbel is a curve in ln sigma and needs process.schedule=log_sigma; "
            "cauchy, time_warp and uniform work with every schedule."
        )
    if isinstance(density, LossSecondMoment) and process.schedule.num_levels % density.bins:
        levels = process.schedule.num_levels  # all of one level are in one bin
        yield f"time_density.bins is {density.bins}; it must divide the {levels} noise levels of the process."


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
    if isinstance(objective, MSEWithCrossEntropy) and objective.ce_weight == 0:
        yield "objective.ce_weight is 0; it must be positive. Squared error alone is objective.kind=squared_error."
    if isinstance(objective, DiffusionLM) and objective.rounding_weight == 0:
        yield "objective.rounding_weight is 0; it must be positive, as rounding keeps learned embeddings apart."
    if isinstance(objective, DiffusionLM) and not isinstance(head, X0Regression):
        yield "DiffusionLM fits regressed states; set denoiser.output_head.kind=x0_regression."
    if isinstance(objective, GaussianELBO) and not isinstance(config.time_density, (MinVariance, Uniform)):
        # Other densities fit cross-entropy, which the integrand of the bound is not.
        name = type(config.time_density).__name__
        yield f"GaussianELBO works with time_density.kind=min_variance or uniform, not with {name}."
    if isinstance(objective, NextToken) and config.time_density != Uniform():
        yield "time_density has no effect on NextToken, which has no noise levels; leave it at its default."


def _partner_problems(config: Parts) -> Iterator[str]:
    """What the parts declare: the codecs, processes and backbones that each works with."""
    for path, part in _parts(config):
        for name, allowed in (
            ("codec", getattr(part, "codecs", None)),
            ("process", getattr(part, "processes", None)),
            ("backbone", getattr(part, "backbones", None)),
        ):
            partner = getattr(config, name)
            module = type(partner).module
            if allowed and module and not issubclass(module, allowed):
                base = next(cls for cls in type(partner).__mro__ if Part in cls.__bases__)
                modules = {kind: choice.module for kind, choice in base.choices().items()}
                kinds = [kind for kind, choice in modules.items() if choice and issubclass(choice, allowed)]
                options = f"{name}.kind={_either(kinds)}" if kinds else _either([cls.__name__ for cls in allowed])
                yield f"{path}.kind={part.kind} works with {options}, not with {partner.kind}."


def _parts(config: Parts) -> Iterator[tuple[str, Any]]:
    """The path and settings of every part, parts of parts included, except the sampler (see `sampler_problem`)."""
    for name in ("codec", "process", "time_density", "backbone", "denoiser", "objective", "likelihood"):
        yield from _nested_parts(name, getattr(config, name))


def _nested_parts(path: str, part: Any) -> Iterator[tuple[str, Any]]:
    yield path, part
    for field in dataclasses.fields(part):
        if isinstance(value := getattr(part, field.name), Part):
            yield from _nested_parts(f"{path}.{field.name}", value)


def _either(names: Sequence[str]) -> str:
    *names, last = names
    return f"{', '.join(names)} or {last}" if names else last


def _denoiser_problems(config: Parts) -> Iterator[str]:
    """Pairs of a denoiser's settings and those of the backbone and the process."""
    denoiser, backbone, process = config.denoiser, config.backbone, config.process
    modulation = backbone.modulation
    reads_masks = isinstance(denoiser, (MaskDenoiserConfig, ScoreDenoiserConfig))
    if reads_masks and isinstance(process, Absorbing) and process.time_input == "sigma" and not denoiser.time:
        yield "process.time_input=sigma has no effect without denoiser.time; set that to true."
    if isinstance(denoiser, ScoreDenoiserConfig) and denoiser.scale_by_sigma and isinstance(process, UniformNoise):
        yield "denoiser.scale_by_sigma is for the ratios of masks; set it to false for process.kind=uniform."
    if denoiser.needs_noise_level and modulation == "none":
        yield (
            f"denoiser.kind={denoiser.kind} needs the noise level, which backbone.modulation=none ignores; set "
            "backbone.modulation=film."
        )
    if isinstance(denoiser, MaskDenoiserConfig) and denoiser.time and modulation == "none":
        yield "denoiser.time has no effect with backbone.modulation=none; set backbone.modulation=adaln."
    if isinstance(denoiser, ScoreDenoiserConfig) and denoiser.time != (modulation != "none"):
        yield f"denoiser.time is {denoiser.time}, but backbone.modulation is {modulation}: one needs the other."
    if isinstance(denoiser, NextTokenDenoiserConfig) and modulation != "none":
        yield f"backbone.modulation is {modulation}, but {denoiser.kind} has no time input; set it to none."
    if isinstance(denoiser, BlockDenoiserConfig) and backbone.conv_radius:
        yield (
            f"backbone.conv_radius is {backbone.conv_radius}, but {denoiser.kind} must not mix features of different "
            "blocks; set it to 0."
        )


def _training_problems(config: Parts) -> Iterator[str]:
    sampler, length = config.sampler, config.text.length
    if isinstance(config.denoiser, BlockDenoiserConfig) and config.text.condition_dropout:
        yield "text.condition_dropout has no use in block diffusion: nothing samples blocks without their condition."
    if isinstance(sampler, GaussianSampler) and isinstance(sampler.grid, Tuned):
        yield "sampler.grid=tuned is for sampling from a run that `textdiffusion tune` has measured."
    one_per_token = isinstance(sampler, (Autoregressive, FirstHitting))
    more = isinstance(sampler, FirstHitting) and sampler.steps > length
    if one_per_token and sampler.steps not in (0, length) and not more:
        yield (
            f"sampler.steps is {sampler.steps}; {type(sampler).__name__} takes one step for each of the {length} "
            "tokens of a window; 0 asks for that too."
        )


def sampler_problem(sampler: Any, config: Parts, process: object) -> str | None:
    """Why a sampler cannot drive a run whose process is `process` (or of that class), directly or as masks.

    A sentence, or None if it can.
    """
    problem = incompatibility(sampler, process)
    kind = process if isinstance(process, type) else type(process)
    as_masks = issubclass(kind, GaussianProcess) and issubclass(AbsorbingProcess, sampler.processes)
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
