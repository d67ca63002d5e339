"""Which parts of a configuration fit together: every rule of that kind, each a sentence for the user.

Parts declare the classes that they work with (`codecs`, `processes`, `backbones`), those of a contributor too. `PAIRS`
adds pairs of kinds that neither part can declare, as it lies in a layer below the other. The functions after it hold
the rules about values of settings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ..core.errors import UserError
from ..core.registry import Part
from ..data.masks import scatters_conditions
from ..diffusion.absorbing import Absorbing, AbsorbingProcess
from ..diffusion.alpha_schedules import Linear
from ..diffusion.binned_densities import LossSecondMoment, MinVariance
from ..diffusion.blocks import BlockAbsorbing
from ..diffusion.curve_densities import Gumbel
from ..diffusion.densities import Uniform
from ..diffusion.gaussian import GaussianProcess
from ..diffusion.sigma_schedules import LearnedLogSigma, LogSigma
from ..diffusion.table_codecs import Embeddings
from ..diffusion.uniform import UniformNoise
from ..networks.block_denoiser import BlockDenoiserConfig
from ..networks.lm_denoiser import LMBlockDenoiserConfig
from ..networks.next_token_denoiser import NextTokenDenoiserConfig
from ..networks.output_heads import X0Regression
from ..networks.score_denoiser import ScoreDenoiserConfig
from ..networks.token_denoiser import MaskDenoiserConfig
from ..objectives.embedding_losses import DiffusionLM, MSEWithCrossEntropy, SquaredError
from ..objectives.gaussian_elbo import GaussianELBO
from ..objectives.masked import MaskedELBO
from ..objectives.next_token import NextToken
from ..samplers.autoregressive import Autoregressive
from ..samplers.base import ProcessSpecific, incompatibility
from ..samplers.blocks import BlockAncestral, BlockUnmasking
from ..samplers.first_hitting import FirstHitting
from ..samplers.gaussian import GaussianSampler
from ..samplers.time_grids import Tuned

PARTS = ("codec", "process", "time_density", "backbone", "denoiser", "objective", "likelihood")
BLOCK_DENOISERS = (BlockDenoiserConfig, LMBlockDenoiserConfig)
DECLARATIONS = {"codec": "codecs", "process": "processes", "backbone": "backbones"}


class Pair(NamedTuple):
    """The kind `part` at `path` works only with the kinds `partners` at `partner_path`."""

    path: str
    part: type[Part]
    partner_path: str
    partners: tuple[type[Part], ...]
    reason: str


PAIRS = (
    Pair("process.schedule", LearnedLogSigma, "objective", (GaussianELBO,), "under others the noise vanishes"),
    Pair("time_density", MinVariance, "objective", (GaussianELBO,), "uniform works with all"),
    Pair("time_density", LossSecondMoment, "objective", (DiffusionLM,), "others do not weight their draws"),
    Pair("time_density", Gumbel, "process.schedule", (LogSigma,), "it is a curve in ln sigma; cauchy fits any"),
    Pair("objective", GaussianELBO, "time_density", (MinVariance, Uniform), "others fit cross-entropy"),
    Pair("objective", DiffusionLM, "denoiser.output_head", (X0Regression,), "it fits regressed states"),
)


def check(config: Any) -> None:
    """Raises UserError where the parts of a configuration do not fit together."""
    for rules in (_unfit_partners, _unfit_pairs, _text_problems, _denoiser_problems, _objective_problems):
        for problem in rules(config):
            raise UserError(problem)
    if problem := _step_problem(config) or sampler_problem(config.sampler, config, type(config.process).module):
        raise UserError(problem)


def check_train(config: Any) -> None:
    """Raises UserError where a new run of this configuration should not begin. Existing runs may have it."""
    for problem in _training_problems(config):
        raise UserError(problem)


def sampler_problem(sampler: ProcessSpecific, config: Any, process: object) -> str | None:
    """Why a sampler, or the likelihood of one, does not fit a run of `process` (or that class), directly or as masks.

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


def _unfit_partners(config: Any) -> Iterator[str]:
    """What the parts declare: the codecs, processes and backbones that each works with."""
    for path, part in (nested for name in PARTS for nested in _nested_parts(name, getattr(config, name))):
        for name, declaration in DECLARATIONS.items():
            partner, allowed = getattr(config, name), getattr(part, declaration, ())
            module = type(partner).module
            if allowed and module and not issubclass(module, allowed):
                base = next(cls for cls in type(partner).__mro__ if Part in cls.__bases__)
                choices = base.choices().items()
                kinds = [kind for kind, cls in choices if cls.module and issubclass(cls.module, allowed)]
                yield f"{_unfit(path, part, name, partner, kinds or [cls.__name__ for cls in allowed])}."


def _unfit_pairs(config: Any) -> Iterator[str]:
    for path, kind, partner_path, partners, reason in PAIRS:
        part, partner = _part_at(config, path), _part_at(config, partner_path)
        if isinstance(part, kind) and not isinstance(partner, partners):
            yield f"{_unfit(path, part, partner_path, partner, [cls.kind for cls in partners])}: {reason}."


def _unfit(path: str, part: Part, partner_path: str, partner: Any, kinds: Sequence[str]) -> str:
    *names, last = kinds
    allowed = f"{', '.join(names)} or {last}" if names else last
    return (
        f"{path}.kind={part.kind} works with {partner_path}.kind={allowed}, not with {getattr(partner, 'kind', 'none')}"
    )


def _nested_parts(path: str, part: Any) -> Iterator[tuple[str, Any]]:
    """The path and settings of a part and of the parts in it."""
    yield path, part
    for field in dataclasses.fields(part):
        if isinstance(value := getattr(part, field.name), Part):
            yield from _nested_parts(f"{path}.{field.name}", value)


def _part_at(config: Any, path: str) -> Any:
    """The part at `path`, or None if the parts above it have no such setting."""
    for name in path.split("."):
        config = getattr(config, name, None)
    return config


def _text_problems(config: Any) -> Iterator[str]:
    text = config.text
    if text.packing and not config.backbone.supports_packing:
        yield (
            f"text.packing works with backbone.kind=transformer, not with {config.backbone.kind}: it would mix "
            "the examples of a packed row."
        )
    if text.label and isinstance(config.denoiser, BLOCK_DENOISERS):
        yield "Block diffusion takes no label; give text.source a field with the label's name instead."


def _denoiser_problems(config: Any) -> Iterator[str]:
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


def _objective_problems(config: Any) -> Iterator[str]:
    objective, density = config.objective, config.time_density
    head = _part_at(config, "denoiser.output_head")
    if isinstance(objective, SquaredError):
        if isinstance(head, X0Regression) and head.bias:  # it would be a parameter without a gradient
            yield "denoiser.output_head.bias has no effect on SquaredError; set it to false."
        if isinstance(config.codec, Embeddings) and config.codec.learned:
            yield (
                "SquaredError would make all learned embeddings equal; set codec.learned=false or "
                "objective.kind=mse_with_cross_entropy."
            )
    if isinstance(objective, MSEWithCrossEntropy) and not objective.ce_weight >= 1e-6:
        yield (
            f"objective.ce_weight is {objective.ce_weight:g}; it must be at least 1e-06. Squared error alone is "
            "objective.kind=squared_error."
        )
    if isinstance(objective, DiffusionLM) and not objective.rounding_weight >= 1e-6:
        yield (
            f"objective.rounding_weight is {objective.rounding_weight:g}; it must be at least 1e-06, as rounding keeps "
            "learned embeddings apart."
        )
    if (
        isinstance(objective, MaskedELBO)
        and objective.complementary
        and not isinstance(config.process.schedule, Linear)
    ):
        yield f"objective.complementary needs process.schedule=linear, not {config.process.schedule.kind}."
    if isinstance(objective, NextToken) and density != Uniform():
        yield "time_density has no effect on NextToken, which has no noise levels; leave it at its default."
    if isinstance(density, LossSecondMoment) and config.process.schedule.num_levels % density.bins:
        levels = config.process.schedule.num_levels  # all of one level are in one bin
        yield f"time_density.bins is {density.bins}; it must divide the {levels} noise levels of the process."


def _step_problem(config: Any) -> str | None:
    if isinstance(config.sampler, (BlockAncestral, BlockUnmasking)) and isinstance(config.process, BlockAbsorbing):
        blocks = -(-config.text.length // config.process.block_size)
        if 0 < config.sampler.steps < blocks:
            return f"sampler.steps is {config.sampler.steps}; a window's {blocks} blocks take at least one step each."
    return None


def _training_problems(config: Any) -> Iterator[str]:
    sampler, length = config.sampler, config.text.length
    if isinstance(config.denoiser, BLOCK_DENOISERS) and config.text.condition_dropout:
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
