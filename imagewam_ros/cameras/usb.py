# SPDX-License-Identifier: Apache-2.0
"""A USB camera by OpenCV on V4L2, and its calibration file.

The driver stamps buffers in the monotonic clock; that stamp, moved to Unix time, is the frame's.
OpenCV does not pass the driver's frame counter on, so lost frames are counted from the stamps. A
read blocks until the driver gives a frame or OpenCV's own timeout (ten seconds) ends it.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlparse

import numpy as np

from imagewam_ros.cameras.camera import COLOR, VGA, Frame, Intrinsics, Profile
from imagewam_ros.core.config import read_yaml
from imagewam_ros.core.errors import CameraError, ConfigError

PLAUSIBLE_DELAY_NS = 2_000_000_000
"""A driver's stamp further than this from now is of another clock; the arrival counts instead."""


class Capture(Protocol):
    """The part of cv2.VideoCapture that is used."""

    def isOpened(self) -> bool:  # noqa: N802
        """Tell whether the device was opened."""

    def read(self) -> tuple[bool, Any]:
        """Return success and a BGR image [H, W, 3]."""

    def get(self, propId: int) -> float:
        """Return a property."""

    def release(self) -> None:
        """Close the device."""


@dataclass(frozen=True)
class UsbConfig:
    """device is a path such as /dev/v4l/by-id/..., pixel_format a V4L2 code of four letters."""

    device: str = "/dev/video0"
    color: Profile = VGA
    pixel_format: str = "MJPG"
    calibration: str = ""

    def __post_init__(self) -> None:
        if len(self.pixel_format) != 4:
            raise ConfigError(f"pixel_format {self.pixel_format!r} is not a code of four letters such as MJPG or YUYV")


class UsbCamera:
    """One V4L2 device as a `Camera`."""

    def __init__(
        self,
        config: UsbConfig,
        capture: Callable[[UsbConfig], Capture] | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
        driver_clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Take how to open a device, by default OpenCV on V4L2, and the two clocks."""
        self._config, self._open = config, capture or open_v4l2
        self._clock_ns, self._driver_clock_ns = clock_ns, driver_clock_ns
        self._capture: Capture | None = None
        self._stamp_ns = self._number = 0

    def open(self) -> dict[str, Intrinsics]:
        """Open the device in the profile asked for. Raises CameraError when it gives another one."""
        self._capture = self._open(self._config)
        self._stamp_ns = self._number = 0
        wanted, found = self._config.color, self._profile(self._capture)
        if (found.width, found.height) != (wanted.width, wanted.height) or found.rate_hz < wanted.rate_hz:
            self.close()
            raise CameraError(
                f"{self._config.device} gives {found} where {wanted} in {self._config.pixel_format} was asked for; "
                f"see v4l2-ctl --list-formats-ext -d {self._config.device}"
            )
        plain = Intrinsics(wanted.width, wanted.height)
        return {COLOR: read_calibration(self._config.calibration, plain) if self._config.calibration else plain}

    def read(self, timeout_s: float) -> Frame | None:
        """Return the next frame as RGB, None when the driver gives none."""
        import cv2

        if self._capture is None:
            return None
        arrived, image = self._capture.read()
        if not arrived:
            return None
        stamp_ns = self._stamp(self._capture.get(cv2.CAP_PROP_POS_MSEC))
        periods = round((stamp_ns - self._stamp_ns) / 1e9 * self._config.color.rate_hz)
        self._number += max(periods, 1) if self._stamp_ns else 1
        self._stamp_ns = stamp_ns
        return Frame(COLOR, self._number, stamp_ns, np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8))

    def close(self) -> None:
        """Release the device."""
        if self._capture is not None:
            self._capture.release()
        self._capture = None

    def _stamp(self, driver_ms: float) -> int:
        now_ns = self._driver_clock_ns()
        delay_ns = now_ns - round(driver_ms * 1e6)
        return self._clock_ns() - (delay_ns if 0 <= delay_ns < PLAUSIBLE_DELAY_NS else 0)

    def _profile(self, capture: Capture) -> Profile:
        import cv2

        size = (capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        return Profile(*(round(value) for value in (*size, capture.get(cv2.CAP_PROP_FPS))))


def open_v4l2(config: UsbConfig) -> Capture:
    """Open a device, or a video file, with OpenCV. Raises CameraError with the remedy."""
    import cv2

    path = Path(config.device)
    if not path.exists():
        found = ", ".join(str(p) for p in sorted(Path("/dev").glob("video*"))) or "none"
        raise CameraError(f"no camera at {path}; devices here: {found}. See ls -l /dev/v4l/by-id")
    if not os.access(path, os.R_OK | os.W_OK):
        raise CameraError(f"{path} may not be opened by this user; run sudo usermod -aG video $USER and log in again")
    if not path.is_char_device():
        return _opened(cv2.VideoCapture(str(path)), path)
    capture = cv2.VideoCapture(str(path), cv2.CAP_V4L2)
    capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*config.pixel_format))
    capture.set(cv2.CAP_PROP_FRAME_WIDTH, config.color.width)
    capture.set(cv2.CAP_PROP_FRAME_HEIGHT, config.color.height)
    capture.set(cv2.CAP_PROP_FPS, config.color.rate_hz)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    return _opened(capture, path)


def _opened(capture: Any, path: Path) -> Capture:
    if not capture.isOpened():
        raise CameraError(
            f"{path} is not a camera that OpenCV can open, or another program holds it (see fuser {path})"
        )
    opened: Capture = capture
    return opened


def read_calibration(url: str, plain: Intrinsics) -> Intrinsics:
    """Read a calibration in the YAML of ROS's camera_calibration from a path or a file:// URL.

    Raises ConfigError when it is incomplete or of another image size than `plain`.
    """
    data = read_yaml(Path(unquote(urlparse(url).path)))
    try:
        size = (int(data["image_width"]), int(data["image_height"]))
        matrix = [float(value) for value in data["camera_matrix"]["data"]]
        coefficients = tuple(float(value) for value in data["distortion_coefficients"]["data"])
        model = str(data["distortion_model"])
        fx, cx, fy, cy = (matrix[i] for i in (0, 2, 4, 5))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ConfigError(f"{url} is not a calibration of ROS's camera_calibration: {error!r}") from error
    if size != (plain.width, plain.height):
        raise ConfigError(
            f"{url} is for {size[0]}x{size[1]}, the camera gives {plain.width}x{plain.height}; calibrate again"
        )
    return Intrinsics(*size, fx, fy, cx, cy, model, coefficients)
