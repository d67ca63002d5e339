"""Codecs, noise processes and their exact reverse steps, schedules, time densities and predictions."""

from .absorbing import Absorbing
from .alpha_schedules import CosineAlpha, Geometric, Linear, LogLinear
from .autoregressive import AutoregressiveOrder
from .binned_densities import LossSecondMoment, MinVariance, TimeWarp
from .blocks import BlockAbsorbing
from .codecs import Tokens
from .curve_densities import Cauchy, Gumbel
from .densities import Uniform
from .discrete_betas import DiscreteBetas
from .dual import DualAbsorbing
from .gaussian import Gaussian
from .model import DiffusionModel
from .sigma_schedules import CosineSigma, KarrasSigma, LearnedLogSigma, LinearBeta, LinearSigma, LogSigma, SqrtSigma
from .table_codecs import Bits, Embeddings, Simplex
from .uniform import UniformNoise
from .wave import Wave
