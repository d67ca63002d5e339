"""Networks, texts and training settings that several recipes share."""

from ..config import TextConfig, Training
from ..networks import TransformerConfig

SMALL = TransformerConfig(width=128, depth=4, conv_radius=4)
"""The default network, for models that need no noise level: about 0.8 million parameters."""

SMALL_WITH_TIME = TransformerConfig(width=128, depth=4, conv_radius=4, modulation="adaln", cond_dim=32)
"""The same with the noise level as an input."""

PUBLISHED_BACKBONE = TransformerConfig(
    width=768,
    depth=12,
    modulation="adaln",
    cond_dim=128,
    activation="gelu",
    qk_norm=False,
    absolute_positions=False,
    bias=True,
    norm_weight=True,
    dropout=0.1,
)
"""The small diffusion transformer of SEDD (Lou et al. 2023) and of the papers after it."""

GELU_BACKBONE = TransformerConfig(
    modulation="film", activation="gelu", qk_norm=False, absolute_positions=False, bias=True
)
"""The transformer of most other papers, with their width and depth to be set."""

PUBLISHED_TRAINING = Training(
    steps=1_000_000, batch_size=512, lr=3e-4, warmup=2500, decay="constant", optimizer="adamw", beta2=0.999, ema=0.9999
)
"""How these papers train it."""

AUTO_TEXT = TextConfig(tokenizer="auto", layout="auto", length=0)
"""Any text: tokenizer, layout and length are chosen from it."""

OPENWEBTEXT = TextConfig(data="hf:openwebtext", field="text", tokenizer="file", tokenizer_path="gpt2", length=1024)
"""OpenWebText in GPT-2's tokens: a folder `gpt2` must hold vocab.json and merges.txt, or tokenizer.json."""
