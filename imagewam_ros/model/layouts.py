# SPDX-License-Identifier: Apache-2.0
"""Camera mosaics of the released models. Source: docs/model.md."""

from collections.abc import Sequence

from imagewam_ros.core.contract import Mosaic, Tile
from imagewam_ros.core.errors import ConfigError, unknown_name

LAYOUTS = {
    "compact_288x256": (288, 256, ((0, 0, 192, 256), (192, 0, 96, 128), (192, 128, 96, 128))),
    "legacy_384x320": (384, 320, ((0, 0, 256, 320), (256, 0, 128, 160), (256, 160, 128, 160))),
    "libero_224x448": (224, 448, ((0, 0, 224, 224), (0, 224, 224, 224))),
}
"""Height, width, and one (row, column, height, width) per camera: head first, then left and right wrist."""


def mosaic(layout: str, cameras: Sequence[str]) -> Mosaic:
    """Return the mosaic of a layout for cameras in its order. Raises ConfigError."""
    if layout not in LAYOUTS:
        raise ConfigError(unknown_name("layout", layout, LAYOUTS))
    height, width, places = LAYOUTS[layout]
    if len(cameras) != len(places):
        raise ConfigError(
            f"layout {layout} has {len(places)} tiles, {len(cameras)} cameras given: {', '.join(cameras)}"
        )
    tiles = (Tile(camera, *place) for camera, place in zip(cameras, places, strict=True))
    return Mosaic(height, width, tuple(tiles))
