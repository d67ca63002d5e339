"""Trunks: the networks between a denoiser's input and its output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ..core.errors import UserError
from .base import TrunkPart, check_bounds, expect

if TYPE_CHECKING:
    from ..networks.backbone import Backbone as BuiltTrunk
    from ..networks.transformer import Transformer


@dataclass(frozen=True)
class TransformerConfig(TrunkPart):
    """The transformer. Heads are 64 wide.

    `bias` is of the feed-forward's linear maps, `norm_weight` and `norm_bias` of the layer norms. `time_frequency` is
    the fastest of the sinusoids that read the noise level, in radians per unit of it. Both branches of a block first
    mix in the features of neighbours up to `reach` places away (0: none).
    """

    mlp_ratio: int = 4
    cond_dim: int = 128
    modulation: Literal["none", "adaln", "film"] = "none"
    activation: Literal["relu2", "gelu"] = "relu2"
    qk_norm: bool = True
    bias: bool = False
    norm_weight: bool = False
    norm_bias: bool = False
    time_frequency: float = 1000.0
    dropout: float = 0.0
    absolute_positions: bool = True
    conv_radius: int = 0
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        check_bounds(self, depth=(1, None), mlp_ratio=(1, None), cond_dim=(1, None), dropout=(0.0, 0.99))
        check_bounds(self, time_frequency=(1e-6, None), conv_radius=(0, None))
        if self.norm_bias and not self.norm_weight:
            raise UserError("backbone.norm_bias has no effect without backbone.norm_weight; set both.")
        if self.width < 2 or self.width % (64 if self.width > 64 else 2):
            raise UserError(f"backbone.width is {self.width}; it must be a multiple of 64, or even and below 64.")

    def build(self) -> Transformer:
        from dataclasses import asdict

        from ..networks.transformer import Transformer

        return Transformer(**asdict(self))


@dataclass(frozen=True)
class UNetConfig(TrunkPart, name="unet"):
    """The one-dimensional U-Net. Level i has `multipliers[i]` times `width` features and 2^i times fewer positions.

    `depth` blocks lead down and as many up. Width 64 has 1.1 million parameters, 128 has 4.1, 256 at depth 6 has 25;
    multipliers 1,2,4 at width 256 and depth 9 have 92.
    """

    supports_packing: ClassVar[bool] = False

    width: int = 64
    multipliers: tuple[int, ...] = (1, 2, 2)
    cond_dim: int = 32
    modulation: Literal["none", "film"] = "film"
    time_frequency: float = 1000.0

    def __post_init__(self) -> None:
        check_bounds(self, depth=(1, None), cond_dim=(1, None), time_frequency=(1e-6, None))
        if not self.multipliers or min(self.multipliers) < 1:
            raise UserError(
                f"backbone.multipliers is {list(self.multipliers)}; it is one number of at least 1 a level."
            )
        deepest = self.width * self.multipliers[-1]
        if self.width < 2 or deepest % (64 if deepest > 64 else 2):
            raise UserError(
                f"backbone.width is {self.width}; {self.multipliers[-1]} (the last multiplier) times that must be a "
                "multiple of 64, or even and below 64."
            )

    def build(self) -> BuiltTrunk:
        from dataclasses import asdict

        from ..networks.unet import UNet as Built

        return Built(**asdict(self))


@dataclass(frozen=True)
class BertConfig(TrunkPart):
    """The encoder of BERT, as `transformers` has it; by default of BERT-base's size.

    Training begins with the weights in the folder `pretrained`, if any, and leaves them as they are if `frozen`.
    """

    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: int = 4
    positions: int = 512
    cond_dim: int = 128
    time_frequency: float = 1000.0
    dropout: float = 0.1
    pretrained: str = ""
    frozen: bool = False

    def __post_init__(self) -> None:
        check_bounds(self, depth=(1, None), heads=(1, None), mlp_ratio=(1, None), positions=(1, None))
        check_bounds(self, cond_dim=(1, None), dropout=(0.0, 0.99), time_frequency=(1e-6, None))
        if self.width < 1 or self.width % self.heads:
            raise UserError(f"backbone.width is {self.width}; it must be a multiple of backbone.heads, {self.heads}.")
        if self.frozen and not self.pretrained:
            raise UserError(
                "backbone.frozen keeps pretrained weights as they are; set backbone.pretrained to their folder."
            )

    def build(self) -> BuiltTrunk:
        from dataclasses import asdict

        from ..networks.bert import BertBackbone as Built

        settings = asdict(self)
        del settings["pretrained"]
        return Built(**settings)

    def load_pretrained(self, backbone: BuiltTrunk) -> str | None:
        from pathlib import Path

        from ..networks.bert import BertBackbone as Built

        return expect(self, backbone, Built).load_pretrained(Path(self.pretrained)) if self.pretrained else None
