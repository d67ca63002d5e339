"""Starting a run from the weights of another one."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config.config import Config, loads
from ..config.identity import check_identity, differences
from ..core.errors import UserError
from ..core.hashing import json_hash
from ..core.reading import read_object, read_text
from ..core.registry import to_dict
from ..data.chat import load_chat_template
from ..data.config import TextConfig
from ..diffusion.model import DiffusionModel
from ..networks.language_model import LanguageModelConfig
from ..networks.lm_denoiser import LMVocabularyConfig
from ..networks.lora import reset_adapter
from ..objectives.distillation import Distillation
from ..storage import weight_files
from ..storage.weight_files import WeightFiles, record_files
from ..storage.weights import NETWORK as NETWORK_PREFIX
from ..storage.weights import check_fits, load_weights, read_header, tensors_of
from .trainer import Trainer

NETWORK = ("codec", "backbone", "denoiser")
"""The settings that `with_network_of` takes from another run."""
OF_TRAINING = ("dtype", "gradient_checkpointing", "lora_rank", "lora_alpha", "lora_targets")
"""Settings of a language model that it does not take from there; with an adapter, weights keep their type."""
SHAPES = (*NETWORK, "process", "time_density")
"""The settings that decide the shapes of weights, apart from the length of the text."""

TABLES = ("denoiser.embedding.tables.", "denoiser.embedding.out.")
"""The beginnings of the names of n-gram tables and of what follows them."""


def with_network_of(config: Config, run: Path) -> Config:
    """The configuration with the network of another run. Raises UserError where it does not fit the other parts.

    Of a language model's denoiser it takes the ids; whether there are blocks, and a shift, is for the recipe to say.
    """
    other = config_of(run)
    network = {name: getattr(other, name) for name in NETWORK}
    if isinstance(config.denoiser, LMVocabularyConfig) and isinstance(other.denoiser, LMVocabularyConfig):
        network["denoiser"] = replace(config.denoiser, mask_id=other.denoiser.mask_id, unused=other.denoiser.unused)
    if isinstance(config.backbone, LanguageModelConfig) and isinstance(other.backbone, LanguageModelConfig):
        own = {name: getattr(config.backbone, name) for name in OF_TRAINING}
        own |= {"dtype": other.backbone.dtype} if config.backbone.lora_rank else {}
        network["backbone"] = replace(other.backbone, **own)
    return replace(config, **network)


def is_language_model(config: Config) -> bool:
    """Whether the network is a language model, whose size only its weights decide."""
    return isinstance(config.backbone, LanguageModelConfig)


def references(config: Config) -> bool:
    """Whether a run trains an adapter alone, beside a reference to the weights that it adapts."""
    return isinstance(config.backbone, LanguageModelConfig) and config.backbone.lora_rank > 0


def weight_files_of(run: Path) -> WeightFiles:
    """The weights of a run's language model, as another run refers to them. Raises UserError if it has an adapter."""
    if getattr(config_of(run).backbone, "lora_rank", 0):
        raise UserError(f"{run} has an adapter; merge it into its weights: textdiffusion convert {run} --out NEW")
    if (run / weight_files.FILE).is_file():
        files = WeightFiles.read(run)
        check_identity(files.identity, config_of(run), _tokenizer_hash(run), run / weight_files.FILE)
        return files.absolute(run)
    names = read_header(run / weight_files.SINGLE).tensors
    others = tuple(name for name in names if not name.startswith(NETWORK_PREFIX))
    return WeightFiles(str(run.resolve()), record_files(run), ignored=others)


def load_files(model: DiffusionModel, files: WeightFiles) -> None:
    """Loads the weights that an adapter changes, and draws the adapter's."""
    files.load(model, files.paths())
    reset_adapter(model.denoiser.backbone.network)


def load_initial(model: DiffusionModel, config: Config, run: Path, log: Callable[[str], object]) -> None:
    """Loads the weights of another run into a new model of `config`, which counts its steps from 0.

    N-gram tables start anew where the other denoiser is of another kind, whose tables read other groups of tokens.
    Raises UserError if the other run's files do not belong together; where its weights do not fit, with the settings
    that differ and how to take them over.
    """
    if references(config) or (run / weight_files.FILE).is_file():
        load_files(model, weight_files_of(run))
        return
    other, tokenizer_hash = config_of(run), _tokenizer_hash(run)
    path = run / "model.safetensors"
    header = read_header(path)
    check_identity(header.identity, other, tokenizer_hash, path)
    exclude: tuple[str, ...] = ("step",)
    if type(other.denoiser) is not type(config.denoiser):
        exclude += TABLES
        if any(name.startswith(TABLES) for name in tensors_of(model)):
            log(f"The n-gram tables start anew: those of {other.denoiser.kind} read other groups of tokens.")
    try:
        check_fits(model, header, exclude=exclude)
    except UserError as error:
        changes = [change for change in differences(_shapes(other), _shapes(config)) if change[1] is not None]
        if not changes:
            raise
        differing = "; ".join(f"{key} is {old!r} there and {new!r} here" for key, old, new in changes[:8])
        settings = " ".join(f"{key}={_as_text(old)}" for key, old, _ in changes[:8])
        raise UserError(
            f"{error} The network of {run} is another: {differing}. Take it with --init-network, or with "
            f"--set {settings}"
        ) from None
    load_weights(model, path, exclude=exclude)


def _tokenizer_hash(run: Path) -> str:
    return json_hash(read_object(run / "tokenizer.json"))


def _own_template(run: Path) -> str:
    """The folder of the run, if it has a chat template."""
    return "" if load_chat_template(run) is None else str(run)


def keep_teacher(trainer: Trainer, saved: Path | None) -> None:
    """Gives the student of a distillation its teacher: the weights that `saved` has, or those it starts with (None).

    Raises UserError where each process has only a part of the model.
    """
    if not isinstance(trainer.config.objective, Distillation):
        return
    if trainer.world.shards:
        raise UserError("A distillation needs the whole model in every process; use training.parallel=ddp.")
    teacher = copy.deepcopy(trainer.ema.model)
    if saved is not None:
        load_weights(teacher, saved)
    trainer.learn_from(teacher)


def config_of(run: Path) -> Config:
    """The configuration in a run's folder."""
    path = run / "config.json"
    return loads(read_text(path), str(path))


def _shapes(config: Config) -> dict[str, Any]:
    data = to_dict(config)
    return {name: data[name] for name in SHAPES} | {"text": {"length": config.text.length}}


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def with_text_of(text: TextConfig, start: Path) -> TextConfig:
    """The settings with what they leave open as in the run in the folder `start`.

    That is what is chosen from the text (`auto`, a length of 0), and the template of conversations.
    """
    if text.is_chat and not text.chat_template:
        text = replace(text, chat_template=config_of(start).text.chat_template or _own_template(start))
    if "auto" not in (text.tokenizer, text.layout) and text.length:
        return text
    other = config_of(start).text
    names = [name for name, undecided in (("layout", "auto"), ("length", 0)) if getattr(text, name) == undecided]
    if text.tokenizer == "auto":
        names += ["tokenizer", "tokenizer_path", "vocab_size"]
    if "layout" in names:
        names.append("model_padding")
    return replace(text, **{name: getattr(other, name) for name in names})
