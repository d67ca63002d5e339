"""The settings of every part of a model, from one place."""

from ..diffusion.absorbing import Absorbing
from ..diffusion.alpha_schedules import AlphaSchedule, CosineAlpha, Geometric, Linear, LogLinear
from ..diffusion.autoregressive import AutoregressiveOrder
from ..diffusion.binned_densities import LossSecondMoment, MinVariance, TimeWarp
from ..diffusion.blocks import BlockAbsorbing
from ..diffusion.codecs import Bits, CodecConfig, Embeddings, Simplex, Tokens
from ..diffusion.curve_densities import Cauchy, Gumbel
from ..diffusion.densities import TimeDensityConfig, Uniform
from ..diffusion.discrete_betas import DiscreteBetas
from ..diffusion.gaussian import Gaussian
from ..diffusion.process import ProcessConfig
from ..diffusion.sigma_schedules import (
    CosineSigma,
    KarrasSigma,
    LearnedLogSigma,
    LinearBeta,
    LinearSigma,
    LogSigma,
    SigmaSchedule,
    SqrtSigma,
)
from ..diffusion.uniform import UniformNoise
from ..networks.backbone import BackboneConfig
from ..networks.bert import BertConfig
from ..networks.block_denoiser import BlockDenoiserConfig
from ..networks.denoiser import DenoiserConfig
from ..networks.embedding_denoiser import EmbeddingDenoiserConfig
from ..networks.output_heads import BitLogits, OutputHeadConfig, X0Logits, X0Regression
from ..networks.score_denoiser import ScoreDenoiserConfig
from ..networks.simplex_denoiser import SimplexDenoiserConfig
from ..networks.token_denoiser import MaskDenoiserConfig, NextTokenDenoiserConfig, TokenDenoiserConfig
from ..networks.transformer import TransformerConfig
from ..networks.unet import UNetConfig
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
    GuidePart,
    Part,
    SamplerPart,
)
from .gaussian_samplers import DDIM, DPMSolver, GaussianSteps, Heun
from .guides import Cfg, Classifier, Energy, Regex, Repaint, Without, Word
from .likelihoods import (
    DiscreteLikelihood,
    GaussianLikelihood,
    MaskedLikelihood,
    NextTokenLikelihood,
    ScoreEntropyLikelihood,
)
from .objectives import (
    DiffusionLM,
    DiscreteELBO,
    Duality,
    GaussianELBO,
    MaskedELBO,
    MSEWithCrossEntropy,
    NextToken,
    ScoreEntropy,
    ScoreInterpolation,
    SquaredError,
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
from .token_samplers import FirstHitting, Gibbs, PathPlanning, PredictorCorrector, ReMDM, Unmasking

TrunkPart = BackboneConfig
ReadoutPart = OutputHeadConfig
DenoiserPart = DenoiserConfig

CodecPart = CodecConfig
ProcessPart = ProcessConfig
DensityPart = TimeDensityConfig

ObjectivePart, LikelihoodPart = Objective, Likelihood  # their names before each part became one class

__all__ = [
    "DDIM",
    "Absorbing",
    "AlphaSchedule",
    "Ancestral",
    "Autoregressive",
    "AutoregressiveOrder",
    "BackboneConfig",
    "BertConfig",
    "BitLogits",
    "Bits",
    "BlockAbsorbing",
    "BlockAncestral",
    "BlockDenoiserConfig",
    "Cauchy",
    "Cfg",
    "Classifier",
    "CodecConfig",
    "CodecPart",
    "CosineAlpha",
    "CosineSigma",
    "DPMSolver",
    "DenoiserConfig",
    "DenoiserPart",
    "DensityPart",
    "DiffusionLM",
    "DiscreteBetas",
    "DiscreteELBO",
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
    "Geometric",
    "Gibbs",
    "GuidePart",
    "Gumbel",
    "Heun",
    "KarrasSigma",
    "LearnedLogSigma",
    "Likelihood",
    "LikelihoodPart",
    "Linear",
    "LinearBeta",
    "LinearSigma",
    "LogLinear",
    "LogSigma",
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
    "OutputHeadConfig",
    "Part",
    "PathPlanning",
    "PredictorCorrector",
    "ProcessConfig",
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
    "SigmaSchedule",
    "Simplex",
    "SimplexDenoiserConfig",
    "SqrtSigma",
    "SquaredError",
    "TimeDensityConfig",
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
