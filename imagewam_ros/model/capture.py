# SPDX-License-Identifier: Apache-2.0
"""What the action tokens attend to: weights per layer and head, a heat map over the camera mosaic.

Off the hot path: extra velocities over a cache that exists already, with the softmax written
out. Attention shows where values were read from; it does not prove what caused the action.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imagewam_ros.core.contract import Mosaic
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.model.network import ImageWamNetwork
from imagewam_ros.model.protocol import Plan, PrefixCache

TOKEN_PIXELS = 16
"""Side of an image token in mosaic pixels, in all three backbones."""

Weights = NDArray[np.float32]
Pixels = NDArray[np.bool_] | NDArray[np.float32]


@dataclass(frozen=True)
class Attention:
    """Weights (layers, heads, T, keys) of one velocity, or their mean over several.

    Keys are text, image (rows * columns), actions.
    """

    weights: Weights
    rows: int
    columns: int
    horizon: int

    @property
    def text(self) -> int:
        """Text and proprio tokens."""
        return int(self.weights.shape[-1]) - self.rows * self.columns - self.horizon

    @property
    def image(self) -> Weights:
        """Weights (layers, heads, T, rows, columns) on image tokens."""
        part = self.weights[..., self.text : self.text + self.rows * self.columns]
        return part.reshape(*part.shape[:-1], self.rows, self.columns)

    def heat(self) -> Weights:
        """Mean mass (rows, columns) of each image token over layers, heads and actions; at most 1 in all."""
        mean: Weights = self.image.mean((0, 1, 2))
        return mean

    def of(self, layers: Sequence[int] = (), heads: Sequence[int] = ()) -> "Attention":
        """The same for some layers and heads; none named means all. Raises ConfigError for one that is not there."""
        kept = self.weights
        for axis, (kind, chosen) in enumerate((("layer", layers), ("head", heads))):
            absent = [number for number in chosen if not 0 <= number < kept.shape[axis]]
            if absent:
                raise ConfigError(f"no {kind} {absent[0]}; the action expert has {kind}s 0 to {kept.shape[axis] - 1}")
            kept = kept.take(list(chosen), axis) if chosen else kept
        return replace(self, weights=kept)


@torch.no_grad()
def capture(
    network: ImageWamNetwork, cache: PrefixCache, actions: Tensor, timestep: float, mosaic: Mosaic
) -> Attention:
    """Attention of actions (1, T, D) at timestep in 0..1000 over a prefix of one observation of `mosaic`."""
    seen = cache.captured()
    network.velocity(actions, torch.tensor([timestep], device=actions.device), seen)
    return _attention(_weights(seen), mosaic, actions.shape[1])


@torch.no_grad()
def capture_chunk(network: ImageWamNetwork, cache: PrefixCache, noise: Tensor, plan: Plan, mosaic: Mosaic) -> Attention:
    """Mean attention over the Euler steps of the chunk that `noise` (1, T, D) becomes by `plan`."""
    seen, actions = cache.captured(), noise.float()
    total: Tensor | None = None
    for timestep, delta in zip(plan.timesteps, plan.deltas, strict=True):
        velocity = network.velocity(actions, timestep[None], seen)
        actions = actions + velocity.float() * delta
        total = _weights(seen) if total is None else total + _weights(seen)
    assert total is not None
    return _attention(total / len(plan.timesteps), mosaic, noise.shape[1])


def camera_mass(attention: Attention, mosaic: Mosaic) -> dict[str, float]:
    """Share of all attention that falls on each camera's tile, and on text ("text") and actions ("action")."""
    heat = attention.heat()
    size = TOKEN_PIXELS
    mass = {}
    for tile in mosaic.tiles:
        rows = slice(tile.row // size, (tile.row + tile.height) // size)
        columns = slice(tile.column // size, (tile.column + tile.width) // size)
        mass[tile.camera] = float(heat[rows, columns].sum())
    mass["text"] = float(attention.weights[..., : attention.text].sum(-1).mean())
    mass["action"] = float(attention.weights[..., -attention.horizon :].sum(-1).mean())
    return mass


def mass_on(heat: Weights, pixels: Pixels) -> tuple[float, float]:
    """Share of the heat (rows, columns) on marked pixels (H, W) of the mosaic, and their share of the pixels.

    A pixel may be marked in part, 0 to 1. A token's mass counts as spread evenly over its pixels.
    Raises ConfigError when the mask has another size than the mosaic.
    """
    size, (rows, columns) = TOKEN_PIXELS, heat.shape
    if pixels.shape != (rows * size, columns * size):
        wanted = f"{rows * size}x{columns * size}"
        raise ConfigError(f"the mask must have the mosaic's size {wanted}, found {pixels.shape[0]}x{pixels.shape[1]}")
    covered = pixels.reshape(rows, size, columns, size).mean((1, 3))
    return float((heat * covered).sum() / heat.sum()), float(pixels.mean())


def _weights(seen: Any) -> Tensor:
    """Weights (layers, heads, T, keys) of the last velocity over a captured cache."""
    memory: Any = getattr(seen, "joint", seen)
    return torch.stack([memory.layers[layer][0] for layer in sorted(memory.layers)])


def _attention(weights: Tensor, mosaic: Mosaic, horizon: int) -> Attention:
    return Attention(weights.cpu().numpy(), mosaic.height // TOKEN_PIXELS, mosaic.width // TOKEN_PIXELS, horizon)
