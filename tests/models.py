"""Models of configurations, for tests."""

from typing import Any

from textdiffusion.config.build import build_model
from textdiffusion.config.config import Config


def model_of(config: Config, vocab_size: int) -> Any:
    """The model, with the objective, likelihood and sampler of its configuration as attributes."""
    model: Any = build_model(config, vocab_size)
    model.objective, model.likelihood = config.objective, config.likelihood
    model.sampler = config.sampler
    return model
