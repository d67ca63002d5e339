"""Which parameter is updated by what, and how fast."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..config.config import Training
from ..diffusion.model import DiffusionModel
from .muon import Muon

PARTS_OF_QKV = 3


class Optimizers:
    """The optimizers of a run as one: AdamW for everything, or for all but the blocks' matrices, which are Muon's.

    The noise density, with the ends of a learned schedule, has a learning rate of its own and is clipped by itself: its
    loss is in other units, and its gradients must not scale those of the network. Embeddings may have a rate too.
    Weight decay touches matrices only, no embeddings, gains or biases.
    """

    def __init__(self, model: DiffusionModel, training: Training) -> None:
        self.training = training
        self.names: dict[Tensor, str] = {p: name for name, p in model.named_parameters() if p.requires_grad}
        noise = (*model.time_density.parameters(), *model.process.parameters())
        density = [p for p in noise if p.requires_grad]
        self.network = [p for p in model.parameters() if p.requires_grad and p not in set(density)]
        self.density = density
        matrices = _block_matrices(model) if training.optimizer == "muon" else {}
        rest = [p for p in self.network if p not in matrices]
        plain, codec = _undecayed(model), set(model.codec.parameters())
        groups = [
            {"params": [p for p in rest if p not in plain], "lr": training.lr, "weight_decay": training.weight_decay},
            {"params": [p for p in rest if p in plain - codec], "lr": training.lr, "weight_decay": 0.0},
            {"params": [p for p in rest if p in codec], "lr": training.codec_lr or training.lr, "weight_decay": 0.0},
            {"params": density, "lr": training.density_lr, "weight_decay": 0.0},
        ]
        fused = next(iter(self.names)).device.type in ("cpu", "cuda", "mps")
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW([g for g in groups if g["params"]], betas=(0.9, training.beta2), fused=fused)
        ]
        if matrices:
            decay = training.weight_decay
            self.optimizers.append(Muon(list(matrices.items()), lr=training.muon_lr, weight_decay=decay))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["full_lr"] = group["lr"]

    def step(self, factor: float) -> Tensor:
        """Clips and updates at `factor` times the full learning rates; the network's gradient norm before clipping."""
        norm = self._clip(self.network)
        if self.density:
            usable = self._clip(self.density).isfinite()
            for p in self.density:  # a fit that fails is left out: the averages of AdamW would never be rid of it
                p.grad = None if p.grad is None else torch.where(usable, p.grad, 0.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["full_lr"] * factor
            optimizer.step()
        self.zero_grad()
        return norm

    def zero_grad(self) -> None:
        """Forgets all gradients."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def _clip(self, parameters: list[nn.Parameter]) -> Tensor:
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self.training.grad_clip:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.training.grad_clip, norm)
        return norm

    def tensors(self) -> dict[str, Tensor]:
        """The state of every parameter, by `parameter/name of the state`."""
        return {
            f"{self.names[parameter]}/{key}": value
            for optimizer in self.optimizers
            for parameter, states in optimizer.state.items()
            for key, value in states.items()
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Takes back what `tensors` gave."""
        by_name: dict[str, dict[str, Tensor]] = {}
        for path, value in tensors.items():
            name, _, key = path.rpartition("/")
            by_name.setdefault(name, {})[key] = value
        for optimizer in self.optimizers:
            state = optimizer.state_dict()
            ordered = [p for group in optimizer.param_groups for p in group["params"]]
            found = {i: by_name.get(self.names[p]) for i, p in enumerate(ordered)}
            state["state"] = {i: states for i, states in found.items() if states}
            optimizer.load_state_dict(state)


def lr_scale(training: Training, step: int, progress: float) -> float:
    """The share of the full learning rate at `step` (from 0), when `progress` of the run (0 to 1) lies behind.

    Under a time limit the steps of the whole run are foreseen from the pace so far: the warm-up ends within a twentieth
    of the run however slow it is, and the decay begins where the warm-up ends.
    """
    steps = round(step / progress) if step else training.steps  # the very number where steps are the limit
    warmup = min(training.warmup, steps // 20)
    warm = min(1.0, (step + 1) / warmup) if warmup else 1.0
    share = warmup / steps
    left = min(1.0, max(0.0, 1.0 - progress) / (1.0 - share))
    floor = training.min_lr_ratio
    match training.decay:
        case "constant":
            decayed = 1.0
        case "inverse_sqrt":
            decayed = math.sqrt((warmup or 1) / (step + 1))
        case "exponential":
            decayed = floor ** (1.0 - left)
        case "linear":
            decayed = floor + (1.0 - floor) * left
        case "cosine":
            decayed = floor + (1.0 - floor) * 0.5 * (1.0 - math.cos(math.pi * left))
    return min(warm, decayed)


def _block_matrices(model: DiffusionModel) -> dict[nn.Parameter, int]:
    """The matrices inside the blocks that map features to features, and how many stacked matrices each holds.

    Those that modulate by the noise level start at zero and must stay small: Muon's full-sized updates unsettle them.
    """
    found = {}
    for name, parameter in model.denoiser.backbone.blocks.named_parameters():
        if parameter.ndim == 2 and parameter.requires_grad and "modulate" not in name:
            found[parameter] = PARTS_OF_QKV if name.endswith("qkv.weight") else 1
    return found


def _undecayed(model: DiffusionModel) -> set[nn.Parameter]:
    """All but the matrices that map features to features: tables of tokens are many small vectors, not a map."""
    maps = {module.weight for module in model.modules() if isinstance(module, nn.Linear)}
    return set(model.parameters()) - maps
