# SPDX-License-Identifier: Apache-2.0
"""OmniGen2 backbone at any width, with the key names of its published weights.

What differs from FLUX.2: one stream, grouped keys, sandwich norms with scales and tanh gates
per block, refiners for text, reference and target. Source: docs/variants.md, section 2.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imagewam_ros.core.errors import ConfigError
from imagewam_ros.model.layers import FREQUENCIES, Heads, layer_norm, rotate
from imagewam_ros.model.mot import Layer, attend

IMAGES = 5
"""Rows of the image index embedding; one reference image uses row 0."""

MAX_CONDITION = 1024
"""Widest time vector."""


@dataclass(frozen=True)
class OmniGen2Config:
    """Numbers of one OmniGen2 ImageWAM. The defaults are the released backbone with 14-D actions.

    pack_after_text puts the proprio token after the last valid text token; False is the authors' first way:
    after the pads, which keeps one pad row in the joint sequence and leaves the token itself out.
    """

    hidden: int = 2520
    heads: int = 21
    kv_heads: int = 7
    axes: tuple[int, ...] = (40, 40, 40)
    axes_lengths: tuple[int, ...] = (1024, 1664, 1664)
    theta: float = 10000.0
    layers: int = 32
    refiner_layers: int = 2
    multiple_of: int = 256
    norm_eps: float = 1e-5
    timestep_scale: float = 1000.0
    channels: int = 16
    patch: int = 2
    text_dim: int = 2048
    action_dim: int = 14
    proprio_dim: int = 14
    action_hidden: int = 1024
    action_multiple_of: int = 256
    action_norm_eps: float = 1e-5
    action_timestep_scale: float = 1.0
    action_theta: float = 10000.0
    max_horizon: int = 64
    padded_dims: tuple[int, ...] = ()
    pack_after_text: bool = True

    def __post_init__(self) -> None:
        if self.hidden != self.heads * sum(self.axes):
            raise ConfigError(f"hidden {self.hidden} must be heads {self.heads} times the sum of axes {self.axes}")
        if self.heads % self.kv_heads:
            raise ConfigError(f"heads {self.heads} must be a multiple of kv_heads {self.kv_heads}")
        if len(self.axes) != 3 or any(width % 2 for width in self.axes):
            raise ConfigError(f"axes must be three even widths (index, row, column), found {self.axes}")

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return sum(self.axes)


class Gating(NamedTuple):
    """Modulation of one block: 1 + scale and tanh(gate) of attention and of the MLP, each (B, 1, width)."""

    scale: Tensor
    gate: Tensor
    mlp_scale: Tensor
    mlp_gate: Tensor


class OmniModulation(NamedTuple):
    """Modulation of the backbone at one timestep, and the time vector (B, cond) that it came from."""

    layers: list[Gating]
    reference: list[Gating]
    vector: Tensor


class OmniGen2Transformer(nn.Module):
    """The backbone's layers; who attends to whom is decided outside."""

    def __init__(self, config: OmniGen2Config) -> None:
        super().__init__()
        h, count = config.hidden, config.refiner_layers
        inputs = config.channels * config.patch**2
        condition = min(h, MAX_CONDITION)
        self.config = config
        self.image_index_embedding = nn.Parameter(torch.zeros(IMAGES, h))
        self.x_embedder = nn.Linear(inputs, h)
        self.ref_image_patch_embedder = nn.Linear(inputs, h)
        self.time_caption_embed = TimeCaption(config.text_dim, h, condition, config.norm_eps, config.timestep_scale)
        shape = BlockShape(h, config.heads, config.kv_heads, config.head_dim, config.multiple_of, config.norm_eps)
        self.noise_refiner = nn.ModuleList(OmniBlock(shape, condition) for _ in range(count))
        self.ref_image_refiner = nn.ModuleList(OmniBlock(shape, condition) for _ in range(count))
        self.context_refiner = nn.ModuleList(OmniBlock(shape, None) for _ in range(count))
        self.layers = nn.ModuleList(OmniBlock(shape, condition) for _ in range(config.layers))
        self.norm_out = OmniHead(h, condition, inputs)

    def modulation(self, timestep: Tensor) -> OmniModulation:
        """Modulation of the joint layers and of the reference refiner at timestep (B,) in 0..1000."""
        vector = self.time_caption_embed.timestep_embedder(timestep)
        return OmniModulation(
            [block.norm1.gating(vector) for block in self.layers],  # type: ignore[union-attr,operator]
            [block.norm1.gating(vector) for block in self.ref_image_refiner],  # type: ignore[union-attr,operator]
            vector,
        )


class OmniTimestep(nn.Module):
    """Sinusoids and two linear layers. Angles are scale * (timestep * frequency), in this order and in float32:
    with scale 1000 they reach 1e6 rad, where another order is another function.
    """

    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.linear_1 = nn.Linear(FREQUENCIES, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, timestep: Tensor) -> Tensor:
        """Vector (B, width) of timestep (B,) in 0..1000, taken as it is."""
        half = FREQUENCIES // 2
        exponent = -torch.log(torch.tensor(10000.0)) * torch.arange(half, dtype=torch.float32, device=timestep.device)
        phase = self.scale * (timestep.float()[:, None] * torch.exp(exponent / half))
        wave = torch.cat([phase.cos(), phase.sin()], -1).to(self.linear_1.weight.dtype)
        result: Tensor = self.linear_2(F.silu(self.linear_1(wave)))
        return result


class TimeCaption(nn.Module):
    """Embedders of time and text."""

    def __init__(self, text_dim: int, hidden: int, condition: int, eps: float, scale: float) -> None:
        super().__init__()
        self.timestep_embedder = OmniTimestep(condition, scale)
        self.caption_embedder = nn.Sequential(nn.RMSNorm(text_dim, eps=eps), nn.Linear(text_dim, hidden))


class BlockShape(NamedTuple):
    """Numbers of a block; width is that of the residual stream."""

    width: int
    heads: int
    kv_heads: int
    head_dim: int
    multiple_of: int
    eps: float


class OmniAttention(nn.Module):
    """Projections without bias, norms of queries and keys."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        width, d = shape.width, shape.head_dim
        self.to_q = nn.Linear(width, shape.heads * d, bias=False)
        self.to_k = nn.Linear(width, shape.kv_heads * d, bias=False)
        self.to_v = nn.Linear(width, shape.kv_heads * d, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(shape.heads * d, width, bias=False)])
        self.norm_q = nn.RMSNorm(d, eps=shape.eps)
        self.norm_k = nn.RMSNorm(d, eps=shape.eps)
        self.head_dim = d

    def query(self, x: Tensor, table: Tensor) -> Tensor:
        """Queries (B, H, n, d) of normed tokens."""
        return rotate(self.norm_q(self._split(self.to_q(x))), table)

    def keys_values(self, x: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, Hkv, n, d) of normed tokens."""
        return rotate(self.norm_k(self._split(self.to_k(x))), table), self._split(self.to_v(x))

    def _split(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        return heads


class OmniFeedForward(nn.Module):
    """W2(SiLU(W1 x) * W3 x), inner width 4 * width rounded up."""

    def __init__(self, width: int, multiple_of: int) -> None:
        super().__init__()
        inner = -(-4 * width // multiple_of) * multiple_of
        self.linear_1 = nn.Linear(width, inner, bias=False)
        self.linear_2 = nn.Linear(inner, width, bias=False)
        self.linear_3 = nn.Linear(width, inner, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to the same."""
        result: Tensor = self.linear_2(F.silu(self.linear_1(x)) * self.linear_3(x))
        return result


class NormZero(nn.Module):
    """RMS norm with the block's modulation."""

    def __init__(self, width: int, condition: int, eps: float) -> None:
        super().__init__()
        self.linear = nn.Linear(condition, 4 * width)
        self.norm = nn.RMSNorm(width, eps=eps)

    def gating(self, vector: Tensor) -> Gating:
        """Modulation from the time vector (B, cond)."""
        scale, gate, mlp_scale, mlp_gate = self.linear(F.silu(vector))[:, None].chunk(4, -1)
        return Gating(1 + scale, gate.tanh(), 1 + mlp_scale, mlp_gate.tanh())

    def forward(self, x: Tensor) -> Tensor:
        """The norm alone."""
        result: Tensor = self.norm(x)
        return result


class OmniBlock(Layer):
    """One layer; without condition it is not modulated (text refiner)."""

    def __init__(self, shape: BlockShape, condition: int | None) -> None:
        super().__init__()
        width, eps = shape.width, shape.eps
        self.attn = OmniAttention(shape)
        self.feed_forward = OmniFeedForward(width, shape.multiple_of)
        self.norm1 = nn.RMSNorm(width, eps=eps) if condition is None else NormZero(width, condition, eps)
        self.ffn_norm1 = nn.RMSNorm(width, eps=eps)
        self.norm2 = nn.RMSNorm(width, eps=eps)
        self.ffn_norm2 = nn.RMSNorm(width, eps=eps)

    def ahead(self) -> list[nn.Module]:
        """See `Layer`."""
        return [self.norm1.linear] if isinstance(self.norm1, NormZero) else []

    def project(self, x: Tensor, gating: Gating | None, table: Tensor) -> Heads:
        """Heads of tokens x (B, n, width)."""
        normed = self._normed(x, gating)
        return Heads(self.attn.query(normed, table), *self.attn.keys_values(normed, table))

    def keys_values(self, x: Tensor, gating: Gating, table: Tensor) -> tuple[Tensor, Tensor]:
        """Only keys and values, for the last layer."""
        return self.attn.keys_values(self._normed(x, gating), table)

    def merge(self, x: Tensor, attended: Tensor, gating: Gating | None) -> Tensor:
        """Add attention (B, n, H*d) and MLP to the residual stream."""
        out = self.norm2(self.attn.to_out[0](attended))
        if gating is None:
            x = x + out
            merged: Tensor = x + self.ffn_norm2(self.feed_forward(self.ffn_norm1(x)))
            return merged
        x = torch.addcmul(x, gating.gate, out)
        hidden = self.feed_forward(self.ffn_norm1(x) * gating.mlp_scale)
        return torch.addcmul(x, gating.mlp_gate, self.ffn_norm2(hidden))

    def forward(self, x: Tensor, gating: Gating | None, table: Tensor, mask: Tensor | None = None) -> Tensor:
        """Self attention over x alone, for the refiners; mask (B, 1, 1, n) is True at keys that may be read."""
        return self.merge(x, attend(*self.project(x, gating, table), mask), gating)

    def _normed(self, x: Tensor, gating: Gating | None) -> Tensor:
        normed: Tensor = self.norm1(x)
        return normed if gating is None else torch.mul(normed, gating.scale)


class OmniHead(nn.Module):
    """Norm, scale, projection; also the action expert's head."""

    def __init__(self, width: int, condition: int, out: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(condition, width)
        self.linear_2 = nn.Linear(width, out)

    def scale(self, vector: Tensor) -> Tensor:
        """1 + scale, (B, 1, width)."""
        scale: Tensor = self.linear_1(F.silu(vector))[:, None]
        return 1 + scale

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        """Tokens (B, n, width) to (B, n, out)."""
        result: Tensor = self.linear_2(layer_norm(x) * scale)
        return result
