"""One training step: the same for every family of models."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ..config.build import build_model, check_model_memory
from ..config.config import Config
from ..core.batch import Batch
from ..core.devices import choose_dtype
from ..core.errors import UserError
from ..core.memory import check_memory
from ..core.randomness import Rng, seeded
from ..data.conditions import condition_dropout
from ..data.masks import sample_condition_mask
from ..data.prepare import Corpus
from ..diffusion.model import DiffusionModel
from ..diffusion.table_codecs import Embeddings
from ..networks.backbone import BackboneConfig
from ..networks.bert import load_pretrained_embeddings
from ..networks.language_model import without_storage
from ..objectives.base import Loss
from ..objectives.distillation import Distillation
from .distributed import SingleProcess
from .optimizers import EMA, Optimizers
from .sharding import Sharded, ShardedEMA

_BYTES_PER_PARAMETER = 16  # weights, gradient, average and at least one moment
_FEATURE_COPIES = 4  # of each block, kept for the backward pass
_BATCH_BYTES = 20  # of a token: two numbers and masks


def check_training_memory(config: Config, vocab_size: int, processes: int, *, shards: bool = False) -> None:
    """Raises UserError where the weights or the rows of a step do not fit into the free memory."""
    training, backbone = config.training, config.backbone
    has_adapter = getattr(backbone, "lora_rank", 0) > 0
    builds_only = has_adapter or shards
    check_model_memory(config, vocab_size, backbone.parameter_bytes if builds_only else _BYTES_PER_PARAMETER)
    check_memory(
        training.num_samples * config.text.length * 4 * (vocab_size + backbone.width),
        f"Writing {training.num_samples:,} samples",
        "lower training.num_samples",
    )
    check_memory(
        training.eval_windows * 16, f"A list of {training.eval_windows:,} windows", "lower training.eval_windows"
    )
    rows = training.batch_size / (processes * training.grad_accumulation)
    features = (
        4
        * backbone.width
        * _FEATURE_COPIES
        * (1 if getattr(backbone, "gradient_checkpointing", False) else backbone.depth)
    )
    check_memory(
        rows * config.text.length * (_BATCH_BYTES + features),
        f"A step of {training.batch_size:,} rows of {config.text.length:,} tokens",
        "lower training.batch_size or text.length, or raise training.grad_accumulation",
    )


class TrainingStep(nn.Module):
    """The forward pass of a training step as one module, so that DistributedDataParallel sees its start and end."""

    def __init__(self, model: DiffusionModel, objective: Callable[..., Loss]) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Batch, rng: Rng) -> Loss:
        return self.objective(self.model, batch, rng=rng)


class Trainer:
    """A model in training, the average of its weights and its optimizers."""

    def __init__(
        self,
        config: Config,
        corpus: Corpus,
        device: torch.device,
        world: SingleProcess,
        log: Callable[[str], None],
        load: Callable[[DiffusionModel], None] | None = None,
    ) -> None:
        """`load` loads weights to start from into the model (None: they are random)."""
        self.config, self.training, self.corpus = config, config.training, corpus
        self.device, self.world, self.log = device, world, log
        if self.training.batch_size % (world.size * self.training.grad_accumulation):
            raise UserError(
                f"training.batch_size {self.training.batch_size} is not a multiple of {world.size} processes "
                f"times grad_accumulation {self.training.grad_accumulation}."
            )
        check_training_memory(config, corpus.tokenizer.vocab_size, world.size, shards=world.shards)
        gets_weights = world.shards and world.rank > 0  # from the first rank
        with seeded(self.training.seed, device):
            with without_storage() if gets_weights else nullcontext():
                model = build_model(config, corpus.tokenizer.vocab_size, to_load=load is not None)
            if load is not None and not gets_weights:
                load(model)
        self.model = model
        if isinstance(world, Sharded):
            world.shard(model, device)
        else:
            self.model = model.to(device)
        self.objective: Callable[..., Loss] = config.objective
        self.teacher: DiffusionModel | None = None
        dtype, reason = choose_dtype(self.training.dtype, device)
        self.model.denoiser.backbone.compute_dtype = dtype
        size = sum(p.numel() for p in self.model.parameters())
        dtype_name = str(dtype).removeprefix("torch.")
        log(f"{config.recipe}: {size:,} parameters on {device}, computing in {dtype_name} ({reason}).")
        self.ema = (ShardedEMA if world.shards else EMA)(self.model, self.training.ema)
        self.optimizers = Optimizers(self.model, self.training)

    def load_pretrained(self) -> None:
        """Loads pretrained weights into a new run, for parts whose settings name any."""
        config, model = self.config, self.model
        if self.world.shards:
            self._check_nothing_pretrained()
            return
        if isinstance(config.codec, Embeddings) and config.codec.pretrained:
            self.log(load_pretrained_embeddings(model.codec, Path(config.codec.pretrained), self.corpus.tokenizer))
        if note := config.backbone.load_pretrained(model.denoiser.backbone):
            self.log(note)
        self.ema.model.load_state_dict(model.state_dict())

    def _check_nothing_pretrained(self) -> None:
        codec = self.config.codec
        has_embeddings = isinstance(codec, Embeddings) and codec.pretrained
        if has_embeddings or type(self.config.backbone).load_pretrained is not BackboneConfig.load_pretrained:
            raise UserError(
                "training.parallel=fsdp does not read pretrained weights of a part of the model; use "
                "training.parallel=ddp, or begin with --init from a run that has read them."
            )

    def learn_from(self, teacher: DiffusionModel) -> None:
        """Makes the model the student of a teacher of the same network. Only for a `Distillation`."""
        objective = self.config.objective
        assert isinstance(objective, Distillation)
        self.teacher, self.objective = teacher, partial(objective, teacher=teacher)

    def distribute(self) -> nn.Module:
        """The module that `step` runs; its backward pass averages the gradients over the ranks."""
        return self.world.wrap(TrainingStep(self.model, self.objective), self.device)

    def step(self, module: nn.Module, step: int, lr_scale: float) -> dict[str, Tensor]:
        """Training step number `step` (from 0) at `lr_scale` times the full learning rates.

        Returns scalars on the device: `loss` and its parts, means over this rank's rows, and `grad_norm`.
        """
        losses = self.forward_backward(module, step)
        self.world.average_gradients(self.optimizers.density)
        norm = self.optimizers.step(lr_scale)
        self.model.after_step()
        self.ema.update(step)
        return {**losses, "grad_norm": norm}

    def forward_backward(self, module: nn.Module, step: int) -> dict[str, Tensor]:
        """Gradients of the mean loss over this rank's rows; returns the loss and its parts."""
        training = self.training
        rank_size = training.batch_size // self.world.size
        size = rank_size // training.grad_accumulation
        sums: dict[str, Tensor] = {}
        for i in range(training.grad_accumulation):
            first_row = self.world.rank * rank_size + i * size
            rows = range(first_row, first_row + size)
            batch = self.corpus.train.batch(step, rows, batch_size=training.batch_size).to(self.device)
            assert batch.row_ids is not None
            rng = Rng.of(training.seed, batch.row_ids).fork("train").fork(step)
            batch = self._with_conditions(batch, rng)
            is_last = i == training.grad_accumulation - 1
            with (
                nullcontext() if is_last else self.world.no_sync(module),
                seeded(zlib.crc32(f"dropout {training.seed} {step} {first_row}".encode()), self.device),
            ):
                loss = module(batch, rng)
                (loss.total / training.grad_accumulation).backward()
            losses = {"loss": loss.total.detach(), **loss.parts}
            sums = {name: sums[name] + value for name, value in losses.items()} if sums else losses
        return {name: value / training.grad_accumulation for name, value in sums.items()}

    def _with_conditions(self, batch: Batch, rng: Rng) -> Batch:
        """The batch with the condition mask of `text.mask`, and conditions dropped from a fraction of the rows."""
        text = self.config.text
        if text.mask not in ("none", "question"):
            mask = sample_condition_mask(text.mask, batch.target_mask, rng.fork("given"), batch.segment_ids)
            batch = replace(batch, condition_mask=mask if batch.condition_mask is None else mask | batch.condition_mask)
        if text.condition_dropout:
            pad = self.corpus.tokenizer.pad_id
            assert pad is not None
            batch = condition_dropout(batch, text.condition_dropout, pad, rng.fork("drop"))
        return batch
