"""A language model of the package `transformers` as the backbone, with attention in both directions."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..core.errors import UserError
from ..core.registry import builds, check_bounds
from ..core.types import AttentionMask, Hidden, NoiseTimes, PositionIds, Tokens
from .backbone import BackboneConfig, Modulation
from .kv_cache import KVCache
from .lora import MARK, add_adapter

ParameterDtype = Literal["float32", "bfloat16", "float16"]

SMALL = {
    "model_type": "qwen3",
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}
"""A small network, for runs that start from random weights."""

CAUSAL_TYPES = ("gpt2", "llama", "qwen2", "qwen3")
MASKED_TYPES = ("bert", "modernbert")

_WIDTHS = ("hidden_size", "n_embd")
_DEPTHS = ("num_hidden_layers", "n_layer")
_CONTEXTS = ("max_position_embeddings", "n_positions")
_LAYERS = ("layers", "h", "encoder.layer")  # where classes keep their layers
_IGNORED = ("auto_map", "dtype", "torch_dtype", "is_causal")  # never followed, or set by us
_ATTENTION = {"full_attention", "sliding_attention"}


@dataclass(frozen=True)
class LanguageModelConfig(BackboneConfig):
    """A causal or masked language model, built by `transformers` from the content of its config.json, `architecture`.

    Every position sees every other; denoisers pass masks where it should not. `width` and `depth` replace those
    of the architecture (0: they do not). `dtype` is that of the parameters: those of published weights stay as they are
    on disk. No code that comes with weights is ever run.
    """

    modulation: ClassVar[Modulation] = "none"

    width: int = 0
    depth: int = 0
    architecture: dict[str, Any] = field(default_factory=lambda: dict(SMALL))
    dtype: ParameterDtype = "float32"
    gradient_checkpointing: bool = False
    lora_rank: int = 0
    """Rank of an adapter, which is trained instead of the weights (0: none)."""
    lora_alpha: float = 0.0
    """The adapter's maps are scaled by alpha / rank (0: twice the rank)."""
    lora_targets: tuple[str, ...] = ()
    """Names of the linear maps to adapt, such as q_proj (none: all in the layers)."""

    def __post_init__(self) -> None:
        check_bounds(self, lora_rank=(0, None), lora_alpha=(0.0, None))
        if (self.lora_alpha or self.lora_targets) and not self.lora_rank:
            raise UserError("backbone.lora_alpha and backbone.lora_targets have no effect without backbone.lora_rank.")
        if (model_type := self.architecture.get("model_type")) not in (known := (*CAUSAL_TYPES, *MASKED_TYPES)):
            raise UserError(f"backbone.architecture.model_type is {model_type!r}; it can be {', '.join(known)}.")
        for name, names in (("width", _WIDTHS), ("depth", _DEPTHS)):
            key = next((each for each in names if each in self.architecture), names[0])
            size = getattr(self, name) or self.architecture.get(key)
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise UserError(f"backbone.architecture.{key} is {size!r}; it must be a whole number above 0.")
            object.__setattr__(self, name, size)
            object.__setattr__(self, "architecture", self.architecture | {key: size})

    def _first(self, names: tuple[str, ...]) -> Any:
        return next((self.architecture[name] for name in names if name in self.architecture), None)

    @property
    def context_length(self) -> int:
        context = self._first(_CONTEXTS)
        return context if isinstance(context, int) else 0

    @property
    def parameter_bytes(self) -> int:
        return getattr(torch, self.dtype).itemsize

    def resized(self, depth: int) -> LanguageModelConfig:
        types = self.architecture.get("layer_types")
        architecture = self.architecture | ({"layer_types": types[:depth]} if types else {})
        return replace(self, architecture=architecture, depth=depth)

    def building_to_load(self) -> AbstractContextManager[None]:
        return without_storage()


@builds(LanguageModelConfig)
class LanguageModel(nn.Module):
    """Features in, features out through the layers of a language model; its embedding and its head are beside them.

    `network` is the module of `transformers`, whose parameters have their usual names. With parameters in a shorter
    type than `compute_dtype`, features are computed in that type.
    """

    modulation: Modulation = "none"

    def __init__(self, config: LanguageModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.width, self._compute_dtype = config.width, torch.float32
        self.network, self.is_causal_type = _network(config, vocab_size)
        base = self.network.base_model
        self.num_rows: int = self.network.get_input_embeddings().num_embeddings
        if self.num_rows < vocab_size:
            raise UserError(f"The tokenizer has {vocab_size:,} tokens, but the network only {self.num_rows:,} rows.")
        self.window = _sliding_window(self.network.config, self.is_causal_type)
        self._head = _head(self.network)
        self._layers_path = next((path for path in _LAYERS if _has(base, path)), "")
        if not self._layers_path:
            raise _unsupported(self.network, "none of the names that its layers could have")
        self.adapter: Any = None
        """The settings of an adapter in the words of `peft` (None: there is none)."""
        if config.lora_rank:
            adapter = config.lora_rank, config.lora_alpha, config.lora_targets
            self.adapter = add_adapter(self.network, self.blocks, *adapter)
        if config.gradient_checkpointing:
            self.network.activation_checkpointing_enable({"use_reentrant": False})

    @property
    def blocks(self) -> nn.ModuleList:
        """The layers."""
        layers = self.network.base_model.get_submodule(self._layers_path)
        assert isinstance(layers, nn.ModuleList)
        return layers

    def referenced_parameters(self) -> list[nn.Parameter]:
        """Parameters that files of a run leave out, as they are in the files that it refers to."""
        return [p for name, p in self.network.named_parameters() if MARK not in name] if self.adapter else []

    @property
    def dtype(self) -> torch.dtype:
        """The type of the parameters."""
        return self.network.get_input_embeddings().weight.dtype

    @property
    def compute_dtype(self) -> torch.dtype:
        """The type of the features."""
        return self._compute_dtype if self.dtype == torch.float32 else self.dtype

    @compute_dtype.setter
    def compute_dtype(self, dtype: torch.dtype) -> None:
        self._compute_dtype = dtype

    def embed(self, rows: Tokens) -> Hidden:
        """The rows of the embedding."""
        return self.network.get_input_embeddings()(rows)

    def head(self, hidden: Float[Tensor, "n w"]) -> Float[Tensor, "n r"]:
        """Logits of all rows of the embedding."""
        with self._autocast(hidden):
            return self._head(hidden)

    def forward(
        self,
        x: Hidden,
        noise_level: NoiseTimes | None,
        positions: PositionIds,
        mask: AttentionMask | None,
        caches: list[KVCache] | None = None,
    ) -> Hidden:
        """The last features. `caches`, one for each layer, get the keys and values of `x` appended."""
        num_keys = x.shape[1] + (caches[0].length if caches else 0)
        if mask is None and (caches or self.window):
            mask = torch.ones(1, 1, x.shape[1], num_keys, dtype=torch.bool, device=x.device)
        settings: dict[str, Any] = {"inputs_embeds": x, "position_ids": positions.expand(len(x), -1)}
        settings["attention_mask"] = self._with_windows(mask, positions) if self.window else mask
        if self.is_causal_type:
            settings |= {"use_cache": caches is not None, "past_key_values": _Keys(caches) if caches else None}
        with self._autocast(x):
            return self.network.base_model(**settings)[0].to(self.compute_dtype)

    def _with_windows(self, mask: AttentionMask | None, positions: PositionIds) -> dict[str, Tensor]:
        assert mask is not None
        near = (positions[:, :, None] - positions[:, None, :]).abs() <= self.window
        return {"full_attention": mask, "sliding_attention": mask & near[:, None]}

    def _autocast(self, x: Tensor) -> AbstractContextManager[object]:
        if self.compute_dtype == self.dtype:
            return nullcontext()
        return torch.autocast(x.device.type, dtype=self.compute_dtype)


class _Keys:
    """Our caches as the layers of `transformers` see them."""

    def __init__(self, caches: list[KVCache]) -> None:
        self.caches = caches

    def update(
        self, k: Float[Tensor, "b h l e"], v: Float[Tensor, "b h l e"], layer: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        return self.caches[layer].append(k, v)

    def get_seq_length(self, layer: int = 0) -> int:
        return self.caches[layer].length


def _network(config: LanguageModelConfig, vocab_size: int) -> tuple[Any, bool]:
    """The module of `transformers` with attention in both directions, and whether it is a causal language model."""
    library = import_transformers()
    architecture = {"vocab_size": vocab_size + 1} | config.architecture
    settings = {name: value for name, value in architecture.items() if name not in _IGNORED}
    is_causal = settings["model_type"] in CAUSAL_TYPES
    auto = library.AutoModelForCausalLM if is_causal else library.AutoModelForMaskedLM
    try:
        parsed = library.AutoConfig.for_model(**settings)
        parsed.is_causal = False
        network = auto.from_config(parsed, dtype=getattr(torch, config.dtype), attn_implementation="sdpa")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"transformers {library.__version__} cannot build this network: {reason}") from None
    for module in network.modules():
        if hasattr(module, "is_causal"):
            module.is_causal = False
    if others := set(getattr(parsed, "layer_types", None) or ()) - _ATTENTION:
        raise _unsupported(network, f"layers of type {min(others)}")
    return network, is_causal


def _head(network: Any) -> Callable[[Tensor], Tensor]:
    """From last features to logits."""
    if hasattr(network, "lm_head"):
        return network.lm_head
    if hasattr(network, "cls"):
        return network.cls
    if hasattr(network, "decoder") and hasattr(network, "head"):
        return lambda hidden: network.decoder(network.head(hidden))
    raise _unsupported(network, "none of the heads lm_head, cls and decoder")


def _sliding_window(config: Any, is_causal: bool) -> int:
    """The distance up to which some layers see (0: every layer sees everything)."""
    if "sliding_attention" not in (getattr(config, "layer_types", None) or ()):
        return 0
    return int(config.sliding_window) - is_causal  # causal types count the position itself


def _has(module: nn.Module, path: str) -> bool:
    try:
        return isinstance(module.get_submodule(path), nn.ModuleList)
    except AttributeError:
        return False


def _unsupported(network: Any, what: str) -> UserError:
    version = import_transformers().__version__
    return UserError(f"{type(network).__name__} of transformers {version} has {what}, so it cannot be a backbone.")


def import_transformers() -> Any:
    """The package `transformers`. Raises UserError if it is not installed."""
    try:
        return importlib.import_module("transformers")
    except ImportError:
        raise UserError("A language model needs transformers: pip install 'textdiffusion[llm]'.") from None


class _WithoutStorage(TorchFunctionMode):
    """Replaces new tensors without values, which parameters start as, by ones on the meta device."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.empty and kwargs.get("device") is None:
            return func(*args, **kwargs | {"device": "meta"})
        if func is torch.Tensor.normal_ and args[0].is_meta:  # its version for the meta device is slow to import
            return args[0]
        return func(*args, **kwargs)


@contextmanager
def without_storage() -> Iterator[None]:
    """Inside, the large parameters of a network are made without memory; buffers have their values as usual."""
    with _WithoutStorage():
        yield


def previous_positions(
    hidden: Hidden, first: Bool[Tensor, "#b l"], before: Float[Tensor, "b 1 w"] | None = None
) -> Hidden:
    """The features one position to the left, or a position's own where it is the `first` of its row.

    `before` are those to the left of the first column.
    """
    left = torch.cat((hidden[:, :1] if before is None else before, hidden[:, :-1]), dim=1)
    return torch.where(first[..., None], hidden, left)


def row_positions(positions: PositionIds, valid_mask: Bool[Tensor, "b l"] | None) -> Int[Tensor, "#b l"]:
    """The number of every position in its row, where padding on the left does not count."""
    if valid_mask is None:
        return positions
    padding = (valid_mask.cumsum(-1) == 0).sum(-1, keepdim=True)
    return (positions - padding).clamp(min=0)
