"""Tiny random language models in the layouts of published ones, written as their authors write them."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Engine
from torch import Tensor

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|mask|>"]
BYTES = 256
ROWS = 288  # more than the tokenizer has tokens
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "vocab_size": ROWS,
}
CAUSAL = SHAPE | {"num_key_value_heads": 2, "rms_norm_eps": 1e-6, "tie_word_embeddings": False}
LLADA = {
    "model_type": "llada",
    "architectures": ["LLaDAModelLM"],
    "auto_map": {"AutoModel": "modeling_llada.LLaDAModelLM"},
    "block_type": "llama",
    "d_model": 32,
    "n_layers": 2,
    "n_heads": 4,
    "n_kv_heads": 4,
    "mlp_hidden_size": 48,
    "embedding_size": ROWS,
    "vocab_size": ROWS,
    "max_sequence_length": 128,
    "rope_theta": 500000.0,
    "rms_norm_eps": 1e-5,
    "include_bias": False,
    "include_qkv_bias": False,
    "weight_tying": False,
    "mask_token_id": BYTES + 3,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "llada": LLADA,
    "dream": CAUSAL
    | {"model_type": "Dream", "mask_token_id": BYTES + 3, "auto_map": {"AutoModel": "modeling_dream.X"}},
    "sdar": CAUSAL | {"model_type": "sdar", "head_dim": 8, "block_size": 4},
    "fast_dllm_v2": CAUSAL | {"model_type": "Fast_dLLM_Qwen", "bd_size": 8, "tie_word_embeddings": True},
    "a2d_llama": CAUSAL | {"model_type": "a2d-llama", "architectures": ["A2DLlamaLMHeadModel"]},
    "a2d_qwen2": CAUSAL | {"model_type": "qwen2", "is_causal": False, "tie_word_embeddings": True},
    "a2d_qwen3": CAUSAL | {"model_type": "a2d-qwen3", "head_dim": 8},
    "bert": SHAPE | {"model_type": "bert"},
    "modernbert": SHAPE | {"model_type": "modernbert", "local_attention": 8, "global_attn_every_n_layers": 2},
    "causal": CAUSAL | {"model_type": "qwen3", "head_dim": 8},
}
PLAIN = {"llada": "llama", "dream": "qwen2", "sdar": "qwen3", "fast_dllm_v2": "qwen2", "causal": "qwen3"}
_BACK = {  # names of transformers as LLaDA's authors call them
    "model.embed_tokens.": "model.transformer.wte.",
    "model.norm.": "model.transformer.ln_f.",
    "lm_head.": "model.transformer.ff_out.",
    "model.layers.": "model.transformer.blocks.",
    "self_attn.o_proj.": "attn_out.",
    "self_attn.": "",
    "mlp.gate_proj.": "ff_proj.",
    "mlp.up_proj.": "up_proj.",
    "mlp.down_proj.": "ff_out.",
    "input_layernorm.": "attn_norm.",
    "post_attention_layernorm.": "ff_norm.",
}


def plain_network(name: str, dtype: torch.dtype = torch.float32) -> Any:
    """The network of a format as `transformers` alone builds it, with random weights."""
    config = CONFIGS[name]
    model_type = PLAIN.get(name, config["model_type"].replace("a2d-", ""))
    shape = {k: v for k, v in config.items() if k not in ("model_type", "auto_map", "architectures")}
    if name == "llada":
        shape = SHAPE | {"rope_theta": 500000.0, "rms_norm_eps": 1e-5, "tie_word_embeddings": False}
    parsed = transformers.AutoConfig.for_model(model_type, **_WITHOUT_SPECIALS, **shape)
    parsed.is_causal = False
    is_masked = model_type in ("bert", "modernbert")
    torch.manual_seed(0)
    network = (transformers.AutoModelForMaskedLM if is_masked else transformers.AutoModelForCausalLM).from_config(
        parsed
    )
    for module in network.modules():
        if hasattr(module, "is_causal"):
            module.is_causal = False
    for parameter in network.parameters():
        parameter.data.normal_(0.0, 0.2)
    return network.to(dtype).eval()


_WITHOUT_SPECIALS = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 0)


def write_model(folder: Path, name: str, dtype: torch.dtype = torch.float32, shards: int = 1) -> Any:
    """Writes weights, settings and tokenizer; returns the plain network."""
    folder.mkdir()
    network = plain_network(name, dtype)
    tensors = {n: t.detach().clone().contiguous() for n, t in network.named_parameters()}
    if name == "llada":
        tensors = {_back(n): t for n, t in tensors.items()}
    (folder / "config.json").write_text(json.dumps(_WITHOUT_SPECIALS | CONFIGS[name]))
    write_shards(folder, tensors, shards)
    write_tokenizer(folder)
    return network


def write_shards(folder: Path, tensors: dict[str, Tensor], shards: int) -> None:
    """One file, or several with their index."""
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return
    names = sorted(tensors)
    where = {n: f"model-{i % shards + 1:05d}-of-{shards:05d}.safetensors" for i, n in enumerate(names)}
    for file in set(where.values()):
        save_file({n: tensors[n] for n in names if where[n] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


def write_tokenizer(folder: Path) -> None:
    """The 256 bytes and special tokens, with a gap of one id before the last."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    engine = Engine(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    engine.pre_tokenizer, engine.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    engine.add_special_tokens([AddedToken(name, special=True) for name in SPECIALS])
    saved = json.loads(engine.to_str())
    last = dict(saved["added_tokens"][-1], id=BYTES + len(SPECIALS) + 1, content="<|extra|>")
    saved["added_tokens"].append(last)
    saved["model"]["vocab"] |= {token["content"]: token["id"] for token in saved["added_tokens"]}
    (folder / "tokenizer.json").write_text(json.dumps(saved))
    settings = {
        "eos_token": "<|endoftext|>",
        "pad_token": {"content": "<|endoftext|>"},
        "mask_token": "<|mask|>",
        "chat_template": "{% for message in messages %}<|im_start|>{{ message.content }}<|im_end|>{% endfor %}",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [BYTES + 2, BYTES]}))


def _back(name: str) -> str:
    for ours, theirs in _BACK.items():
        name = name.replace(ours, theirs)
    return name
