# SPDX-License-Identifier: Apache-2.0
"""What every camera gives, and the one loop around it: open, count, notice silence, open again."""

from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from imagewam_ros.core.errors import CameraError, ConfigError

COLOR, DEPTH = "color", "depth"


class Profile(NamedTuple):
    """Size in pixels and nominal rate of one stream."""

    width: int
    height: int
    rate_hz: int

    @classmethod
    def parse(cls, text: str) -> "Profile":
        """Read `640x480x30` or `640,480,30`, the two spellings of realsense2_camera. Raises ConfigError."""
        parts = text.replace(",", "x").split("x")
        if len(parts) != 3 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
            raise ConfigError(f"profile {text!r} is not WIDTHxHEIGHTxRATE; write for example 640x480x30")
        return cls(*(int(part) for part in parts))

    def __str__(self) -> str:
        return f"{self.width}x{self.height}x{self.rate_hz}"


VGA = Profile(640, 480, 30)


@dataclass(frozen=True)
class Intrinsics:
    """Pinhole model of one stream, in pixels; an uncalibrated camera has all lengths 0.

    distortion_model and coefficients are those of sensor_msgs/CameraInfo.
    """

    width: int
    height: int
    fx: float = 0.0
    fy: float = 0.0
    cx: float = 0.0
    cy: float = 0.0
    distortion_model: str = "plumb_bob"
    coefficients: tuple[float, ...] = (0.0,) * 5


class Frame(NamedTuple):
    """One image: uint8 RGB [H, W, 3] of `color`, uint16 [H, W] of `depth` in mm (REP 118).

    number counts what the camera made, so gaps are lost frames; stamp_ns is the exposure in the
    host's clock (Unix time).
    """

    stream: str
    number: int
    stamp_ns: int
    image: NDArray[np.uint8] | NDArray[np.uint16]


class Camera(Protocol):
    """A device that makes frames. Every method may raise CameraError."""

    def open(self) -> dict[str, Intrinsics]:
        """Connect and start; returns each stream's intrinsics."""

    def read(self, timeout_s: float) -> Frame | None:
        """Return the next frame, or None when none came in time."""

    def close(self) -> None:
        """Stop and release; allowed at any time, twice too."""


@dataclass(frozen=True)
class Status:
    """How a camera has fared since it was opened first."""

    connected: bool = False
    frames: int = 0
    dropped: int = 0
    reconnects: int = 0
    complaint: str = ""


class CameraLoop:
    """Keeps one camera delivering: after silence or a fault it is closed and opened again.

    Times are of a steady clock, in ns. Lost frames are counted by the gaps in their numbers.
    """

    def __init__(self, camera: Camera, silence_s: float, retry_s: float) -> None:
        self.intrinsics: dict[str, Intrinsics] = {}
        self.status = Status()
        self._camera = camera
        self._silence_ns, self._retry_ns = round(silence_s * 1e9), round(retry_s * 1e9)
        self._next_try_ns = 0
        self._latest_ns: dict[str, int] = {}
        self._numbers: dict[str, int] = {}

    def open(self, now_ns: int) -> None:
        """Open the camera for the first time. Raises CameraError when that fails."""
        self.intrinsics = self._camera.open()
        self._latest_ns, self._numbers = dict.fromkeys(self.intrinsics, now_ns), {}
        self.status = replace(self.status, connected=True, complaint="")

    def step(self, now_ns: int, timeout_s: float) -> Frame | None:
        """Return the next frame, or None; while the camera is lost, try to open it every `retry_s`."""
        try:
            if not self.status.connected:
                self._reopen(now_ns)
                return None
            frame = self._camera.read(timeout_s)
        except CameraError as error:
            self._lose(now_ns, str(error))
            return None
        if frame is not None:
            self._count(frame, now_ns)
        for stream, latest_ns in self._latest_ns.items():
            if now_ns - latest_ns > self._silence_ns:
                self._lose(now_ns, f"no {stream} frame for {self._silence_ns / 1e9:.1f} s; is the cable in?")
                break
        return frame

    def close(self) -> None:
        """Stop and release the camera."""
        self._camera.close()
        self.status = replace(self.status, connected=False)

    def _reopen(self, now_ns: int) -> None:
        if now_ns < self._next_try_ns:
            return
        self.open(now_ns)
        self.status = replace(self.status, reconnects=self.status.reconnects + 1)

    def _lose(self, now_ns: int, complaint: str) -> None:
        self._camera.close()
        self._next_try_ns = now_ns + self._retry_ns
        self.status = replace(self.status, connected=False, complaint=complaint)

    def _count(self, frame: Frame, now_ns: int) -> None:
        expected = self._numbers.get(frame.stream, frame.number - 1) + 1
        lost = max(frame.number - expected, 0)
        self._numbers[frame.stream] = frame.number
        self._latest_ns[frame.stream] = now_ns
        self.status = replace(self.status, frames=self.status.frames + 1, dropped=self.status.dropped + lost)
