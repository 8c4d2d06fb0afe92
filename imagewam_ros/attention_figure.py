# SPDX-License-Identifier: Apache-2.0
"""Pictures of attention: the camera mosaic beside its heat map, and one panel per layer and head."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imagewam_ros.attention_frames import Frame
from imagewam_ros.core.contract import Mosaic
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.schema import Image
from imagewam_ros.model.capture import TOKEN_PIXELS, Attention, Weights, camera_mass

MAP = "inferno"
MOST_PANELS = 200
VEIL = (0.3, 0.85)
"""How much the heat map hides the grey picture beneath it, where there is none and the most attention."""
OUTLINE = "#35d0ff"


def draw_moments(path: Path, mosaic: Mosaic, moments: Sequence[tuple[Frame, Image, Attention]], title: str) -> None:
    """Draw a row per moment: its mosaic [H, W, 3], its heat map with the objects outlined, the mass per camera.

    Each map has its own scale.
    """
    figure = _figure(12.4, 0.4 + len(moments) * (5.5 * mosaic.height / mosaic.width + 0.4))
    axes: Any = figure.subplots(len(moments), 2, squeeze=False)
    for (left, right), (frame, image, attention) in zip(axes, moments, strict=True):
        left.imshow(image, interpolation="nearest")
        bar = figure.colorbar(_overlay(right, image, attention.heat() * 100), ax=right, pad=0.015, aspect=16)
        bar.set_label("% of all attention\nper image token", fontsize=7)
        bar.ax.tick_params(labelsize=7)
        for mask in frame.objects.values():
            if 0 < (mask > 0.5).sum() < mask.size:
                right.contour(mask, [0.5], colors=[OUTLINE], linewidths=1.1)
        for axis in (left, right):
            _tiles(axis, mosaic)
        mass = camera_mass(attention, mosaic)
        left.set_title(f"after {frame.time_ns / 1e9:.1f} s: {frame.observation.instruction}", fontsize=9, loc="left")
        words = ", ".join(f"{name} {100 * share:.0f} %" for name, share in mass.items())
        right.set_title(f"attention mass: {words}", fontsize=9, loc="left")
    figure.suptitle(title, fontsize=10)
    _save(figure, path)


def draw_heads(
    path: Path, image: Image, attention: Attention, layers: Sequence[int], heads: Sequence[int], title: str
) -> None:
    """Draw a panel per layer (rows) and head (columns) over the mosaic, each with its own scale and image share.

    Raises ConfigError for more panels than anyone can look at.
    """
    if len(layers) * len(heads) > MOST_PANELS:
        raise ConfigError(f"{len(layers)} layers of {len(heads)} heads are too many panels; choose some of them")
    ratio = image.shape[0] / image.shape[1]
    figure = _figure(0.6 + 3.0 * len(heads), 0.6 + len(layers) * (3.0 * ratio + 0.3))
    axes: Any = figure.subplots(len(layers), len(heads), squeeze=False)
    for row, layer in zip(axes, layers, strict=True):
        for axis, head in zip(row, heads, strict=True):
            heat = attention.of([layer], [head]).heat()
            _overlay(axis, image, heat)
            axis.set_title(f"layer {layer}, head {head}: {100 * heat.sum():.0f} % on images", fontsize=8, loc="left")
            axis.set_axis_off()
    figure.suptitle(title, fontsize=10)
    _save(figure, path)


def _overlay(axis: Any, image: Image, heat: Weights) -> Any:
    """Heat of tokens over a grey picture, from 0 to its maximum."""
    pixels = np.kron(heat, np.ones((TOKEN_PIXELS, TOKEN_PIXELS)))
    top = max(float(pixels.max()), 1e-12)
    axis.imshow(image.mean(2), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    veil = VEIL[0] + (VEIL[1] - VEIL[0]) * pixels / top
    axis.imshow(pixels, cmap=MAP, vmin=0, vmax=top, alpha=veil, interpolation="nearest")
    return _scale(top)


def _scale(top: float) -> Any:
    """What a colour bar shows: the map without the veil."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    return ScalarMappable(Normalize(0, top), MAP)


def _tiles(axis: Any, mosaic: Mosaic) -> None:
    """Name the cameras and draw the borders of their tiles."""
    axis.set_xticks([])
    axis.set_yticks([])
    for tile in mosaic.tiles:
        if tile.column:
            axis.axvline(tile.column - 0.5, color="white", linewidth=1.5)
        if tile.row:
            axis.axhline(tile.row - 0.5, color="white", linewidth=1.5)
        place = (tile.column + 2, tile.row + 2)
        box = {"facecolor": "black", "alpha": 0.55, "edgecolor": "none", "pad": 1.5}
        axis.text(*place, tile.camera, color="white", fontsize=7, va="top", bbox=box)


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", dpi=110)


def _save(figure: Any, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(str(path))
