"""Muon: momentum whose matrices are orthogonalised before they are applied (Jordan et al. 2024).

torch's own Muon computes in bfloat16, which is very slow on CPUs without such instructions, and treats stacked matrices
(queries, keys and values) as a single one.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.shards import full, is_sharded, part_like

# Odd quintics a x + b x^3 + c x^5, each closest to 1 (in the maximum norm) on the interval that the previous one maps
# [0.01, 1] to, as in Polar Express (Amsel et al. 2025). Three of them match five rounds of one fixed quintic.
QUINTICS = ((8.0934, -23.6204, 17.4462), (3.6366, -2.7219, 0.5365), (2.6613, -1.9772, 0.4526))
UPDATE_RMS = 0.2  # root mean square of AdamW's updates (Liu et al. 2025, "Muon is scalable for LLM training", eq. 4)


def orthogonalize(matrices: Float[Tensor, "n r c"]) -> Float[Tensor, "n r c"]:
    """About U V^T of each matrix U S V^T: singular values above 1 % of its norm end up in [0.73, 1.27]."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for a, b, c in QUINTICS:
        gram = x @ x.mT
        x = a * x + torch.baddbmm(gram, gram, gram, beta=b, alpha=c) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised and scaled to AdamW's root mean square, so that learning rates carry over.

    `parameters` are matrices [r, c], each with the number of matrices stacked in its rows. Only CUDA uses bfloat16.
    """

    def __init__(
        self, parameters: list[tuple[nn.Parameter, int]], lr: float, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        self._num_stacked = dict(parameters)
        super().__init__(
            [parameter for parameter, _ in parameters],
            {"lr": lr, "weight_decay": weight_decay, "momentum": momentum},
        )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyrefly: ignore[bad-override]
        """Updates every parameter that has a gradient; closures are not supported."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            moments = [self._momentum(p) for p in parameters]
            gradients = [p.grad for p in parameters]
            torch._foreach_lerp_(moments, gradients, 1.0 - group["momentum"])
            lookahead = list(torch._foreach_lerp(gradients, moments, group["momentum"]))
            torch._foreach_mul_(parameters, 1.0 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(parameters, self._directions(parameters, lookahead), alpha=-group["lr"])

    def _momentum(self, parameter: nn.Parameter) -> Tensor:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        return state["momentum"]

    def _directions(self, parameters: list[nn.Parameter], gradients: list[Tensor]) -> list[Tensor]:
        """Orthogonalised gradients; matrices of one shape are orthogonalised together."""
        if is_sharded(gradients[0]):
            return [self._sharded_direction(p, g) for p, g in zip(parameters, gradients, strict=True)]
        by_shape: dict[torch.Size, list[int]] = {}
        split = [g.unflatten(0, (self._num_stacked[p], -1)) for p, g in zip(parameters, gradients, strict=True)]
        for i, matrices in enumerate(split):
            by_shape.setdefault(matrices.shape[1:], []).append(i)
        directions: list[Tensor] = list(gradients)
        for members in by_shape.values():
            result = _direction(torch.cat([split[i] for i in members]))
            for i, part in zip(members, result.split([len(split[i]) for i in members]), strict=True):
                directions[i] = part.flatten(0, 1).to(gradients[i].dtype)
        return directions

    def _sharded_direction(self, parameter: nn.Parameter, gradient: Tensor) -> Tensor:
        """The rank's part of the direction; one matrix at a time is complete on a rank."""
        matrices = full(gradient).unflatten(0, (self._num_stacked[parameter], -1))
        return part_like(_direction(matrices).flatten(0, 1).to(gradient.dtype), gradient)


def _direction(matrices: Float[Tensor, "n r c"]) -> Float[Tensor, "n r c"]:
    lower = matrices.bfloat16() if matrices.is_cuda else matrices
    return orthogonalize(lower) * (UPDATE_RMS * max(matrices.shape[1:]) ** 0.5)
