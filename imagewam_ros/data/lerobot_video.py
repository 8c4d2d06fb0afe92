# SPDX-License-Identifier: Apache-2.0
"""Videos of a LeRobot data set: written while frames come in, joined without encoding again, read back.

Frame i of an episode lies at i / fps, exactly. Two frames per group of pictures and no frames that
look ahead: a reader that wants one frame decodes at most two.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np

from imagewam_ros.core.errors import EpisodeError
from imagewam_ros.core.schema import Image

CODEC, PIXEL_FORMAT = "libx264", "yuv420p"
OPTIONS = {"g": "2", "bf": "0", "preset": "veryfast"}


class VideoWriter:
    """Encode uint8 RGB [H, W, 3] frames of one camera and episode."""

    def __init__(self, path: Path, fps: int, crf: int) -> None:
        """crf is H.264's quality: 0 loses nothing but colour resolution, 18 is hard to tell, 51 is worst."""
        self._path, self._fps, self._crf = path, fps, crf
        self._container = av.open(str(path), "w", format="mp4")
        self._stream: Any = None

    def add(self, image: Image) -> None:
        """Encode one frame. Raises EpisodeError when its size is odd or changes."""
        height, width = image.shape[:2]
        if self._stream is None:
            if height % 2 or width % 2:
                raise EpisodeError(f"images of {width}x{height} cannot become video: both sizes must be even")
            self._stream = self._container.add_stream(CODEC, rate=self._fps, options={**OPTIONS, "crf": str(self._crf)})
            self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, PIXEL_FORMAT
            self._stream.thread_count = 1
        if (self._stream.width, self._stream.height) != (width, height):
            raise EpisodeError(
                f"images change from {self._stream.width}x{self._stream.height} to {width}x{height} within an episode"
            )
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        self._container.mux(self._stream.encode(frame))

    def __enter__(self) -> "VideoWriter":
        """Return self."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the file."""
        if self._stream is not None and kind is None:
            self._container.mux(self._stream.encode())
        self._container.close()


def join(parts: Sequence[tuple[Path, int]], path: Path, fps: int) -> None:
    """Put videos (path, frames) of one camera one behind the other, packet by packet."""
    with av.open(str(path), "w", format="mp4") as target:
        stream: Any = None
        frames = 0
        for part, count in parts:
            with av.open(str(part)) as source:
                video: Any = source.streams.video[0]
                stream = stream or target.add_stream_from_template(video)
                ticks = int(1 / (Fraction(fps) * video.time_base))
                packet: Any
                for packet in source.demux(video):
                    if packet.dts is None:
                        continue
                    packet.pts += frames * ticks
                    packet.dts += frames * ticks
                    packet.stream = stream
                    target.mux(packet)
            frames += count


def read_video(path: Path, start_s: float, frames: int, fps: float) -> Iterator[Image]:
    """Yield `frames` images uint8 RGB [H, W, 3] from `start_s` on. Raises EpisodeError when there are fewer."""
    found = 0
    try:
        with av.open(str(path)) as source:
            video: Any = source.streams.video[0]
            frame: Any
            video.thread_type = "AUTO"
            source.seek(int(start_s / video.time_base), stream=video, backward=True)
            for frame in source.decode(video):
                if frame.time < start_s - 0.5 / fps:
                    continue
                yield frame.to_ndarray(format="rgb24")
                found += 1
                if found == frames:
                    return
    except (av.FFmpegError, IndexError) as error:
        raise EpisodeError(f"{path} cannot be read: {error}") from error
    raise EpisodeError(f"{path} holds {found} of {frames} frames from {start_s:.3f} s on")


def video_information(path: Path) -> dict[str, Any]:
    """What meta/info.json says of a camera's video."""
    with av.open(str(path)) as source:
        video: Any = source.streams.video[0]
        return {
            "video.height": video.height,
            "video.width": video.width,
            "video.codec": video.codec_context.codec.canonical_name,
            "video.pix_fmt": video.pix_fmt,
            "video.is_depth_map": False,
            "video.fps": round(float(video.average_rate)),
            "video.channels": 3,
            "has_audio": False,
        }
