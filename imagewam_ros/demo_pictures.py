# SPDX-License-Identifier: Apache-2.0
"""What the demo shows people: a video of all cameras, a plot of command against measured joints."""

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont

from imagewam_ros.core.schema import Image
from imagewam_ros.demo_record import EpisodeRecord

HEIGHT = 480
FRONT_WIDTH = 640
CAPTION = 32
LEAST_SPAN = 0.02
"""Smallest range of a plot's axis, rad or m: a joint at rest shall look at rest."""


def tiles(front: Image, cameras: Mapping[str, Image], caption: str) -> Image:
    """Return [H, W, 3]: the front view, what the policy sees in a column beside it, a caption below."""
    side = HEIGHT // max(len(cameras), 1)
    canvas = Picture.new("RGB", (FRONT_WIDTH + side, HEIGHT + CAPTION), "black")
    canvas.paste(Picture.fromarray(front).resize((FRONT_WIDTH, HEIGHT), Picture.Resampling.BILINEAR), (0, 0))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(14)
    for row, (name, image) in enumerate(cameras.items()):
        tile = Picture.fromarray(image).resize((side, side), Picture.Resampling.BICUBIC)
        canvas.paste(tile, (FRONT_WIDTH, row * side))
        draw.text((FRONT_WIDTH + 6, row * side + 4), name, fill="white", font=font, stroke_width=2, stroke_fill="black")
    draw.text((8, HEIGHT + 7), caption, fill="white", font=font)
    return np.asarray(canvas)


class Video:
    """An H.264 file of equally large frames. Close it, or the file cannot be played."""

    def __init__(self, path: Path, rate_hz: float) -> None:
        self._container = av.open(str(path), "w")
        self._stream = self._container.add_stream("libx264", rate=Fraction(rate_hz).limit_denominator(1000))
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"crf": "23", "preset": "veryfast"}
        self._started = False

    def add(self, image: Image) -> None:
        """Append one frame [H, W, 3], both sizes even."""
        if not self._started:
            self._stream.height, self._stream.width = image.shape[:2]
            self._started = True
        for packet in self._stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")):
            self._container.mux(packet)

    def close(self) -> None:
        """Write what is left."""
        if self._started:
            for packet in self._stream.encode():
                self._container.mux(packet)
        self._container.close()


def plot(record: EpisodeRecord, path: Path) -> None:
    """Draw command against measured position of every joint over one episode into a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = 2
    rows = -(-len(record.joint_names) // columns)
    figure = Figure(figsize=(12, 1.5 * rows + 0.6), layout="constrained")
    axes: Any = figure.subplots(rows, columns, sharex=True, squeeze=False)
    start = record.sent.nominal_ns[0] if len(record.sent.nominal_ns) else 0
    for joint, name in enumerate(record.joint_names):
        axis = axes[joint % rows, joint // rows]
        _draw_joint(axis, record, joint, int(start))
        axis.set_title(name, fontsize=8, loc="left")
    axes[0, 0].legend(fontsize=7, loc="upper right")
    figure.supxlabel("s since activation", fontsize=9)
    figure.supylabel("position, rad (grippers m)", fontsize=9)
    FigureCanvasAgg(figure).print_png(str(path))


def _draw_joint(axis: Any, record: EpisodeRecord, joint: int, start_ns: int) -> None:
    measured, sent = record.measured, record.sent
    lines = (
        ((measured.stamp_ns - start_ns) / 1e9, measured.position[:, joint], "measured", "tab:orange"),
        ((sent.nominal_ns - start_ns) / 1e9, sent.position[:, joint], "command", "tab:blue"),
    )
    for seconds, position, label, colour in lines:
        axis.plot(seconds, position, label=label, color=colour, linewidth=1)
    low, high = axis.get_ylim()
    spare = max(LEAST_SPAN - (high - low), 0.0) / 2
    axis.set_ylim(low - spare, high + spare)
    axis.ticklabel_format(useOffset=False)
    axis.tick_params(labelsize=7)
