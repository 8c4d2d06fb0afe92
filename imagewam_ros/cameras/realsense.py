# SPDX-License-Identifier: Apache-2.0
"""A RealSense camera by pyrealsense2: colour and depth of one device, chosen by its serial number.

Stamps are librealsense's, in Unix time. Where the device only counts its own clock, that clock is
tied to the host's at the first frame, as realsense2_camera does.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imagewam_ros.cameras.camera import COLOR, DEPTH, VGA, Frame, Intrinsics, Profile
from imagewam_ros.core.errors import CameraError, ConfigError

QUEUE = 4
"""Frames that wait for the reader; older ones are dropped and counted."""

MILLIMETRE = 0.001
INTEL = "8086"
INSTALL = "pip install pyrealsense2 and, on Debian or Ubuntu, apt install libusb-1.0-0"


@dataclass(frozen=True)
class RealSenseConfig:
    """Which device and what it streams. An empty serial takes the only device there is.

    exposure_us and gain of the colour sensor apply with auto_exposure off; 0 leaves the device's value.
    """

    serial: str = ""
    color: Profile | None = VGA
    depth: Profile | None = None
    auto_exposure: bool = True
    exposure_us: int = 0
    gain: int = 0

    def __post_init__(self) -> None:
        if self.color is None and self.depth is None:
            raise ConfigError("color and depth are both off; enable one of them")


class RealSense:
    """One device as a `Camera`."""

    def __init__(
        self,
        config: RealSenseConfig,
        context: Any = None,
        clock_ns: Callable[[], int] = time.time_ns,
        usb: Path = Path("/sys/bus/usb/devices"),
        nodes: Path = Path("/dev/bus/usb"),
    ) -> None:
        """Take a librealsense `context`, by default a new one; usb and nodes are where Linux lists devices."""
        self._rs = import_realsense()
        self._config, self._clock_ns, self._usb, self._nodes = config, clock_ns, usb, nodes
        self._context = context if context is not None else self._rs.context()
        self._sensors: list[Any] = []
        self._queue: Any = None
        self._offset_ns: int | None = None
        self._depth_scale = MILLIMETRE

    def open(self) -> dict[str, Intrinsics]:
        """Find the device and start its streams. Raises CameraError with the reason and the remedy."""
        device = self._find()
        self._queue, self._offset_ns = self._rs.frame_queue(QUEUE), None
        try:
            return self._start(device)
        except RuntimeError as error:
            self.close()
            raise CameraError(
                f"RealSense {_serial(self._rs, device)} does not start: {error}. Close other programs that use it "
                "(realsense-viewer, realsense2_camera); if access is denied, install librealsense's udev rules"
            ) from error

    def read(self, timeout_s: float) -> Frame | None:
        """Return the next frame of any stream."""
        arrived, frame = self._queue.try_wait_for_frame(max(round(timeout_s * 1000), 1))
        if not arrived:
            return None
        depth = frame.get_profile().stream_type() == self._rs.stream.depth
        image = np.array(frame.get_data())  # a copy: librealsense takes its buffer back
        if depth and abs(self._depth_scale - MILLIMETRE) > 1e-9:
            image = np.rint(image * (self._depth_scale / MILLIMETRE)).astype(np.uint16)
        return Frame(DEPTH if depth else COLOR, frame.get_frame_number(), self._stamp_ns(frame), image)

    def close(self) -> None:
        """Stop what runs; an unplugged device may refuse, which is the same to us."""
        for sensor in self._sensors:
            for step in (sensor.stop, sensor.close):
                with contextlib.suppress(RuntimeError):
                    step()
        self._sensors = []

    def _find(self) -> Any:
        serial, found = self._config.serial, list(self._context.query_devices())
        serials = [_serial(self._rs, device) for device in found]
        if serial in serials:
            return found[serials.index(serial)]
        if not serial and len(found) == 1:
            return found[0]
        if not serial and found:
            raise CameraError(f"several RealSense cameras: {', '.join(serials)}; set serial_no to one of them")
        asked = f"no RealSense camera with serial {serial!r}" if serial else "no RealSense camera"
        blocked = list(_forbidden(self._usb, self._nodes))
        if blocked and not found:
            raise CameraError(
                f"{asked} can be opened, but {', '.join(blocked)} is on the USB bus: this user may not access it. "
                "Install librealsense's udev rules (99-realsense-libusb.rules) and plug it in again; "
                "in a container, pass /dev/bus/usb"
            )
        raise CameraError(f"{asked}; found: {', '.join(serials) or 'none'}. Check serial_no, cable and USB 3 port")

    def _start(self, device: Any) -> dict[str, Intrinsics]:
        intrinsics = {}
        kinds = ((COLOR, self._config.color, "rgb8"), (DEPTH, self._config.depth, "z16"))
        for sensor in device.query_sensors():
            wanted = [
                self._choose(sensor, name, profile, pixel_format)
                for name, profile, pixel_format in kinds
                if profile is not None and name not in intrinsics and self._offers(sensor, name)
            ]
            if not wanted:
                continue
            intrinsics.update({stream.stream_type().name: _intrinsics(self._rs, stream) for stream in wanted})
            self._tune(sensor)
            sensor.open(wanted)
            self._sensors.append(sensor)
            sensor.start(self._queue)
        missing = [name for name, profile, _ in kinds if profile is not None and name not in intrinsics]
        if missing:
            self.close()
            raise CameraError(
                f"RealSense {_serial(self._rs, device)} has no {' and no '.join(missing)} stream; disable it"
            )
        return intrinsics

    def _offers(self, sensor: Any, stream: str) -> bool:
        return any(profile.stream_type().name == stream for profile in sensor.get_stream_profiles())

    def _choose(self, sensor: Any, stream: str, wanted: Profile, pixel_format: str) -> Any:
        offered = {
            Profile(video.width(), video.height(), video.fps()): profile
            for profile in sensor.get_stream_profiles()
            if profile.stream_type().name == stream and profile.format().name == pixel_format
            for video in [profile.as_video_stream_profile()]
        }
        if wanted not in offered:
            listed = ", ".join(str(profile) for profile in sorted(offered))
            raise CameraError(f"{stream} profile {wanted} is not offered; this device and USB port offer: {listed}")
        return offered[wanted]

    def _tune(self, sensor: Any) -> None:
        option = self._rs.option
        if sensor.supports(option.depth_units):
            self._depth_scale = sensor.get_option(option.depth_units)
        if not self._offers(sensor, COLOR) or not sensor.supports(option.enable_auto_exposure):
            return
        sensor.set_option(option.enable_auto_exposure, float(self._config.auto_exposure))
        if not self._config.auto_exposure:
            for name, value in ((option.exposure, self._config.exposure_us), (option.gain, self._config.gain)):
                if value:
                    sensor.set_option(name, value)

    def _stamp_ns(self, frame: Any) -> int:
        stamp_ns: int = round(frame.get_timestamp() * 1000) * 1000  # a double of ms holds microseconds, no less
        if frame.get_frame_timestamp_domain() != self._rs.timestamp_domain.hardware_clock:
            return stamp_ns
        if self._offset_ns is None:
            self._offset_ns = self._clock_ns() - stamp_ns
        return stamp_ns + self._offset_ns


def import_realsense() -> Any:
    """Import pyrealsense2. Raises CameraError with the install line."""
    try:
        import pyrealsense2
    except ImportError as error:
        raise CameraError(f"pyrealsense2 cannot be imported ({error}); {INSTALL}") from error
    return pyrealsense2


def _serial(rs: Any, device: Any) -> str:
    return str(device.get_info(rs.camera_info.serial_number))


def _intrinsics(rs: Any, stream: Any) -> Intrinsics:
    """Convert as realsense2_camera does: four coefficients of a fisheye, else five of plumb_bob."""
    found = stream.as_video_stream_profile().get_intrinsics()
    fisheye = found.model == rs.distortion.kannala_brandt4
    return Intrinsics(
        found.width,
        found.height,
        found.fx,
        found.fy,
        found.ppx,
        found.ppy,
        "equidistant" if fisheye else "plumb_bob",
        tuple(found.coeffs[: 4 if fisheye else 5]),
    )


def _forbidden(usb: Path, nodes: Path) -> Iterator[str]:
    """RealSense devices that Linux lists and that this user may not open."""
    for folder in _directories(usb):
        vendor, product, bus, number = (_text(folder / name) for name in ("idVendor", "product", "busnum", "devnum"))
        if vendor == INTEL and "RealSense" in product:
            node = nodes / bus.zfill(3) / number.zfill(3)
            if not os.access(node, os.R_OK | os.W_OK):
                yield f"{product} ({node})"


def _directories(folder: Path) -> Iterable[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else ()


def _text(path: Path) -> str:
    return path.read_text(encoding="utf8").strip() if path.is_file() else ""
