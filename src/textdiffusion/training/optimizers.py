"""What moves the weights: the optimizers, the learning-rate schedule, and the average of the weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..config.training import Training
from ..core.shards import full, part_like
from ..diffusion.model import DiffusionModel
from ..storage.weights import tensors_of
from .muon import Muon


class Optimizers:
    """The optimizers of a run as one: AdamW for all parameters, or for all but the blocks' matrices, which use Muon.

    The time density and the ends of a learned schedule have their own learning rate and are clipped separately: their
    loss is in other units, and their gradients must not scale those of the network. Embeddings may have a learning rate
    too. Weight decay applies to matrices only, not to embeddings, gains or biases.
    """

    def __init__(self, model: DiffusionModel, training: Training) -> None:
        self.training = training
        self.names: dict[Tensor, str] = {p: name for name, p in model.named_parameters() if p.requires_grad}
        self.density = [p for p in noise_parameters(model) if p.requires_grad]
        self.network = [p for p in model.parameters() if p.requires_grad and p not in set(self.density)]
        matrices = block_matrices(model) if training.optimizer == "muon" else {}
        rest = [p for p in self.network if p not in matrices]
        undecayed, codec = _undecayed(model), set(model.codec.parameters())
        decay, codec_lr = training.weight_decay, training.codec_lr or training.lr
        groups = [
            {"params": [p for p in rest if p not in undecayed], "lr": training.lr, "weight_decay": decay},
            {"params": [p for p in rest if p in undecayed - codec], "lr": training.lr, "weight_decay": 0.0},
            {"params": [p for p in rest if p in codec], "lr": codec_lr, "weight_decay": 0.0},
            {"params": self.density, "lr": training.density_lr, "weight_decay": 0.0},
        ]
        fused = next(iter(self.names)).device.type in ("cpu", "cuda", "mps")
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW([g for g in groups if g["params"]], betas=(0.9, training.beta2), fused=fused)
        ]
        if matrices:
            self.optimizers.append(Muon(list(matrices.items()), lr=training.muon_lr, weight_decay=decay))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["full_lr"] = group["lr"]

    def step(self, lr_scale: float) -> Tensor:
        """Clips and updates at `lr_scale` times the full learning rates; returns the network's norm before clipping."""
        norm = self._clip(self.network)
        if self.density:
            finite = self._clip(self.density).isfinite()
            for p in self.density:  # a failed fit is skipped: it would stay in AdamW's averages forever
                p.grad = None if p.grad is None else torch.where(finite, p.grad, 0.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["full_lr"] * lr_scale
            optimizer.step()
        self.zero_grad()
        return norm

    def zero_grad(self) -> None:
        """Deletes all gradients."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def _clip(self, parameters: list[nn.Parameter]) -> Tensor:
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self.training.grad_clip:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.training.grad_clip, norm)
        return full(norm)

    def tensors(self) -> dict[str, Tensor]:
        """The state of every parameter, by `parameter/name of the state`."""
        return {
            f"{self.names[parameter]}/{key}": value
            for optimizer in self.optimizers
            for parameter, states in optimizer.state.items()
            for key, value in states.items()
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restores what `tensors` returned."""
        by_name: dict[str, dict[str, Tensor]] = {}
        for path, value in tensors.items():
            name, _, key = path.rpartition("/")
            by_name.setdefault(name, {})[key] = value
        for optimizer in self.optimizers:
            state = optimizer.state_dict()
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            states = {i: _parts(by_name.get(self.names[p]), p) for i, p in enumerate(parameters)}
            state["state"] = {i: values for i, values in states.items() if values}
            optimizer.load_state_dict(state)


def lr_scale(training: Training, step: int, progress: float) -> float:
    """The fraction of the full learning rate at `step` (from 0), after `progress` (0 to 1) of the run.

    Under a time limit the total number of steps is extrapolated from the pace so far: the warm-up ends within a
    twentieth of the run however slow it is, and the decay begins where the warm-up ends.
    """
    steps = round(step / progress) if step else training.steps  # exactly training.steps if steps are the limit
    warmup = min(training.warmup, steps // 20)
    warm = min(1.0, (step + 1) / warmup) if warmup else 1.0
    remaining = min(1.0, max(0.0, 1.0 - progress) / (1.0 - warmup / steps))
    floor = training.min_lr_ratio
    match training.decay:
        case "constant":
            decayed = 1.0
        case "inverse_sqrt":
            decayed = math.sqrt((warmup or 1) / (step + 1))
        case "exponential":
            decayed = floor ** (1.0 - remaining)
        case "linear":
            decayed = floor + (1.0 - floor) * remaining
        case "cosine":
            decayed = floor + (1.0 - floor) * 0.5 * (1.0 - math.cos(math.pi * remaining))
    return min(warm, decayed)


def noise_parameters(model: DiffusionModel) -> list[nn.Parameter]:
    """The parameters of the time density and of a learned schedule."""
    return [*model.time_density.parameters(), *model.process.parameters()]


def block_matrices(model: DiffusionModel) -> dict[nn.Parameter, int]:
    """The matrices inside the blocks that map features to features, and how many stacked matrices each holds.

    Matrices that modulate by the noise level start at zero and must stay small, so Muon's full-sized updates would
    destabilise them.
    """
    return {
        parameter: 3 if name.endswith("qkv.weight") else 1
        for name, parameter in model.denoiser.backbone.blocks.named_parameters()
        if parameter.ndim == 2 and parameter.requires_grad and "modulate" not in name
    }


def _parts(states: dict[str, Tensor] | None, parameter: nn.Parameter) -> dict[str, Tensor]:
    return {key: part_like(value, parameter) if value.ndim else value for key, value in (states or {}).items()}


def _undecayed(model: DiffusionModel) -> set[nn.Parameter]:
    """All parameters but the weights of linear maps: a table of tokens is many small vectors, not a map."""
    decayed = {module.weight for module in model.modules() if isinstance(module, nn.Linear)}
    return set(model.parameters()) - decayed


class EMA:
    """An exponential moving average of a model's parameters and buffers, learned time densities included.

    `model` is a complete model, never compiled, ready to evaluate and sample from. With `decay` 0 it equals the source.
    """

    def __init__(self, model: DiffusionModel, decay: float) -> None:
        self.decay = decay
        frozen = {name: p for name, p in model.named_parameters() if not p.requires_grad}  # those are shared
        self.model = copy.deepcopy(model, {id(p): p for p in frozen.values()}).eval().requires_grad_(False)
        source = {name: tensor for name, tensor in named_tensors(model).items() if name not in frozen}
        self._follow(source, named_tensors(self.model))

    def _follow(self, source: dict[str, Tensor], target: dict[str, Tensor]) -> None:
        averaged = [name for name in source if source[name].is_floating_point()]
        self._source = [source[name] for name in averaged]
        self._target = [target[name] for name in averaged]
        self._copied = [(source[name], target[name]) for name in source if name not in averaged]

    def tensors(self) -> dict[str, Tensor]:
        """`tensors_of` the model with the averaged weights."""
        return tensors_of(self.model)

    @contextmanager
    def applied(self) -> Iterator[DiffusionModel]:
        """The model with the averaged weights."""
        yield self.model

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Call after step number `step` (from 0)."""
        torch._foreach_lerp_(self._target, self._source, 1.0 - decay_at(self.decay, step))
        for source, target in self._copied:
            target.copy_(source)


def decay_at(decay: float, step: int) -> float:
    """min(decay, (1 + n) / (10 + n)): with 0.9999 from the start, the untrained weights would count for too long."""
    return min(decay, (1 + step) / (10 + step))


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, also those that are not saved."""
    return {name: p.detach() for name, p in model.named_parameters()} | dict(model.named_buffers())
