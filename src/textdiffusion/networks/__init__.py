"""Networks: from a corrupted state to hidden features, with the parameterisation that makes them a denoiser."""

from .bert import BertConfig
from .block_denoiser import BlockDenoiserConfig
from .embedding_denoiser import EmbeddingDenoiserConfig
from .language_model import LanguageModelConfig
from .lm_denoiser import LMBlockDenoiserConfig, LMDenoiserConfig
from .next_token_denoiser import NextTokenDenoiserConfig
from .output_heads import BitLogits, X0Logits, X0Regression
from .score_denoiser import ScoreDenoiserConfig
from .simplex_denoiser import SimplexDenoiserConfig
from .token_denoiser import MaskDenoiserConfig, TokenDenoiserConfig
from .transformer import TransformerConfig
from .unet import UNetConfig
