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

    Resizing is bilinear with antialiasing on uint8, as in training data; pixels that no tile
    covers are black. Raises ConfigError for a missing camera or another shape or type.
    """
    canvas = torch.zeros(3, mosaic.height, mosaic.width, dtype=torch.uint8, device=device)
    for tile in mosaic.tiles:
        if tile.camera not in images:
            raise ConfigError(f"the mosaic needs it: {unknown_name('camera', tile.camera, images)}")
        pixels = _channels_first(images[tile.camera], tile.camera).to(device)
        if pixels.shape[1:] != (tile.height, tile.width):
            pixels = F.interpolate(pixels[None], (tile.height, tile.width), mode="bilinear", antialias=True)[0]
        canvas[:, tile.row : tile.row + tile.height, tile.column : tile.column + tile.width] = pixels
    return canvas[None].float() / 127.5 - 1


def _channels_first(image: Image, camera: str) -> Tensor:
    if image.ndim != 3 or image.shape[2] != 3 or str(image.dtype) != "uint8":
        raise ConfigError(
            f"camera {camera!r}: expected uint8 RGB [H, W, 3], found {image.dtype} {list(image.shape)}; convert it"
        )
    return torch.from_numpy(image.copy() if not image.flags.writeable else image).permute(2, 0, 1)
