"""The parts of a model in one place: frozen dataclasses whose fields are settings.

A part's class name is its `kind` on disk, so a new part is a new class and nothing else.
"""

from ..guidance.base import GuideConfig
from ..guidance.cfg import Cfg
from ..guidance.classifier import Classifier, Energy
from ..guidance.constraints import Regex, Without, Word
from ..guidance.replacement import Repaint
from ..samplers.ancestral import Ancestral, Euler, Tweedie
from ..samplers.autoregressive import Autoregressive
from ..samplers.base import Sampler
from ..samplers.blocks import BlockAncestral
from ..samplers.correctors import Gibbs, PredictorCorrector
from ..samplers.ddim import DDIM
from ..samplers.dpm_solver import DPMSolver
from ..samplers.first_hitting import FirstHitting
from ..samplers.gaussian import GaussianSampler
from ..samplers.heun import Heun
from ..samplers.remasking import PathPlanning, ReMDM
from ..samplers.unmasking import Unmasking
from .base import (
    CodecPart,
    DenoiserPart,
    DensityPart,
    LikelihoodPart,
    ObjectivePart,
    Part,
    ProcessPart,
    ReadoutPart,
    TrunkPart,
)
from .densities import Cauchy, Gumbel, LossSecondMoment, MinVariance, TimeWarp, Uniform
from .likelihoods import (
    DiscreteLikelihood,
    GaussianLikelihood,
    MaskedLikelihood,
    NextTokenLikelihood,
    ScoreEntropyLikelihood,
)
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
from .trunks import BertConfig, TransformerConfig, UNetConfig

SamplerPart = Sampler
GuidePart = GuideConfig

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
    "GaussianSampler",
    "Gibbs",
    "GuideConfig",
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
    "Part",
    "PathPlanning",
    "PredictorCorrector",
    "ProcessPart",
    "ReMDM",
    "ReadoutPart",
    "Regex",
    "Repaint",
    "Sampler",
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
