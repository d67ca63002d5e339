"""The diffusion transformer of SEDD, MDLM and RADD, written plainly under the names of their published tensors."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Holder(nn.Module):
    """A module that only has children, parameters or buffers, in the order given."""

    def __init__(self, buffers: dict[str, Tensor] | None = None, /, **children: nn.Module | nn.Parameter) -> None:
        super().__init__()
        for name, child in children.items():
            setattr(self, name, child)
        for name, buffer in (buffers or {}).items():
            self.register_buffer(name, buffer)


def perceptron(inner: int, outer: int, middle: int, activation: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inner, middle), activation, nn.Linear(middle, outer))


class Reference(nn.Module):
    """Token ids and total noise to one number per token (the mask included). Without `timed`: RADD's network."""

    vocab_embed: Any
    sigma_map: Any
    rotary_emb: Any
    blocks: Any
    output_layer: Any

    def __init__(self, rows: int, width: int, depth: int, conditioning: int = 128, *, timed: bool = True) -> None:
        super().__init__()

        def norm() -> nn.LayerNorm:
            return nn.LayerNorm(width, bias=not timed)

        def modulation(parts: int) -> dict[str, nn.Linear]:
            return {"adaLN_modulation": nn.Linear(conditioning, parts * width)} if timed else {}

        self.vocab_embed = Holder(embedding=nn.Parameter(torch.empty(rows, width)))
        if timed:
            self.sigma_map = Holder(mlp=perceptron(256, conditioning, conditioning, nn.SiLU()))
        self.rotary_emb = Holder({"inv_freq": 1.0 / 10000 ** (torch.arange(0, 64, 2).float() / 64)})
        self.blocks = nn.ModuleList(
            Holder(
                norm1=norm(),
                attn_qkv=nn.Linear(width, 3 * width, bias=False),
                attn_out=nn.Linear(width, width, bias=False),
                norm2=norm(),
                mlp=perceptron(width, width, 4 * width, nn.GELU("tanh")),
                **modulation(6),
            )
            for _ in range(depth)
        )
        self.output_layer = Holder(norm_final=norm(), linear=nn.Linear(width, rows), **modulation(2))

    def forward(self, ids: Tensor, sigma: Tensor) -> Tensor:
        x = self.vocab_embed.embedding[ids]
        parts = None
        if hasattr(self, "sigma_map"):
            angles = sigma[:, None] * torch.exp(-torch.log(torch.tensor(10000.0)) * torch.arange(128) / 128)
            parts = F.silu(self.sigma_map.mlp(torch.cat((angles.cos(), angles.sin()), dim=-1)))[:, None]
        for block in self.blocks:
            shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(block, parts, 6)
            x = x + gate1 * block.attn_out(self.attention(block.attn_qkv(block.norm1(x) * (1 + scale1) + shift1)))
            x = x + gate2 * block.mlp(block.norm2(x) * (1 + scale2) + shift2)
        shift, scale = self.modulation(self.output_layer, parts, 2)
        return self.output_layer.linear(self.output_layer.norm_final(x) * (1 + scale) + shift)

    def modulation(self, layer: Any, parts: Tensor | None, count: int) -> tuple:
        if parts is None:
            return (0.0, 0.0, 1.0) * 2 if count == 6 else (0.0, 0.0)
        return layer.adaLN_modulation(parts).chunk(count, dim=-1)

    def attention(self, qkv: Tensor) -> Tensor:
        rows, length, _ = qkv.shape
        q, k, v = qkv.view(rows, length, 3, -1, 64).permute(2, 0, 3, 1, 4)
        angles = torch.arange(length)[:, None] * self.rotary_emb.inv_freq
        cos, sin = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)

        def turned(x: Tensor) -> Tensor:
            left, right = x.split(32, dim=-1)
            return x * cos + torch.cat((-right, left), dim=-1) * sin

        mixed = F.scaled_dot_product_attention(turned(q), turned(k), v)
        return mixed.transpose(1, 2).reshape(rows, length, -1)


def random_reference(rows: int, seed: int = 0, **options) -> Reference:
    """A network of two blocks of 128 in which every tensor matters."""
    made = Reference(rows, 128, 2, conditioning=24, **options)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
            if "norm" in name and name.endswith("weight"):
                parameter += 1.0
    return made.eval().requires_grad_(False)
