"""Settings of every part of a model: frozen dataclasses that know how to build their part.

No torch here: `--help` and `config.json` read these. A part's class name is its `kind` on disk, so a new part is a new
class and nothing else.
"""

from .base import (
    CodecPart,
    DenoiserPart,
    DensityPart,
    GuidePart,
    LossPart,
    Part,
    ProcessPart,
    ReadoutPart,
    SamplerPart,
    TrunkPart,
)
from .densities import Cauchy, Gumbel, LossAware, PiecewiseLinear, Steady, Uniform
from .gaussian_samplers import DpmSolver, Heun, OneStep
from .guides import Cfg, Classifier, Energy, Regex, Repaint, Without, Word
from .losses import (
    AnchoredSquares,
    ChainBound,
    ChainLikelihood,
    DiffusionLM,
    Duality,
    GaussianLikelihood,
    MaskedBound,
    MaskedLikelihood,
    NextToken,
    NextTokenLikelihood,
    PlaidBound,
    ScoreEntropy,
    ScoreEntropyLikelihood,
    ScoreInterpolation,
    SquaredError,
)
from .networks import (
    BlockTokens,
    Logistic,
    MaskedTokens,
    NextTokens,
    NoisyStates,
    NoisyTokens,
    Regression,
    Softmax,
    SoftTokens,
    TokenRatios,
)
from .samplers import Analytic, Ancestral, BlockAncestral, Euler, LeftToRight
from .states import (
    Absorbing,
    AbsorbingBlocks,
    Bits,
    DiscreteGaussian,
    Embeddings,
    Gaussian,
    LeftToRightOrder,
    Simplex,
    Tokens,
    UniformNoise,
)
from .token_samplers import FirstHitting, Gibbs, Ordered, Planned, PredictorCorrector, Remasking
from .trunks import Encoder, Trunk, UNet
