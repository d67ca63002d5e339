"""The configuration of a run, how a model is built from it, and which parts fit together."""

from .config import Config, TextConfig
from .training import Training
