"""Every setting of every part reaches what is built: none is lost on the way from the configuration."""

import dataclasses
import functools
import types
import typing
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.models import model_of
from textdiffusion import recipes
from textdiffusion.config.config import Config
from textdiffusion.config.overrides import apply_overrides
from textdiffusion.core.errors import UserError
from textdiffusion.core.registry import Part, from_dict, to_dict
from textdiffusion.guidance.base import GuideConfig
from textdiffusion.networks.backbone import BackboneConfig

VOCAB = 11
TINY = {"width": 24, "depth": 1}
KINDS = {kind: part for kind, part in Part.choices().items() if not issubclass(part, GuideConfig)}

NOT_BUILT = {
    "sampler.steps": "sampling reads it in the configuration",
    "sampler.temperature": "so it does",
    "sampler.top_p": "so it does",
    "language_model.width": "0 leaves that of the architecture",
    "language_model.depth": "so it does",
    "language_model.lora_targets": "names of maps, in tests of training",
    "dual_absorbing.time_input": "its denoiser has no time input",
    "objective.origin": "the model card shows it",
    "pretrained": "read once, when a run begins",
    "bert.frozen": "read then too",
    "score_denoiser.time": "each value needs another backbone",
    "unet.modulation": "no recipe's denoiser takes another value",
}
NEEDED = {  # for a setting to have an effect, or to be allowed another value
    "rho": ["sampler.grid=karras"],
    "churn_entropy": ["sampler.s_churn=0.5"],
    "ddim.top_p": ["sampler.projection=sample"],
    "max_noise_std": ["sampler.renoise=true"],
    "leap_threshold": ["sampler.threshold=0.9"],
    "stability": ["sampler.threshold=0.9"],
    "remask_fraction": ["sampler.refine_rounds=1"],
    "alpha": ["sampler.rule=loop"],
    "on": ["sampler.rule=loop"],
    "off": ["sampler.rule=loop"],
    "gaussian.schedule": ["objective.kind=gaussian_elbo", "time_density.kind=uniform"],
    "gaussian.sigma_scale": ["time_density.kind=uniform", "process.schedule=cosine"],
    "gaussian.s": ["time_density.kind=uniform", "process.schedule=cosine"],
    "embeddings.norm": ["codec.init_std=1"],
    "absorbing.time_input": ["process.schedule=log_linear", "denoiser.time=true", "backbone.modulation=adaln"],
    "mask_denoiser.time": ["backbone.modulation=adaln"],
    "transformer.norm_bias": ["backbone.norm_weight=true"],
    "lora_alpha": ["backbone.lora_rank=2"],
    "ngram_size": ["denoiser.ngram_dim=4", "denoiser.ngram_size=2"],
    "ngram_rows": ["denoiser.ngram_dim=4", "denoiser.ngram_size=2", "denoiser.ngram_rows=4"],
}


def _seen(value: Any, around: frozenset[int] = frozenset()) -> Any:
    """What an object is made of, down to numbers, names and bytes.

    Settings of modules are left out, as they hold every setting; parts without a module run as they are, so they count.
    """
    if isinstance(value, (str, int, float, bytes, type(None), torch.dtype, torch.device, type)):
        return value
    if (isinstance(value, Part) and type(value).module is not None) or isinstance(value, Config) or id(value) in around:
        return "..."
    inside = functools.partial(_seen, around=around | {id(value)})
    if isinstance(value, torch.Tensor):
        raw = value.detach().flatten().view(torch.uint8).numpy().tobytes()
        return value.requires_grad, value.dtype, value.shape, raw
    if isinstance(value, dict):
        return [(str(key), inside(v)) for key, v in value.items()]
    if isinstance(value, (list, tuple, set, frozenset)):
        return [inside(v) for v in value]
    if isinstance(value, functools.partial):
        return [inside(v) for v in (value.func, value.args, value.keywords)]
    if isinstance(value, types.MethodType):
        return value.__name__, inside(value.__self__)
    if isinstance(value, types.FunctionType):
        return value.__qualname__, [inside(cell.cell_contents) for cell in value.__closure__ or ()]
    return type(value).__name__, inside(getattr(value, "__dict__", {}))


def _built(config: Config) -> Any:
    torch.manual_seed(0)
    return _seen(model_of(config, VOCAB))


def _with(config: Config, path: list[str], value: Any) -> Config:
    """The configuration with another value, or another part, at a path."""
    data = inner = to_dict(config)
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to_dict(value)
    return from_dict(Config, data)


def _places(value: Any, path: list[str]) -> Iterator[tuple[list[str], Part, type]]:
    """Every part in a configuration: where it is, itself, and what else may stand there."""
    hints = typing.get_type_hints(type(value))
    for field in dataclasses.fields(value):
        part, where = getattr(value, field.name), [*path, field.name]
        if isinstance(part, Part):
            yield where, part, hints[field.name]
            yield from _places(part, where)


def _homes(kind: type[Part]) -> Iterator[tuple[Config, list[str]]]:
    """Small models with a part of that kind, and where it is: of recipes that have one, then of those that could."""
    every = [recipes.get(name)(variant) for name in reversed(recipes.names()) for variant in recipes.variants(name)]
    for config in every:
        for path, part, _ in _places(config, []):
            if type(part) is kind:
                yield config, path
    for config in every:
        for path, _, wanted in _places(config, []):
            if issubclass(kind, wanted):
                try:
                    yield _with(config, path, kind(**(TINY if issubclass(kind, BackboneConfig) else {}))), path
                except UserError:
                    continue
    for outer in KINDS.values():  # then a setting of a part that no recipe has
        for name, wanted in typing.get_type_hints(outer).items():
            if name in outer.__dataclass_fields__ and isinstance(wanted, type) and issubclass(kind, wanted):
                for config, path in _homes(outer):
                    yield _with(config, [*path, name], kind()), [*path, name]


def _home(kind: type[Part]) -> tuple[Config, list[str]]:
    for config, path in _homes(kind):
        try:
            small = dataclasses.replace(config, backbone=dataclasses.replace(config.backbone, **TINY))
            _built(small)
        except UserError:
            continue
        return small, path
    raise AssertionError(f"no recipe can have {kind.__name__}")


def _others(hint: Any, value: Any) -> list[Any]:
    """Other values that a setting may have."""
    match value:
        case bool():
            return [not value]
        case int():
            values = [value + 1, value + 2, 2 * value, value // 2]
        case float():
            values = [0.5 * value, 0.9 * value, value + 0.1]
        case dict():
            values = [value | {"intermediate_size": 8}]
        case str():
            values = list(typing.get_args(hint))
        case _:
            values = [(*value, 2)]
    return [other for other in values if other != value]


@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_changes_what_is_built(kind):
    home, path = _home(KINDS[kind])
    part = functools.reduce(getattr, path, home)
    hints = typing.get_type_hints(type(part))
    for name in (field.name for field in dataclasses.fields(part)):
        names = name, f"{kind}.{name}", ".".join([*path, name])
        if isinstance(getattr(part, name), Part) or any(key in NOT_BUILT for key in names):
            continue
        base = apply_overrides(home, [setting for key in names for setting in NEEDED.get(key, [])])
        now = getattr(functools.reduce(getattr, path, base), name)
        before, effects, refusals = _built(base), list[tuple[Any, bool]](), []
        for other in _others(hints[name], now):
            try:
                effects.append((other, _built(_with(base, [*path, name], other)) != before))
            except UserError as error:
                refusals.append(str(error))
        assert effects, refusals
        assert all(changed for _, changed in effects), (name, now, effects)
