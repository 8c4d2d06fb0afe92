# SPDX-License-Identifier: Apache-2.0
"""FLUX.2 klein backbone at any width, with the key names of its published weights.

Source: docs/model.md, section 1 (block mathematics of black-forest-labs/flux2).
All linear layers are free of bias, all layer norms free of affine. The action expert beside it
is `flux2_expert`, both together are `flux2_network`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imagewam_ros.core.errors import ConfigError
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
from imagewam_ros.model.packed import PackedLinear

NORM_EPS = 1e-6

T = TypeVar("T")


@dataclass(frozen=True)
class Flux2Config:
    """Numbers of one FLUX.2 ImageWAM. The defaults are klein-base-4B with 14-D actions.

    padded_dims are action and state dims that mean nothing: noise is drawn for them, as the authors do, and
    what comes out of them is dropped.

    rope_dtype "bfloat16" rounds positions and angles as the authors' runs do.
    """

    hidden: int = 3072
    heads: int = 24
    axes: tuple[int, ...] = (32, 32, 32, 32)
    theta: float = 2000.0
    double: int = 5
    single: int = 20
    mlp_ratio: float = 3.0
    channels: int = 128
    text_dim: int = 7680
    action_dim: int = 14
    proprio_dim: int = 14
    action_hidden: int = 1024
    action_mlp_ratio: float = 4.0
    max_horizon: int = 64
    padded_dims: tuple[int, ...] = ()
    rope_dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.hidden != self.heads * sum(self.axes):
            raise ConfigError(f"hidden {self.hidden} must be heads {self.heads} times the sum of axes {self.axes}")
        if len(self.axes) != 4 or any(width % 2 for width in self.axes):
            raise ConfigError(f"axes must be four even widths (time, row, column, index), found {self.axes}")
        if self.rope_dtype not in ("float32", "bfloat16"):
            raise ConfigError(f"rope_dtype must be float32 or bfloat16, found {self.rope_dtype!r}")

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return sum(self.axes)


class Flux2Modulation(NamedTuple):
    """Modulation of the whole backbone at one timestep: (attention, MLP) of the doubles, one of the singles."""

    image: list[Modulation]
    text: list[Modulation]
    single: Modulation


class Flux2Transformer(nn.Module):
    """The backbone's layers; who attends to whom is decided outside."""

    def __init__(self, config: Flux2Config) -> None:
        super().__init__()
        h = config.hidden
        self.config = config
        self.img_in = nn.Linear(config.channels, h, bias=False)
        self.time_in = TimeEmbedder(h)
        self.txt_in = nn.Linear(config.text_dim, h, bias=False)
        self.double_blocks = nn.ModuleList(DoubleBlock(config) for _ in range(config.double))
        self.single_blocks = nn.ModuleList(
            SingleBlock(h, config.heads, config.head_dim, round(h * config.mlp_ratio)) for _ in range(config.single)
        )
        self.double_stream_modulation_img = SharedModulation(h, 6)
        self.double_stream_modulation_txt = SharedModulation(h, 6)
        self.single_stream_modulation = SharedModulation(h, 3)
        self.final_layer = FinalLayer(h, config.channels)

    def modulation(self, vector: Tensor) -> Flux2Modulation:
        """Modulation from the time vector (B, hidden) of `time_in`."""
        return Flux2Modulation(
            self.double_stream_modulation_img(vector),
            self.double_stream_modulation_txt(vector),
            self.single_stream_modulation(vector)[0],
        )

    def image_streams(self) -> list["DoubleStream | SingleBlock"]:
        """The layers as an image token meets them."""
        return [*(block.image for block in self.double_blocks), *self.single_blocks]  # type: ignore[list-item,union-attr]


class TimeEmbedder(nn.Module):
    """Two linear layers on the sinusoids of time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_layer = nn.Linear(FREQUENCIES, width, bias=False)
        self.out_layer = nn.Linear(width, width, bias=False)

    def forward(self, timestep: Tensor) -> Tensor:
        """Vector (B, width) of timestep (B,) in 0..1000; the network was trained on timestep / 1000."""
        wave = time_embedding(timestep / 1000).to(self.in_layer.weight.dtype)
        result: Tensor = self.out_layer(F.silu(self.in_layer(wave)))
        return result


class SharedModulation(nn.Module):
    """One linear layer whose output all blocks of a kind share."""

    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.width = width
        self.lin = nn.Linear(width, parts * width, bias=False)

    def forward(self, vector: Tensor) -> list[Modulation]:
        """(attention, MLP) or one modulation from the vector (B, width)."""
        return modulations(self.lin(F.silu(vector)), self.width)


class FinalLayer(nn.Module):
    """Modulated norm and projection; also the action expert's head."""

    def __init__(self, width: int, out: int, bias: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(width, out, bias=bias)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width, bias=bias))

    def modulation(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """shift and 1 + scale, each (B, 1, width)."""
        shift, scale = self.adaLN_modulation(vector)[:, None].chunk(2, -1)
        return shift, 1 + scale

    def forward(self, x: Tensor, modulation: tuple[Tensor, Tensor]) -> Tensor:
        """Tokens (B, n, width) to (B, n, out)."""
        shift, scale = modulation
        result: Tensor = self.linear(torch.addcmul(shift, layer_norm(x), scale))
        return result


class HeadNorm(nn.Module):
    """RMS norm of queries and keys over the head, each with a learned scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query_norm = Scale(width)
        self.key_norm = Scale(width)

    def forward(self, pair: Tensor) -> Tensor:
        """Normalise queries and keys (2, B, H, n, d) at once."""
        scale = torch.stack([self.query_norm.scale, self.key_norm.scale])
        return F.rms_norm(pair, pair.shape[-1:], None, NORM_EPS) * scale[:, None, None, None]


class Scale(nn.Module):
    """The learned scale of one norm; a module of its own because the published keys say so."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))


class SelfAttention(nn.Module):
    """Projections of one stream of a double block."""

    def __init__(self, width: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * heads * head_dim, bias=False)
        self.norm = HeadNorm(head_dim)
        self.proj = nn.Linear(heads * head_dim, width, bias=False)


def split_heads(qkv: Tensor, heads: int, norm: HeadNorm, table: Tensor) -> Heads:
    """Heads from rows [q | k | v], each [H, d]: norm, then rotation, of queries and keys."""
    parts = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)  # (3, B, H, n, d)
    query, key = rotate(norm(parts[:2]), table)
    return Heads(query, key, parts[2])


class DoubleStream:
    """One stream (image, text or action) of a double block: a view on its weights, no module of its own."""

    def __init__(self, layer: Layer, attention: SelfAttention, mlp: nn.Sequential) -> None:
        self.layer, self.attention, self.mlp = layer, attention, mlp

    def run(self, work: Callable[..., T], *inputs: Any) -> T:
        """See `Layer`."""
        return self.layer.run(work, *inputs)

    def project(self, x: Tensor, modulation: Sequence[Modulation], table: Tensor) -> tuple[Heads, None]:
        """Heads of tokens x (B, n, width)."""
        qkv = self.attention.qkv(modulate(x, modulation[0]))
        return split_heads(qkv, self.attention.heads, self.attention.norm, table), None

    def merge(self, x: Tensor, attended: Tensor, modulation: Sequence[Modulation], extra: None) -> Tensor:
        """Add attention (B, n, H*d) and MLP to the residual stream."""
        x = torch.addcmul(x, modulation[0].gate, self.attention.proj(attended))
        return torch.addcmul(x, modulation[1].gate, self.mlp(modulate(x, modulation[1])))


class SwiGLU(nn.Module):
    """SiLU(a) * b of the two halves (a, b)."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., 2 width) to (..., width)."""
        gate, value = x.chunk(2, -1)
        return F.silu(gate) * value


def gated_mlp(width: int, inner: int) -> nn.Sequential:
    """width -> 2 inner -> SwiGLU -> width."""
    return nn.Sequential(nn.Linear(width, 2 * inner, bias=False), SwiGLU(), nn.Linear(inner, width, bias=False))


class DoubleBlock(Layer):
    """Image and text with weights of their own."""

    def __init__(self, config: Flux2Config) -> None:
        super().__init__()
        h, inner = config.hidden, round(config.hidden * config.mlp_ratio)
        self.img_attn = SelfAttention(h, config.heads, config.head_dim)
        self.img_mlp = gated_mlp(h, inner)
        self.txt_attn = SelfAttention(h, config.heads, config.head_dim)
        self.txt_mlp = gated_mlp(h, inner)

    @property
    def image(self) -> DoubleStream:
        """The block as image tokens meet it."""
        return DoubleStream(self, self.img_attn, self.img_mlp)

    @property
    def text(self) -> DoubleStream:
        """The block as text tokens meet it."""
        return DoubleStream(self, self.txt_attn, self.txt_mlp)


def linear_rows(layer: nn.Module, x: Tensor, rows: slice) -> Tensor:
    """Some rows of a linear layer's output; a wrapped layer (LoRA, quantised) is run as a whole, then cut."""
    if type(layer) is nn.Linear and type(layer.weight) is nn.Parameter:
        return F.linear(x, layer.weight[rows], None if layer.bias is None else layer.bias[rows])
    if isinstance(layer, PackedLinear):
        return layer.rows(rows.start, rows.stop)(x)  # type: ignore[no-any-return]
    result: Tensor = layer(x)[..., rows]
    return result


class SingleBlock(Layer):
    """Attention and MLP in parallel, one pair of linear layers for all tokens."""

    def __init__(self, width: int, heads: int, head_dim: int, inner: int) -> None:
        super().__init__()
        self.heads, self.attention_width = heads, heads * head_dim
        self.linear1 = nn.Linear(width, 3 * self.attention_width + 2 * inner, bias=False)
        self.linear2 = nn.Linear(self.attention_width + inner, width, bias=False)
        self.norm = HeadNorm(head_dim)
        self.mlp_act = SwiGLU()

    def project(self, x: Tensor, modulation: Sequence[Modulation], table: Tensor) -> tuple[Heads, Tensor]:
        """Heads of tokens x (B, n, width), and the MLP's hidden rows for `merge`."""
        z = self.linear1(modulate(x, modulation[0]))
        qkv, hidden = z.split([3 * self.attention_width, z.shape[-1] - 3 * self.attention_width], -1)
        return split_heads(qkv, self.heads, self.norm, table), hidden

    def merge(self, x: Tensor, attended: Tensor, modulation: Sequence[Modulation], extra: Tensor) -> Tensor:
        """Add attention (B, n, H*d) and MLP to the residual stream."""
        return torch.addcmul(x, modulation[0].gate, self.linear2(torch.cat([attended, self.mlp_act(extra)], -1)))

    def keys_values(self, x: Tensor, modulation: Modulation, table: Tensor) -> tuple[Tensor, Tensor]:
        """Only keys and values: all that the last block owes to those who read the prefix."""
        kv = linear_rows(self.linear1, modulate(x, modulation), slice(self.attention_width, 3 * self.attention_width))
        key, value = kv.unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return rotate(F.rms_norm(key, key.shape[-1:], self.norm.key_norm.scale, NORM_EPS), table), value
