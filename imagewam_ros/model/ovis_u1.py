# SPDX-License-Identifier: Apache-2.0
"""Ovis-U1 backbone (Yak) at any width, with the key names of its published weights.

What differs from FLUX.2: modulation per block and with bias, a second attention among image
tokens in every double block, GELU, a text refiner whose class token joins the time vector.
Source: docs/variants.md, section 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imagewam_ros.core.errors import ConfigError
from imagewam_ros.model.flux2 import NORM_EPS, FinalLayer, HeadNorm, linear_rows, split_heads
from imagewam_ros.model.layers import (
    FREQUENCIES,
    Heads,
    Modulation,
    layer_norm,
    modulate,
    modulations,
    rotate,
    time_embedding,
)
from imagewam_ros.model.mot import Layer
from imagewam_ros.model.ovis_u1_text import TextRefiner


@dataclass(frozen=True)
class OvisU1Config:
    """Numbers of one Ovis-U1 ImageWAM. The defaults are the released backbone with 14-D actions.

    The action expert has the backbone's width, heads and depth.
    """

    hidden: int = 1536
    heads: int = 12
    axes: tuple[int, ...] = (16, 56, 56)
    theta: float = 10000.0
    double: int = 6
    single: int = 12
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    channels: int = 16
    text_dim: int = 4096
    action_dim: int = 14
    proprio_dim: int = 14
    action_mlp_ratio: float = 4.0
    max_horizon: int = 64
    padded_dims: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.hidden != self.heads * sum(self.axes):
            raise ConfigError(f"hidden {self.hidden} must be heads {self.heads} times the sum of axes {self.axes}")
        if len(self.axes) != 3 or any(width % 2 for width in self.axes):
            raise ConfigError(f"axes must be three even widths (time, row, column), found {self.axes}")

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return sum(self.axes)


class OvisModulation(NamedTuple):
    """Modulation of all blocks at one vector: image (attention, MLP, image attention) and text
    (attention, MLP) per double block, one per single block, and the head's shift and scale.
    """

    image: list[list[Modulation]]
    text: list[list[Modulation]]
    single: list[list[Modulation]]
    head: tuple[Tensor, Tensor]


class OvisTransformer(nn.Module):
    """The backbone's layers; who attends to whom is decided outside."""

    def __init__(self, config: OvisU1Config) -> None:
        super().__init__()
        h = config.hidden
        self.config = config
        self.img_in = nn.Linear(config.channels, h)
        self.time_in = OvisTimeEmbedder(FREQUENCIES, h)
        self.vector_in = OvisTimeEmbedder(h, h)
        self.txt_in = TextRefiner(config.text_dim, h, 2 * config.heads, config.mlp_ratio)
        self.double_blocks = nn.ModuleList(
            OvisDoubleBlock(h, config.heads, config.mlp_ratio, config.qkv_bias, text=True) for _ in range(config.double)
        )
        self.single_blocks = nn.ModuleList(
            OvisSingleBlock(h, config.heads, config.mlp_ratio) for _ in range(config.single)
        )
        self.final_layer = FinalLayer(h, config.channels, bias=True)

    def vector(self, timestep: Tensor, summary: Tensor) -> Tensor:
        """Conditioning vector (B, hidden) of timestep (B,) in 0..1000 and the refiner's class row (B, hidden)."""
        return self.time_in(time_wave(timestep, summary)) + self.vector_in(summary)  # type: ignore[no-any-return]

    def modulation(self, vector: Tensor) -> OvisModulation:
        """Modulation of all blocks."""
        doubles: list[OvisDoubleBlock] = [*self.double_blocks]  # type: ignore[list-item]
        return OvisModulation(
            [block.img_mod(vector) for block in doubles],
            [block.txt_mod(vector) for block in doubles],
            [block.modulation(vector) for block in self.single_blocks],  # type: ignore[operator]
            self.final_layer.modulation(vector),
        )


def time_wave(timestep: Tensor, like: Tensor) -> Tensor:
    """Sinusoids (B, 256) of timestep (B,) in 0..1000, which the network takes as timestep / 1000."""
    return time_embedding(timestep / 1000).to(like.dtype)


class OvisTimeEmbedder(nn.Module):
    """Two linear layers with SiLU between."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.in_layer = nn.Linear(width, out)
        self.out_layer = nn.Linear(out, out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width) to (B, out)."""
        result: Tensor = self.out_layer(F.silu(self.in_layer(x)))
        return result


class BlockModulation(nn.Module):
    """Modulation of one block."""

    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.width = width
        self.lin = nn.Linear(width, parts * width)

    def forward(self, vector: Tensor) -> list[Modulation]:
        """Modulations from the vector (B, width), in order shift, scale, gate."""
        return modulations(self.lin(F.silu(vector)), self.width)


class OvisAttention(nn.Module):
    """Projections of one attention; rows of qkv are [q | k | v], each [H, d]."""

    def __init__(self, width: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.norm = HeadNorm(width // heads)
        self.proj = nn.Linear(width, width)

    def project(self, x: Tensor, modulation: Modulation, table: Tensor) -> Heads:
        """Heads of the modulated layer norm x (B, n, width)."""
        modulated = torch.addcmul(modulation.shift, x, modulation.scale)
        return split_heads(self.qkv(modulated), self.heads, self.norm, table)


def gelu_mlp(width: int, inner: int) -> nn.Sequential:
    """width -> inner -> GELU (tanh) -> width."""
    return nn.Sequential(nn.Linear(width, inner), nn.GELU(approximate="tanh"), nn.Linear(inner, width))


class OvisDoubleBlock(Layer):
    """Image stream with its second attention, and the text stream unless it is the action expert's."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, bias: bool, text: bool) -> None:
        super().__init__()
        inner = round(width * mlp_ratio)
        self.img_mod = BlockModulation(width, 9)
        self.img_attn = OvisAttention(width, heads, bias)
        self.img_self_attn = OvisAttention(width, heads, bias)
        self.img_mlp = gelu_mlp(width, inner)
        if text:
            self.txt_mod = BlockModulation(width, 6)
            self.txt_attn = OvisAttention(width, heads, bias)
            self.txt_mlp = gelu_mlp(width, inner)

    def ahead(self) -> list[nn.Module]:
        """See `Layer`."""
        return [part for part in self.children() if isinstance(part, BlockModulation)]

    def project_image(self, x: Tensor, modulation: Sequence[Modulation], table: Tensor) -> tuple[Heads, Heads]:
        """Heads of image or action tokens for the joint and for the image attention."""
        normed = layer_norm(x)
        return (
            self.img_attn.project(normed, modulation[0], table),
            self.img_self_attn.project(normed, modulation[2], table),
        )

    def merge_image(self, x: Tensor, joint: Tensor, own: Tensor, modulation: Sequence[Modulation]) -> Tensor:
        """Add joint attention, image attention and MLP, in this order."""
        x = torch.addcmul(x, modulation[0].gate, self.img_attn.proj(joint))
        x = torch.addcmul(x, modulation[2].gate, self.img_self_attn.proj(own))
        return torch.addcmul(x, modulation[1].gate, self.img_mlp(modulate(x, modulation[1])))

    def project_text(self, x: Tensor, modulation: Sequence[Modulation], table: Tensor) -> Heads:
        """Heads of text tokens."""
        return self.txt_attn.project(layer_norm(x), modulation[0], table)

    def merge_text(self, x: Tensor, joint: Tensor, modulation: Sequence[Modulation]) -> Tensor:
        """Add attention and MLP."""
        x = torch.addcmul(x, modulation[0].gate, self.txt_attn.proj(joint))
        return torch.addcmul(x, modulation[1].gate, self.txt_mlp(modulate(x, modulation[1])))


class OvisSingleBlock(Layer):
    """Attention and MLP in parallel."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        inner = round(width * mlp_ratio)
        self.heads, self.width = heads, width
        self.linear1 = nn.Linear(width, 3 * width + inner)
        self.linear2 = nn.Linear(width + inner, width)
        self.norm = HeadNorm(width // heads)
        self.modulation = BlockModulation(width, 3)

    def ahead(self) -> list[nn.Module]:
        """See `Layer`."""
        return [self.modulation]

    def project(self, x: Tensor, modulation: Sequence[Modulation], table: Tensor) -> tuple[Heads, Tensor]:
        """Heads of tokens x (B, n, width), and the MLP's hidden rows for `merge`."""
        z = self.linear1(modulate(x, modulation[0]))
        qkv, hidden = z.split([3 * self.width, z.shape[-1] - 3 * self.width], -1)
        return split_heads(qkv, self.heads, self.norm, table), hidden

    def merge(self, x: Tensor, attended: Tensor, modulation: Sequence[Modulation], extra: Tensor) -> Tensor:
        """Add attention and MLP."""
        both = torch.cat([attended, F.gelu(extra, approximate="tanh")], -1)
        return torch.addcmul(x, modulation[0].gate, self.linear2(both))

    def keys_values(self, x: Tensor, modulation: Sequence[Modulation], table: Tensor) -> tuple[Tensor, Tensor]:
        """Only keys and values, for the last block."""
        rows = slice(self.width, 3 * self.width)
        kv = linear_rows(self.linear1, modulate(x, modulation[0]), rows)
        key, value = kv.unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return rotate(F.rms_norm(key, key.shape[-1:], self.norm.key_norm.scale, NORM_EPS), table), value
