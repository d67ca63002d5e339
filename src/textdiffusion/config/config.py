"""The frozen configuration of a run, and its JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from ..core.errors import UserError
from ..core.registry import from_dict, to_dict
from ..data.config import TextConfig
from ..diffusion.codecs import CodecConfig
from ..diffusion.densities import TimeDensityConfig
from ..diffusion.process import ProcessConfig
from ..networks.backbone import BackboneConfig
from ..networks.denoiser import DenoiserConfig
from ..objectives.base import Likelihood, Objective
from ..samplers.base import Sampler
from .compatibility import check
from .discovery import import_parts
from .training import Training

SCHEMA = 2

VERSIONS = {1: "0.1"}
"""The version of textdiffusion that reads each earlier schema."""

import_parts()


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that defines a run. `recipe` and `variant` name it; no code branches on them."""

    recipe: str = ""
    variant: str = ""
    text: TextConfig
    codec: CodecConfig
    process: ProcessConfig
    time_density: TimeDensityConfig
    backbone: BackboneConfig
    denoiser: DenoiserConfig
    objective: Objective
    likelihood: Likelihood
    sampler: Sampler
    training: Training = field(default_factory=Training)
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        check(self)


def dumps(config: Config) -> str:
    """The JSON text of a configuration."""
    return json.dumps(to_dict(config), indent=2) + "\n"


def loads(text: str, where: str = "config.json") -> Config:
    """Reads the text that `dumps` writes.

    Raises UserError naming the key that does not fit, or the version of textdiffusion that reads another schema.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:  # numbers of 5,000 digits and brackets in brackets too
        raise UserError(f"{where} is not JSON: {error}.") from None
    schema = data.get("schema") if isinstance(data, dict) else None
    if isinstance(schema, int) and (version := VERSIONS.get(schema)):
        raise UserError(
            f"{where} was written by textdiffusion {version}; read it with that version: "
            f"pip install 'textdiffusion=={version}.*'."
        )
    if schema != SCHEMA:
        raise UserError(f"{where} has schema {schema!r}; this version of textdiffusion reads schema {SCHEMA}.")
    try:
        return from_dict(Config, data, where)
    except UserError as error:
        raise UserError(f"{error} If another version of textdiffusion wrote it, use that version.") from None
