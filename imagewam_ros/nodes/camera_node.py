# SPDX-License-Identifier: Apache-2.0
"""What the camera nodes share: frames of one camera on realsense2_camera's topics, read on a thread."""

import threading
from typing import Any

from sensor_msgs.msg import CameraInfo, CompressedImage
from sensor_msgs.msg import Image as ImageMsg

from imagewam_ros.cameras.camera import COLOR, DEPTH, Camera, CameraLoop, Frame
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.nodes import messages, qos, topics
from imagewam_ros.nodes.diagnostics import OK
from imagewam_ros.nodes.lifecycle import ManagedNode

WAIT_S = 0.1
"""Longest wait for a frame before looking whether to go on."""

PAUSE_S = 0.01
"""After none came: a device that fails at once must not fill a core."""

IMAGES = {COLOR: "color/image_raw", DEPTH: "depth/image_rect_raw"}


class CameraNode(ManagedNode):
    """Publish one camera from configure to cleanup: frames while active, complaints always."""

    def watch(self, camera: Camera, name: str, silence_s: float, retry_s: float, jpeg_quality: int) -> None:
        """Open `camera`, create the topics under `name`, and begin to read. Raises CameraError."""
        if not name or not 0 <= jpeg_quality <= 100:
            raise ConfigError(
                f"camera_name must not be empty and jpeg_quality 0 to 100, found {name!r}, {jpeg_quality}"
            )
        self._loop = CameraLoop(camera, silence_s, retry_s)
        self.cleanup.callback(self._loop.close)
        self._loop.open(self.steady.now().nanoseconds)
        self._quality = jpeg_quality
        self._outputs = {stream: self._create(name, stream) for stream in self._loop.intrinsics}
        self._stopped = threading.Event()
        thread = threading.Thread(target=self._read, name="frames", daemon=True)
        self.cleanup.callback(thread.join)
        self.cleanup.callback(self._stopped.set)
        thread.start()

    def _create(self, name: str, stream: str) -> tuple[str, Any, Any, Any]:
        topic = f"{name}/{IMAGES[stream]}"
        jpeg = stream == COLOR and self._quality
        return (
            f"{name}_{stream}_optical_frame",
            self.publisher(ImageMsg, topic, qos.IMAGES_OUT),
            self.publisher(CameraInfo, topics.camera_info(topic), qos.IMAGES_OUT),
            self.publisher(CompressedImage, topics.compressed(topic), qos.IMAGES_OUT) if jpeg else None,
        )

    def _read(self) -> None:
        while not self._stopped.is_set():
            frame = self._loop.step(self.steady.now().nanoseconds, WAIT_S)
            if frame is not None and self.is_active:
                self._publish(frame)
            self._report()
            if frame is None:
                self._stopped.wait(PAUSE_S)

    def _publish(self, frame: Frame) -> None:
        optical_frame, images, infos, compressed = self._outputs[frame.stream]
        convert: Any = messages.from_depth if frame.stream == DEPTH else messages.from_image
        images.publish(convert(frame.image, frame.stamp_ns, optical_frame))
        intrinsics = self._loop.intrinsics[frame.stream]
        infos.publish(messages.from_calibration(intrinsics, frame.stamp_ns, optical_frame))
        if compressed is not None and compressed.get_subscription_count():
            jpeg: Any = frame.image
            compressed.publish(messages.from_jpeg(jpeg, frame.stamp_ns, optical_frame, self._quality))
        meter = self.diagnostics.meter
        meter.count(frame.stream)
        meter.sample("age_s", (self.get_clock().now().nanoseconds - frame.stamp_ns) / 1e9)

    def _report(self) -> None:
        status = self._loop.status
        if status.complaint:
            self.complain(status.complaint)
            return
        values = {"frames": status.frames, "dropped": status.dropped, "reconnects": status.reconnects}
        self.diagnostics.set(OK, "active" if self.is_active else "inactive", values)
