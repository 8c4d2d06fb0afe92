# SPDX-License-Identifier: Apache-2.0
"""Small mathematics that several backbones share: embeddings of time and position, modulation, head layout."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

FREQUENCIES = 256
"""Width of the sinusoidal embedding of time (Source: FLUX; Ovis-U1 and OmniGen2 use the same)."""


class Modulation(NamedTuple):
    """shift, scale (already 1 + the predicted one) and gate, each (B, 1, width)."""

    shift: Tensor
    scale: Tensor
    gate: Tensor


class Heads(NamedTuple):
    """Queries (B, H, n, d), keys and values (B, Hkv, n, d) of one group of tokens, rotated."""

    query: Tensor
    key: Tensor
    value: Tensor


def time_embedding(time: Tensor, width: int = FREQUENCIES, scale: float = 1000.0) -> Tensor:
    """Sinusoids (B, width) of time (B,) in [0, 1], cosines first, float32."""
    half = width // 2
    frequency = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32, device=time.device) / half)
    phase = (scale * time.float())[:, None] * frequency
    return torch.cat([phase.cos(), phase.sin()], 1)


def rotation(ids: Tensor, axes: Sequence[int], theta: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """Rotary table (..., n, sum(axes) / 2), complex64, of integer positions ids (..., n, len(axes)).

    An adjacent pair of a head's dims is one complex number; multiplying turns it. dtype is that of
    ids, frequencies and angles: bfloat16 as in the authors' released FLUX.2 runs, float64 as in Ovis-U1 and OmniGen2.
    """
    angles = [_angles(ids[..., axis], width, theta, dtype) for axis, width in enumerate(axes)]
    angle = torch.cat(angles, -1)
    wide = angle if dtype == torch.float64 else angle.float()
    return torch.complex(wide.cos().float(), wide.sin().float())


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Rotate adjacent pairs of x (..., n, d), in float32 because the table is; returns x's dtype."""
    pairs = x.float().unflatten(-1, (-1, 2))
    if torch.compiler.is_compiling():  # compiled kernels have no complex numbers
        first, second = pairs.unbind(-1)
        turned = first * table.real - second * table.imag, first * table.imag + second * table.real
        return torch.stack(turned, -1).flatten(-2).to(x.dtype)
    return torch.view_as_real(torch.view_as_complex(pairs) * table).flatten(-2).to(x.dtype)


def grid_ids(rows: int, columns: int, time: int, axes: int, device: torch.device | str = "cpu") -> Tensor:
    """Positions (rows * columns, axes) of image tokens, row-major: (time, row, column, 0...)."""
    ids = torch.zeros(rows, columns, axes, device=device)
    ids[..., 0] = time
    ids[..., 1] = torch.arange(rows, device=device)[:, None]
    ids[..., 2] = torch.arange(columns, device=device)
    return ids.flatten(0, 1)


def modulate(x: Tensor, modulation: Modulation) -> Tensor:
    """scale * LayerNorm(x) + shift, without learned affine, eps 1e-6; one operation where all tokens share it."""
    if modulation.scale.shape[:-1] == (1, 1):
        return F.layer_norm(x, x.shape[-1:], modulation.scale.flatten(), modulation.shift.flatten(), eps=1e-6)
    return torch.addcmul(modulation.shift, layer_norm(x), modulation.scale)


def layer_norm(x: Tensor) -> Tensor:
    """LayerNorm over the last axis without learned affine, eps 1e-6."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


def modulations(values: Tensor, width: int) -> list[Modulation]:
    """Split (B, 3 k width) into k modulations; the order is shift, scale, gate (Source: FLUX)."""
    parts = values[:, None].split(width, -1)
    return [Modulation(parts[i], 1 + parts[i + 1], parts[i + 2]) for i in range(0, len(parts), 3)]


def tokens_of(latents: Tensor) -> Tensor:
    """Latents (B, C, h, w) to tokens (B, h w, C), row-major."""
    return latents.flatten(2).transpose(1, 2)


def latents_of(tokens: Tensor, rows: int, columns: int) -> Tensor:
    """Tokens (B, h w, C) back to latents (B, C, h, w)."""
    latents: Tensor = tokens.transpose(1, 2).unflatten(2, (rows, columns))
    return latents


def _angles(position: Tensor, width: int, theta: float, dtype: torch.dtype) -> Tensor:
    exponent = torch.arange(0, width, 2, dtype=dtype, device=position.device) / width
    frequency: Tensor = theta**-exponent
    return position.to(dtype)[..., None] * frequency
