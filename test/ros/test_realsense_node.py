# SPDX-License-Identifier: Apache-2.0
"""The RealSense node on librealsense's software device: rates, stamps, calibration, replug."""

import threading
import time

import numpy as np
import pytest
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from imagewam_ros.core.embodiment import Camera
from imagewam_ros.nodes import messages, qos

rs = pytest.importorskip("pyrealsense2", reason="needs pyrealsense2 and libusb-1.0", exc_type=ImportError)
from software_realsense import HEIGHT, RATE, WIDTH, SoftwareCamera  # noqa: E402

from imagewam_ros.nodes.realsense_node import RealSenseNode  # noqa: E402

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
HEAD = Camera("head", "head_camera/color/image_raw", "head_camera_color_optical_frame", WIDTH, HEIGHT, RATE)
SETTINGS = {
    "camera_name": "head_camera",
    "serial_no": "_1234",
    "enable_depth": True,
    "reconnect_timeout": 0.2,
    "silence_s": 0.5,
    "jpeg_quality": 90,
    "rgb_camera.color_profile": f"{WIDTH}x{HEIGHT}x{RATE}",
    "depth_module.depth_profile": f"{WIDTH},{HEIGHT},{RATE}",
}


class Filming:
    """A software device that films at 30 Hz in a thread."""

    def __init__(self) -> None:
        self.device, self.number, self.sent_ns = SoftwareCamera(), 0, []
        self._stop = threading.Event()

    def start(self) -> None:
        self.device.plug()
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        deadline = time.monotonic()
        while not self._stop.wait(max(deadline - time.monotonic(), 0)):
            deadline += 1 / RATE
            self.number += 1
            stamp_ms = time.time_ns() // 1_000_000
            self.sent_ns.append(stamp_ms * 1_000_000)
            self.device.color(self.number, stamp_ms, value=self.number % 256)
            self.device.depth(self.number, stamp_ms, value=700)

    def unplug(self) -> None:
        self._stop.set()
        self._thread.join(5)
        self.device.unplug()


@pytest.fixture
def filming():
    filming = Filming()
    filming.start()
    yield filming
    filming._stop.set()


@pytest.fixture
def make_node(ros):
    made = []

    def make(filming, **overrides):
        node = RealSenseNode(filming.device.context)
        for name, value in {**SETTINGS, **overrides}.items():
            node.declare_parameter(name, value)
        made.append(node)
        return node

    yield make
    for node in made:
        node.halt("the test ends")
        node.destroy_node()


def test_thirty_hertz_with_stamps_calibration_and_a_replug(make_node, filming, probe) -> None:
    images = probe.collect(Image, HEAD.topic, qos.IMAGES_OUT)
    depths = probe.collect(Image, "head_camera/depth/image_rect_raw", qos.IMAGES_OUT)
    infos = probe.collect(CameraInfo, "head_camera/color/camera_info", qos.IMAGES_OUT)
    jpegs = probe.collect(CompressedImage, "head_camera/color/image_raw/compressed", qos.IMAGES_OUT)
    node = make_node(filming)
    assert node.trigger_configure() == SUCCESS, node.diagnostics.message
    assert not images, "an inactive camera publishes nothing"
    assert node.trigger_activate() == SUCCESS
    assert probe.until(lambda: len(images) > 60 and len(depths) > 60 and infos and jpegs)
    stamps = np.array([messages.stamp_ns(image.header.stamp) for image in images])
    filmed = [ns for ns in filming.sent_ns if stamps[0] <= ns <= stamps[-1]]
    assert set(stamps) <= set(filmed), "the camera's own stamps arrive unchanged"
    assert len(stamps) >= 0.8 * len(filmed)
    image = messages.to_image(images[-1], HEAD)
    assert np.all(image == image[0, 0, 0])
    assert images[-1].header.frame_id == HEAD.frame
    assert (depths[-1].encoding, depths[-1].header.frame_id) == ("16UC1", "head_camera_depth_optical_frame")
    assert np.all(np.frombuffer(depths[-1].data, np.uint16) == 700)
    assert infos[-1].k.tolist() == [50, 0, 32, 0, 51, 24, 0, 0, 1]
    assert np.allclose(infos[-1].d, [0.1, 0.2, 0.3, 0.4, 0.5])
    assert messages.to_image(jpegs[-1], HEAD).shape == (HEIGHT, WIDTH, 3)

    filming.unplug()
    assert probe.until(lambda: "no RealSense camera with serial '1234'" in node.diagnostics.message)
    count = len(images)
    filming.start()
    assert probe.until(lambda: len(images) > count + 10), node.diagnostics.message
    assert probe.until(lambda: node.diagnostics.message == "active")


def test_a_wrong_serial_fails_to_configure_and_says_which_are_there(make_node, filming) -> None:
    node = make_node(filming, serial_no="_99")
    assert node.trigger_configure() == FAILURE
    assert "no RealSense camera with serial '99'; found: 1234" in node.diagnostics.message


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ({"rgb_camera.color_profile": "fast"}, "profile 'fast' is not WIDTHxHEIGHTxRATE"),
        ({"jpeg_quality": 101}, "camera_name must not be empty and jpeg_quality 0 to 100"),
        ({"reconnect_timeout": 0.0}, "reconnect_timeout and silence_s must be positive"),
        ({"enable_color": False, "enable_depth": False}, "color and depth are both off"),
    ],
)
def test_bad_configuration_is_named(make_node, filming, override, text) -> None:
    node = make_node(filming, **override)
    assert node.trigger_configure() == FAILURE
    assert text in node.diagnostics.message
