# SPDX-License-Identifier: Apache-2.0
"""The USB camera on a video file and on a capture that behaves as a V4L2 driver does."""

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2", reason="needs OpenCV")

from imagewam_ros.cameras.camera import Intrinsics, Profile  # noqa: E402
from imagewam_ros.cameras.usb import UsbCamera, UsbConfig, open_v4l2, read_calibration  # noqa: E402
from imagewam_ros.core.errors import CameraError, ConfigError  # noqa: E402

SMALL = Profile(64, 48, 30)
MS = 1_000_000


class Driver:
    """A V4L2 device as OpenCV shows it: images from a list, stamps of the monotonic clock."""

    def __init__(self, stamps_ms, profile=SMALL):
        self.profile, self.stamps_ms, self.stamp_ms, self.released = profile, list(stamps_ms), 0.0, False

    def isOpened(self):  # noqa: N802
        return True

    def read(self):
        if not self.stamps_ms:
            return False, None
        self.stamp_ms = self.stamps_ms.pop(0)
        image = np.zeros((self.profile.height, self.profile.width, 3), np.uint8)
        image[..., 0] = 200  # blue, as OpenCV orders channels
        return True, image

    def get(self, prop):
        return {
            cv2.CAP_PROP_FRAME_WIDTH: self.profile.width,
            cv2.CAP_PROP_FRAME_HEIGHT: self.profile.height,
            cv2.CAP_PROP_FPS: self.profile.rate_hz,
            cv2.CAP_PROP_POS_MSEC: self.stamp_ms,
        }[prop]

    def release(self):
        self.released = True


def camera(driver, now_ms=1000):
    return UsbCamera(
        UsbConfig(color=SMALL),
        lambda config: driver,
        clock_ns=lambda: 5_000_000 * MS,
        driver_clock_ns=lambda: now_ms * MS,
    )


def test_frames_are_rgb_with_the_drivers_stamp_in_unix_time():
    opened = camera(Driver([990.0]))
    assert opened.open() == {"color": Intrinsics(64, 48)}
    frame = opened.read(1.0)
    assert frame.image[0, 0].tolist() == [0, 0, 200]
    assert frame.stamp_ns == 5_000_000 * MS - 10 * MS
    assert opened.read(1.0) is None


def test_a_stamp_of_another_clock_is_replaced_by_the_arrival():
    opened = camera(Driver([33.0]), now_ms=900_000)
    opened.open()
    assert opened.read(1.0).stamp_ns == 5_000_000 * MS


def test_lost_frames_are_seen_in_the_stamps():
    opened = camera(Driver([800.0, 833.0, 933.0]))
    opened.open()
    assert [opened.read(1.0).number for _ in range(3)] == [1, 2, 5]


def test_another_profile_than_asked_for_is_refused():
    driver = Driver([], Profile(32, 24, 15))
    with pytest.raises(CameraError, match=r"gives 32x24x15 where 64x48x30 in MJPG was asked for; see v4l2-ctl"):
        camera(driver).open()
    assert driver.released


def test_a_video_file_plays_through_opencv(tmp_path):
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30.0, (64, 48))
    for _ in range(3):
        writer.write(np.full((48, 64, 3), (250, 0, 0), np.uint8))
    writer.release()
    opened = UsbCamera(UsbConfig(str(path), SMALL))
    opened.open()
    frames = [opened.read(1.0) for _ in range(4)]
    opened.close()
    assert frames[3] is None
    assert np.median(frames[0].image[..., 2]) > 200 > 50 > np.median(frames[0].image[..., 0])


def test_an_absent_device_is_explained(tmp_path):
    with pytest.raises(CameraError, match=r"no camera at .*missing; devices here: .*by-id"):
        open_v4l2(UsbConfig(str(tmp_path / "missing")))


def test_missing_permission_is_explained(tmp_path, monkeypatch):
    path = tmp_path / "video0"
    path.touch()
    monkeypatch.setattr("os.access", lambda *_: False)  # root may open everything
    with pytest.raises(CameraError, match=r"video0 may not be opened by this user; run sudo usermod -aG video"):
        open_v4l2(UsbConfig(str(path)))


def test_what_is_not_a_camera_is_explained(tmp_path):
    path = tmp_path / "text.avi"
    path.write_text("no video")
    with pytest.raises(CameraError, match="is not a camera that OpenCV can open"):
        open_v4l2(UsbConfig(str(path)))


def test_a_pixel_format_has_four_letters():
    with pytest.raises(ConfigError, match="pixel_format 'JPEG2000' is not a code"):
        UsbConfig(pixel_format="JPEG2000")


CALIBRATION = """
image_width: 64
image_height: 48
camera_name: head
distortion_model: plumb_bob
camera_matrix: {rows: 3, cols: 3, data: [50, 0, 32, 0, 51, 24, 0, 0, 1]}
distortion_coefficients: {rows: 1, cols: 5, data: [0.1, 0, 0, 0, 0]}
"""


def test_calibration_of_ros_is_read(tmp_path):
    path = tmp_path / "head.yaml"
    path.write_text(CALIBRATION)
    found = read_calibration(f"file://{path}", Intrinsics(64, 48))
    assert found == Intrinsics(64, 48, 50.0, 51.0, 32.0, 24.0, "plumb_bob", (0.1, 0.0, 0.0, 0.0, 0.0))


def test_calibration_of_another_size_or_shape_is_refused(tmp_path):
    path = tmp_path / "head.yaml"
    path.write_text(CALIBRATION)
    with pytest.raises(ConfigError, match="is for 64x48, the camera gives 640x480; calibrate again"):
        read_calibration(str(path), Intrinsics(640, 480))
    path.write_text("image_width: 64")
    with pytest.raises(ConfigError, match="is not a calibration of ROS's camera_calibration: KeyError"):
        read_calibration(str(path), Intrinsics(64, 48))
