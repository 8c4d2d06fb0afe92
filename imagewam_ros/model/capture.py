# SPDX-License-Identifier: Apache-2.0
"""What the action tokens attend to: weights per layer and head, a heat map over the camera mosaic.

Off the hot path: one extra velocity over a cache that exists already, with the softmax written
out. Attention shows where values were read from; it does not prove what caused the action.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imagewam_ros.core.contract import Mosaic
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.model.network import ImageWamNetwork
from imagewam_ros.model.protocol import PrefixCache

TOKEN_PIXELS = 16
"""Side of an image token in mosaic pixels, in all three backbones."""

Weights = NDArray[np.float32]


@dataclass(frozen=True)
class Attention:
    """Weights (layers, heads, T, keys) of one velocity; keys are text, image (rows * columns), actions."""

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


@torch.no_grad()
def capture(
    network: ImageWamNetwork, cache: PrefixCache, actions: Tensor, timestep: float, mosaic: Mosaic
) -> Attention:
    """Attention of actions (1, T, D) at timestep in 0..1000 over a prefix of one observation of `mosaic`."""
    seen = cache.captured()
    time = torch.tensor([timestep], device=actions.device)
    network.velocity(actions, time, seen)
    memory: Any = getattr(seen, "joint", seen)
    layers = [memory.layers[layer][0] for layer in sorted(memory.layers)]
    weights = torch.stack(layers).cpu().numpy()
    return Attention(weights, mosaic.height // TOKEN_PIXELS, mosaic.width // TOKEN_PIXELS, actions.shape[1])


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


def mass_on(attention: Attention, pixels: NDArray[np.bool_]) -> tuple[float, float]:
    """Share of the image attention on marked pixels (H, W) of the mosaic, and their share of the pixels.

    Raises ConfigError when the mask has another size than the mosaic.
    """
    size = TOKEN_PIXELS
    if pixels.shape != (attention.rows * size, attention.columns * size):
        wanted = f"{attention.rows * size}x{attention.columns * size}"
        raise ConfigError(f"the mask must have the mosaic's size {wanted}, found {pixels.shape[0]}x{pixels.shape[1]}")
    covered = pixels.reshape(attention.rows, size, attention.columns, size).mean((1, 3))
    heat = attention.heat()
    return float((heat * covered).sum() / heat.sum()), float(pixels.mean())


def overlay(attention: Attention, pixels: Tensor) -> NDArray[np.uint8]:
    """Heat map over mosaic pixels (1, 3, H, W) in [-1, 1] as uint8 [H, W, 3]; red is the most attended token."""
    heat = attention.heat()
    strength = np.kron(heat / max(float(heat.max()), 1e-12), np.ones((TOKEN_PIXELS, TOKEN_PIXELS)))[..., None]
    picture = ((pixels[0].permute(1, 2, 0).float().cpu().numpy() + 1) * 127.5).clip(0, 255)
    grey = picture.mean(2, keepdims=True).repeat(3, 2)
    mixed = grey * (1 - 0.7 * strength) + np.array([255.0, 40.0, 0.0]) * 0.7 * strength
    result: NDArray[np.uint8] = mixed.astype(np.uint8)
    return result
