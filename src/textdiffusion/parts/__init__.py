"""Settings of every part of a model, imported from one place."""

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
from .base import (
    CodecPart,
    DensityPart,
    GuidePart,
    LikelihoodPart,
    ObjectivePart,
    Part,
    ProcessPart,
    SamplerPart,
)
from .densities import Cauchy, Gumbel, LossSecondMoment, MinVariance, TimeWarp, Uniform
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

TrunkPart = BackboneConfig
ReadoutPart = OutputHeadConfig
DenoiserPart = DenoiserConfig

__all__ = [
    "DDIM",
    "Absorbing",
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
    "CodecPart",
    "DPMSolver",
    "DenoiserConfig",
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
    "ObjectivePart",
    "OutputHeadConfig",
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
