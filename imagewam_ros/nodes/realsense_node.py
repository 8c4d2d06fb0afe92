# SPDX-License-Identifier: Apache-2.0
"""One RealSense camera where realsense2_camera is not installed: its parameters, topics and camera_info."""

from dataclasses import dataclass, field
from typing import Any

from imagewam_ros.cameras.camera import VGA, Profile
from imagewam_ros.cameras.realsense import RealSense, RealSenseConfig
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.nodes import parameters
from imagewam_ros.nodes.camera_node import CameraNode
from imagewam_ros.nodes.spin import run


@dataclass(frozen=True)
class RgbCamera:
    """The colour sensor; exposure in us and gain apply with auto exposure off, 0 leaves the device's value."""

    color_profile: str = str(VGA)
    enable_auto_exposure: bool = True
    exposure: int = 0
    gain: int = 0


@dataclass(frozen=True)
class DepthModule:
    """The depth sensor."""

    depth_profile: str = str(VGA)


@dataclass(frozen=True)
class RealSenseNodeConfig:
    """Names are realsense2_camera's; serial_no may start with _ so that YAML takes it as text.

    camera_name heads topics and frames, for example head_camera/color/image_raw. reconnect_timeout
    is the time in s between two tries. Ours: silence_s after which a camera counts as lost, and
    jpeg_quality of color/image_raw/compressed, 0 for none.
    """

    camera_name: str = "camera"
    serial_no: str = ""
    enable_color: bool = True
    enable_depth: bool = False
    reconnect_timeout: float = 6.0
    silence_s: float = 1.0
    jpeg_quality: int = 0
    rgb_camera: RgbCamera = field(default_factory=RgbCamera)
    depth_module: DepthModule = field(default_factory=DepthModule)

    def __post_init__(self) -> None:
        if self.reconnect_timeout <= 0 or self.silence_s <= 0:
            raise ConfigError("reconnect_timeout and silence_s must be positive")

    @property
    def device(self) -> RealSenseConfig:
        """Return what the camera itself needs."""
        return RealSenseConfig(
            serial=self.serial_no.removeprefix("_"),
            color=Profile.parse(self.rgb_camera.color_profile) if self.enable_color else None,
            depth=Profile.parse(self.depth_module.depth_profile) if self.enable_depth else None,
            auto_exposure=self.rgb_camera.enable_auto_exposure,
            exposure_us=self.rgb_camera.exposure,
            gain=self.rgb_camera.gain,
        )


class RealSenseNode(CameraNode):
    """Publish one RealSense."""

    def __init__(self, context: Any = None) -> None:
        """Take a librealsense `context`, by default a new one."""
        super().__init__("realsense")
        self._device_context = context

    def setup(self) -> None:
        """Find the device by its serial number and start its streams."""
        config = parameters.declare(self, RealSenseNodeConfig)
        camera = RealSense(config.device, self._device_context)
        self.watch(camera, config.camera_name, config.silence_s, config.reconnect_timeout, config.jpeg_quality)


def main() -> int:
    """Run the node."""
    return run(RealSenseNode)
