# SPDX-License-Identifier: Apache-2.0
"""librealsense's software device as a camera that can be plugged in and out."""

import numpy as np
import pyrealsense2 as rs

WIDTH, HEIGHT, RATE = 64, 48, 30


class SoftwareCamera:
    """One colour and one depth sensor on a real librealsense context.

    The context keeps no reference to a software device of its own: what it lists is alive as long
    as the event that announced it. Dropping those events is unplugging.
    """

    def __init__(self):
        self.context = rs.context()
        self._events = []
        self.context.set_devices_changed_callback(self._events.append)

    def plug(self, serial="1234", depth_unit=0.001, depth=True):
        self.device = rs.software_device()
        self.device.register_info(rs.camera_info.name, "Software RealSense")
        self.device.register_info(rs.camera_info.serial_number, serial)
        self.device.register_info(rs.camera_info.physical_port, f"software-{serial}")
        self._color, self._color_profile = self._sensor("RGB Camera", rs.stream.color, rs.format.rgb8, 3, 1)
        self._depth = self._depth_profile = None
        if depth:
            self._depth, self._depth_profile = self._sensor("Stereo Module", rs.stream.depth, rs.format.z16, 2, 2)
            self._depth.add_read_only_option(rs.option.depth_units, depth_unit)
        self.device.add_to(self.context)

    def unplug(self):
        del self.device, self._color, self._color_profile, self._depth, self._depth_profile
        self._events.clear()

    def color(self, number, timestamp_ms, value=0, domain=rs.timestamp_domain.system_time):
        pixels = np.full((HEIGHT, WIDTH, 3), value, np.uint8)
        self._send(self._color, self._color_profile, number, timestamp_ms, pixels, domain)

    def depth(self, number, timestamp_ms, value=0, domain=rs.timestamp_domain.system_time):
        pixels = np.full((HEIGHT, WIDTH), value, np.uint16)
        self._send(self._depth, self._depth_profile, number, timestamp_ms, pixels, domain)

    def _sensor(self, name, stream_type, pixel_format, bytes_per_pixel, uid):
        sensor = self.device.add_sensor(name)
        intrinsics = rs.intrinsics()
        intrinsics.width, intrinsics.height = WIDTH, HEIGHT
        intrinsics.fx, intrinsics.fy, intrinsics.ppx, intrinsics.ppy = 50.0, 51.0, 32.0, 24.0
        intrinsics.model, intrinsics.coeffs = rs.distortion.brown_conrady, [0.1, 0.2, 0.3, 0.4, 0.5]
        stream = rs.video_stream()
        stream.type, stream.index, stream.uid, stream.fmt = stream_type, 0, uid, pixel_format
        stream.width, stream.height, stream.fps, stream.bpp = WIDTH, HEIGHT, RATE, bytes_per_pixel
        stream.intrinsics = intrinsics
        return sensor, sensor.add_video_stream(stream)

    def _send(self, sensor, profile, number, timestamp_ms, pixels, domain):
        frame = rs.software_video_frame()
        frame.pixels, frame.profile = pixels, profile.as_video_stream_profile()
        frame.stride, frame.bpp = pixels.strides[0], pixels.strides[1]
        frame.timestamp, frame.domain, frame.frame_number = timestamp_ms, domain, number
        sensor.on_video_frame(frame)
