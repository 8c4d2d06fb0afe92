# SPDX-License-Identifier: Apache-2.0
"""The USB camera node on a video file that OpenCV plays."""

import pytest
from sensor_msgs.msg import CameraInfo, Image

from imagewam_ros.core.embodiment import Camera
from imagewam_ros.nodes import messages, qos

cv2 = pytest.importorskip("cv2", reason="needs OpenCV")
import numpy as np  # noqa: E402

USB = "imagewam_ros.nodes.usb_camera_node"
WRIST = Camera("left_wrist", "left_wrist_camera/color/image_raw", "left_wrist_camera_color_optical_frame", 64, 48, 30)
CALIBRATION = """
image_width: 64
image_height: 48
distortion_model: plumb_bob
camera_matrix: {rows: 3, cols: 3, data: [50, 0, 32, 0, 51, 24, 0, 0, 1]}
distortion_coefficients: {rows: 1, cols: 5, data: [0.1, 0, 0, 0, 0]}
"""


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30.0, (64, 48))
    for _ in range(120):
        writer.write(np.full((48, 64, 3), (250, 0, 0), np.uint8))
    writer.release()
    return path


def test_frames_and_calibration_are_published_and_the_end_is_noticed(spawn, probe, clip, tmp_path) -> None:
    (tmp_path / "wrist.yaml").write_text(CALIBRATION)
    images = probe.collect(Image, WRIST.topic, qos.IMAGES_OUT)
    infos = probe.collect(CameraInfo, "left_wrist_camera/color/camera_info", qos.IMAGES_OUT)
    usb = spawn(
        USB,
        camera_name="left_wrist_camera",
        video_device=clip,
        camera_info_url=f"file://{tmp_path}/wrist.yaml",
        silence_s=0.3,
        reconnect_timeout=0.3,
        rgb_camera__color_profile="64x48x30",
    )
    assert probe.change("usb_camera", "configure"), usb.text()
    probe.meet("usb_camera")
    assert probe.change("usb_camera", "activate"), usb.text()
    assert probe.until(lambda: images and infos), usb.text()
    image = messages.to_image(images[-1], WRIST)
    assert np.median(image[..., 2]) > 200 > 50 > np.median(image[..., 0])
    assert infos[-1].k[0] == 50
    assert probe.until(lambda: "no color frame for 0.3 s" in usb.text())
    assert usb.stop() == 0, usb.text()


def test_an_absent_device_fails_to_configure_with_the_remedy(spawn, probe, tmp_path) -> None:
    usb = spawn(USB, video_device=tmp_path / "video9")
    assert not probe.change("usb_camera", "configure")
    assert "no camera at" in usb.text()
    assert "by-id" in usb.text()
