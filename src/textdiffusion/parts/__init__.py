"""Settings of every part of a model: frozen dataclasses that know how to build their part.

No torch here: `--help` and `config.json` read these. A part's class name is its `kind` on disk, so a new part is a new
class and nothing else.
"""

from .base import (
    CodecPart,
    DenoiserPart,
    DensityPart,
    LossPart,
    Part,
    ProcessPart,
    ReadoutPart,
    SamplerPart,
    TrunkPart,
)
from .losses import (
    AnchoredSquares,
    GaussianLikelihood,
    MaskedBound,
    MaskedLikelihood,
    NextToken,
    NextTokenLikelihood,
    ScoreEntropy,
    ScoreEntropyLikelihood,
    ScoreInterpolation,
    SquaredError,
)
from .networks import BlockTokens, MaskedTokens, NextTokens, NoisyStates, Regression, Softmax, TokenRatios, Trunk
from .samplers import Analytic, Ancestral, BlockAncestral, Euler, LeftToRight, OneStep
from .states import (
    Absorbing,
    AbsorbingBlocks,
    Embeddings,
    Gaussian,
    Gumbel,
    LeftToRightOrder,
    PiecewiseLinear,
    Tokens,
    Uniform,
    UniformNoise,
)

__all__ = [
    "Absorbing",
    "AbsorbingBlocks",
    "Analytic",
    "Ancestral",
    "AnchoredSquares",
    "BlockAncestral",
    "BlockTokens",
    "CodecPart",
    "DenoiserPart",
    "DensityPart",
    "Embeddings",
    "Euler",
    "Gaussian",
    "GaussianLikelihood",
    "Gumbel",
    "LeftToRight",
    "LeftToRightOrder",
    "LossPart",
    "MaskedBound",
    "MaskedLikelihood",
    "MaskedTokens",
    "NextToken",
    "NextTokenLikelihood",
    "NextTokens",
    "NoisyStates",
    "OneStep",
    "Part",
    "PiecewiseLinear",
    "ProcessPart",
    "ReadoutPart",
    "Regression",
    "SamplerPart",
    "ScoreEntropy",
    "ScoreEntropyLikelihood",
    "ScoreInterpolation",
    "Softmax",
    "SquaredError",
    "TokenRatios",
    "Tokens",
    "Trunk",
    "TrunkPart",
    "Uniform",
    "UniformNoise",
]
