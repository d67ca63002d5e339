"""Settings of every part of a model: frozen dataclasses that know how to build their part.

A part's class name is its `kind` on disk, so a new part is a new class and nothing else.
"""

from ..objectives.base import Likelihood, Objective
from ..objectives.discrete import DiscreteELBO, DiscreteLikelihood, Duality
from ..objectives.embedding_losses import DiffusionLM, MSEWithCrossEntropy, ScoreInterpolation, SquaredError
from ..objectives.gaussian_elbo import GaussianELBO, GaussianLikelihood
from ..objectives.masked import MaskedELBO, MaskedLikelihood
from ..objectives.next_token import NextToken, NextTokenLikelihood
from ..objectives.score_entropy import ScoreEntropy, ScoreEntropyLikelihood
from .base import (
    CodecPart,
    DenoiserPart,
    DensityPart,
    GuidePart,
    Part,
    ProcessPart,
    ReadoutPart,
    SamplerPart,
    TrunkPart,
)
from .densities import Cauchy, Gumbel, LossSecondMoment, MinVariance, TimeWarp, Uniform
from .gaussian_samplers import DDIM, DPMSolver, GaussianSteps, Heun
from .guides import Cfg, Classifier, Energy, Regex, Repaint, Without, Word
from .networks import (
    BitLogits,
    BlockDenoiserConfig,
    EmbeddingDenoiserConfig,
    MaskDenoiserConfig,
    NextTokenDenoiserConfig,
    ScoreDenoiserConfig,
    SimplexDenoiserConfig,
    TokenDenoiserConfig,
    X0Logits,
    X0Regression,
)
from .samplers import Ancestral, Autoregressive, BlockAncestral, Euler, Tweedie
from .states import (
    Absorbing,
    AutoregressiveOrder,
    Bits,
    BlockAbsorbing,
    DiscreteGaussian,
    Embeddings,
    Gaussian,
    Simplex,
    Tokens,
    UniformNoise,
)
from .token_samplers import FirstHitting, Gibbs, PathPlanning, PredictorCorrector, ReMDM, Unmasking
from .trunks import BertConfig, TransformerConfig, UNetConfig

ObjectivePart, LikelihoodPart = Objective, Likelihood  # their names before each part became one class

__all__ = [
    "DDIM",
    "Absorbing",
    "Ancestral",
    "Autoregressive",
    "AutoregressiveOrder",
    "BertConfig",
    "BitLogits",
    "Bits",
    "BlockAbsorbing",
    "BlockAncestral",
    "BlockDenoiserConfig",
    "Cauchy",
    "Cfg",
    "Classifier",
    "CodecPart",
    "DPMSolver",
    "DenoiserPart",
    "DensityPart",
    "DiffusionLM",
    "DiscreteELBO",
    "DiscreteGaussian",
    "DiscreteLikelihood",
    "Duality",
    "EmbeddingDenoiserConfig",
    "Embeddings",
    "Energy",
    "Euler",
    "FirstHitting",
    "Gaussian",
    "GaussianELBO",
    "GaussianLikelihood",
    "GaussianSteps",
    "Gibbs",
    "GuidePart",
    "Gumbel",
    "Heun",
    "Likelihood",
    "LikelihoodPart",
    "LossSecondMoment",
    "MSEWithCrossEntropy",
    "MaskDenoiserConfig",
    "MaskedELBO",
    "MaskedLikelihood",
    "MinVariance",
    "NextToken",
    "NextTokenDenoiserConfig",
    "NextTokenLikelihood",
    "Objective",
    "ObjectivePart",
    "Part",
    "PathPlanning",
    "PredictorCorrector",
    "ProcessPart",
    "ReMDM",
    "ReadoutPart",
    "Regex",
    "Repaint",
    "SamplerPart",
    "ScoreDenoiserConfig",
    "ScoreEntropy",
    "ScoreEntropyLikelihood",
    "ScoreInterpolation",
    "Simplex",
    "SimplexDenoiserConfig",
    "SquaredError",
    "TimeWarp",
    "TokenDenoiserConfig",
    "Tokens",
    "TransformerConfig",
    "TrunkPart",
    "Tweedie",
    "UNetConfig",
    "Uniform",
    "UniformNoise",
    "Unmasking",
    "Without",
    "Word",
    "X0Logits",
    "X0Regression",
]
