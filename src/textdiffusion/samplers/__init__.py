"""Samplers, one file per algorithm: frozen dataclasses whose fields are the settings and whose call samples."""

from .ancestral import Ancestral, Euler, Tweedie
from .autoregressive import Autoregressive
from .base import Request, Sampler, Step
from .blocks import BlockAncestral, BlockUnmasking
from .correctors import Gibbs, PredictorCorrector
from .ddim import DDIM
from .dpm_solver import DPMSolver
from .first_hitting import FirstHitting
from .heun import Heun
from .projections import GreedyProjection, NoProjection, SampleProjection
from .remasking import Cap, Confidence, Loop, PathPlanning, ReMDM, Rescale
from .time_grids import Exponential, Karras, Learned, Tuned
from .unmasking import Unmasking
