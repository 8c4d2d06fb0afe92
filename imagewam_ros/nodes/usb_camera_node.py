# SPDX-License-Identifier: Apache-2.0
"""One USB camera by OpenCV on V4L2, on the same topics as a RealSense's colour stream."""

from collections.abc import Callable
from dataclasses import dataclass, field

from imagewam_ros.cameras.camera import VGA, Profile
from imagewam_ros.cameras.usb import Capture, UsbCamera, UsbConfig
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.nodes import parameters
from imagewam_ros.nodes.camera_node import CameraNode
from imagewam_ros.nodes.spin import run


@dataclass(frozen=True)
class RgbCamera:
    """The colour stream."""

    color_profile: str = str(VGA)


@dataclass(frozen=True)
class UsbCameraNodeConfig:
    """Names as realsense_node's where both have them, video_device and camera_info_url as usb_cam's.

    video_device is best a path under /dev/v4l/by-id, which stays the same after a replug.
    camera_info_url is a calibration by ROS's camera_calibration; without one K is zero.
    """

    camera_name: str = "camera"
    video_device: str = "/dev/video0"
    pixel_format: str = "MJPG"
    camera_info_url: str = ""
    reconnect_timeout: float = 6.0
    silence_s: float = 1.0
    jpeg_quality: int = 0
    rgb_camera: RgbCamera = field(default_factory=RgbCamera)

    def __post_init__(self) -> None:
        if self.reconnect_timeout <= 0 or self.silence_s <= 0:
            raise ConfigError("reconnect_timeout and silence_s must be positive")

    @property
    def device(self) -> UsbConfig:
        """Return what the camera itself needs."""
        profile = Profile.parse(self.rgb_camera.color_profile)
        return UsbConfig(self.video_device, profile, self.pixel_format, self.camera_info_url)


class UsbCameraNode(CameraNode):
    """Publish one USB camera."""

    def __init__(self, capture: Callable[[UsbConfig], Capture] | None = None) -> None:
        """Take how to open a device, by default OpenCV on V4L2."""
        super().__init__("usb_camera")
        self._capture = capture

    def setup(self) -> None:
        """Open the device and start it."""
        config = parameters.declare(self, UsbCameraNodeConfig)
        camera = UsbCamera(config.device, self._capture)
        self.watch(camera, config.camera_name, config.silence_s, config.reconnect_timeout, config.jpeg_quality)


def main() -> int:
    """Run the node."""
    return run(UsbCameraNode)
