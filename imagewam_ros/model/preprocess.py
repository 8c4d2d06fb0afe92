# SPDX-License-Identifier: Apache-2.0
"""Camera images to the one tiled image that the autoencoder sees."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from imagewam_ros.core.contract import Mosaic
from imagewam_ros.core.errors import ConfigError, unknown_name
from imagewam_ros.core.schema import Image


def mosaic_pixels(images: Mapping[str, Image], mosaic: Mosaic, device: torch.device | str = "cpu") -> Tensor:
    """Tile uint8 RGB [H, W, 3] images by camera into (1, 3, H, W) float32 in [-1, 1].

    Resizing is bilinear with antialiasing, on the device, as in training data; pixels that no tile
    covers are black. Raises ConfigError for a missing camera or another shape or type.
    """
    canvas = torch.zeros(3, mosaic.height, mosaic.width, dtype=torch.uint8, device=device)
    for tile in mosaic.tiles:
        if tile.camera not in images:
            raise ConfigError(f"the mosaic needs it: {unknown_name('camera', tile.camera, images)}")
        pixels = _channels_first(images[tile.camera], tile.camera).to(device)
        if pixels.shape[1:] != (tile.height, tile.width):
            resize = resized if pixels.device.type == "cpu" else resized_in_floats
            pixels = resize(pixels, tile.height, tile.width)
        canvas[:, tile.row : tile.row + tile.height, tile.column : tile.column + tile.width] = pixels
    return canvas[None].float() / 127.5 - 1


def resized(pixels: Tensor, height: int, width: int) -> Tensor:
    """Resize uint8 pixels (3, H, W) as training data was; torch does this on CPUs only."""
    return F.interpolate(pixels[None], (height, width), mode="bilinear", antialias=True)[0]


def resized_in_floats(pixels: Tensor, height: int, width: int) -> Tensor:
    """The same where bytes cannot be antialiased (CUDA); rounded once, so at most one level away."""
    return resized(pixels.float(), height, width).round().clamp(0, 255).to(torch.uint8)


def _channels_first(image: Image, camera: str) -> Tensor:
    if image.ndim != 3 or image.shape[2] != 3 or str(image.dtype) != "uint8":
        raise ConfigError(
            f"camera {camera!r}: expected uint8 RGB [H, W, 3], found {image.dtype} {list(image.shape)}; convert it"
        )
    return torch.from_numpy(image.copy() if not image.flags.writeable else image).permute(2, 0, 1)
