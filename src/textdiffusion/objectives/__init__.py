"""Training losses, and the likelihoods that belong to them."""

from .discrete import DiscreteELBO, DiscreteLikelihood, Duality
from .distillation import ConsistencyDistillation, SelfDistillation
from .dual import Dual
from .embedding_losses import DiffusionLM, MSEWithCrossEntropy, ScoreInterpolation, SquaredError
from .gaussian_elbo import GaussianELBO, GaussianLikelihood
from .masked import MaskedELBO, MaskedLikelihood
from .next_token import NextToken, NextTokenLikelihood
from .score_entropy import ScoreEntropy, ScoreEntropyLikelihood
from .wave import WaveELBO, WaveLikelihood
