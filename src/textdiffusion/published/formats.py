"""Published language models that denoise masks: what each format needs beside its weights, one entry a format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..core.errors import UserError
from ..samplers.base import Sampler
from ..samplers.blocks import BlockUnmasking
from ..samplers.unmasking import Unmasking
from .settings import PublishedSettings

CHAT_ENDS = ("<|im_end|>", "<|eot_id|>", "<|endoftext|>", "<|end_of_text|>", "</s>")
"""Tokens that end an answer in the usual chat templates."""

Architecture = dict[str, Any]


@dataclass(frozen=True)
class Format:
    """The facts of a format. `types` are the values of model_type that mean it.

    `mask_id` is the mask's where neither config.json nor the tokenizer says it. With `shift`, logits of a position are
    those of the next. `block_size` is that of block-causal attention (0: full); config.json may say another one, under
    one of the names `block_keys`. `length` is the number of tokens that its authors let it write. `renamed` and
    `ignored` are those of `storage.weight_files.WeightFiles`.
    """

    name: str
    types: tuple[str, ...]
    base: str = ""
    """The model_type of `transformers` with the same network (empty: its own)."""
    mask_id: int | None = None
    shift: bool = False
    block_size: int = 0
    block_keys: tuple[str, ...] = ("block_size", "bd_size")
    sampler: Sampler = field(default_factory=Unmasking)
    length: int = 256
    renamed: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    architecture: Callable[[PublishedSettings], Architecture] | None = None
    """The settings of the network in the words of `transformers` (None: those of config.json are)."""
    untrained: bool = False
    """It is a causal model, which has to learn to denoise."""

    def network(self, settings: PublishedSettings) -> Architecture:
        """The settings that `transformers` builds the network from."""
        own = self.architecture(settings) if self.architecture else dict(settings.data)
        return own | ({"model_type": self.base} if self.base else {})

    def block(self, settings: PublishedSettings) -> int:
        """Tokens in a block; 0 for full attention."""
        known = [settings.data[key] for key in self.block_keys if isinstance(settings.data.get(key), int)]
        return known[0] if known else self.block_size


def _llada(settings: PublishedSettings) -> Architecture:
    number = lambda *names, **options: settings.get(int, *names, **options)  # noqa: E731
    heads, width = number("n_heads"), number("d_model")
    if settings.data.get("block_type", "llama") != "llama":
        raise UserError(f"{settings.path}: block_type is {settings.data['block_type']!r}; it must be 'llama'.")
    return {
        "model_type": "llama",
        "hidden_size": width,
        "num_hidden_layers": number("n_layers"),
        "num_attention_heads": heads,
        "num_key_value_heads": number("n_kv_heads", default=heads),
        "intermediate_size": number("mlp_hidden_size", default=width * number("mlp_ratio", default=4)),
        "vocab_size": number("embedding_size", "vocab_size"),
        "max_position_embeddings": number("max_sequence_length"),
        "rope_theta": settings.get(float, "rope_theta", default=10000.0),
        "rms_norm_eps": settings.get(float, "rms_norm_eps", default=1e-5),
        "attention_bias": bool(settings.data.get("include_qkv_bias", False)),
        "tie_word_embeddings": bool(settings.data.get("weight_tying", False)),
    }


_LLADA_NAMES = {
    "model.transformer.wte.": "model.embed_tokens.",
    "model.transformer.ln_f.": "model.norm.",
    "model.transformer.ff_out.": "lm_head.",
    "model.transformer.blocks.": "model.layers.",
    ".q_proj.": ".self_attn.q_proj.",
    ".k_proj.": ".self_attn.k_proj.",
    ".v_proj.": ".self_attn.v_proj.",
    ".attn_out.": ".self_attn.o_proj.",
    ".ff_proj.": ".mlp.gate_proj.",
    ".up_proj.": ".mlp.up_proj.",
    ".ff_out.": ".mlp.down_proj.",
    ".attn_norm.": ".input_layernorm.",
    ".ff_norm.": ".post_attention_layernorm.",
}
_BERT_NAMES = {".gamma": ".weight", ".beta": ".bias"}  # of layer norms, as the oldest files have them

_CONFIDENT = Unmasking(order="confidence", block_size=32, spaced=False, temperature=0.0)

FORMATS = (
    Format(
        "llada",
        ("llada", "illada", "LLaDA"),
        mask_id=126336,
        sampler=_CONFIDENT,
        length=128,
        renamed=_LLADA_NAMES,
        architecture=_llada,
    ),
    Format(
        "dream",  # and DiffuCoder
        ("Dream", "dream"),
        "qwen2",
        mask_id=151666,
        shift=True,
        sampler=Unmasking(order="entropy", spaced=False, temperature=0.2, top_p=0.95),
        length=512,
    ),
    Format(
        "sdar",  # and TraDo
        ("sdar", "SDAR"),
        "qwen3",
        mask_id=151669,
        block_size=4,
        sampler=BlockUnmasking(order="confidence", threshold=0.9, spaced=False),
    ),
    Format(
        "fast_dllm_v2",
        ("Fast_dLLM_Qwen", "fast_dllm_qwen"),
        "qwen2",
        mask_id=151665,
        shift=True,
        block_size=32,
        sampler=BlockUnmasking(order="confidence", threshold=0.9, block_size=8, spaced=False, temperature=0.0),
    ),
    *(
        Format(f"a2d_{base}", (f"a2d-{base}", f"a2d_{base}"), base, sampler=_CONFIDENT)
        for base in ("llama", "qwen2", "qwen3")
    ),
    *(
        Format(name, (name,), sampler=Unmasking(order="confidence", temperature=0.0), length=128, renamed=renamed)
        for name, renamed in (("bert", _BERT_NAMES), ("modernbert", {}))
    ),
)

CAUSAL = ("gpt2", "llama", "qwen2", "qwen3")

REFUSED = {
    "llada2_moe": "LLaDA2's mixture of experts has no class in transformers, only code that comes with its weights",
    "LLaDA2MoE": "LLaDA2's mixture of experts has no class in transformers, only code that comes with its weights",
    "llada_moe": "LLaDA-MoE has no class in transformers, only code that comes with its weights",
    "diffusion_gemma": "DiffusionGemma's canvas after a causal prefix has no denoiser here",
}


def find_format(settings: PublishedSettings, block_size: int | None) -> Format | None:
    """The format of a config.json; None if it is none of a language model's.

    `block_size`, if given, is that of the attention, 0 for full. Raises UserError for formats that cannot be read.
    """
    model_type = settings.data.get("model_type")
    if not isinstance(model_type, str):
        return None
    if reason := REFUSED.get(model_type):
        raise UserError(f"{settings.path} is of type {model_type!r}: {reason}, which is never run.")
    found = next((each for each in FORMATS if model_type in each.types), None)
    if found is None and model_type in CAUSAL:
        is_a2d = "A2D" in str(settings.data.get("architectures"))
        is_causal = settings.data.get("is_causal") is not False and not is_a2d
        found = Format(
            "causal" if is_causal else f"a2d_{model_type}",
            (model_type,),
            sampler=_CONFIDENT,
            shift=is_causal,
            untrained=is_causal,
        )
    if found is None:
        return None
    size = found.block(settings) if block_size is None else block_size
    sampler = found.sampler
    if size and not isinstance(sampler, BlockUnmasking):
        sampler = BlockUnmasking(order="confidence", spaced=False, temperature=sampler.temperature)
    if not size and isinstance(sampler, BlockUnmasking):
        sampler = _CONFIDENT
    return replace(found, block_size=size, sampler=sampler, block_keys=())
