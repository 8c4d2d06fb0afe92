# SPDX-License-Identifier: Apache-2.0
"""The RealSense camera on librealsense's own software device."""

import subprocess
import sys

import numpy as np
import pytest

from imagewam_ros.cameras.camera import CameraLoop, Profile
from imagewam_ros.cameras.realsense import RealSense, RealSenseConfig
from imagewam_ros.core.errors import CameraError, ConfigError

rs = pytest.importorskip("pyrealsense2", reason="needs pyrealsense2 and libusb-1.0", exc_type=ImportError)
from software_realsense import HEIGHT, RATE, WIDTH, SoftwareCamera  # noqa: E402

SMALL = Profile(WIDTH, HEIGHT, RATE)
SECOND = 1_000_000_000


@pytest.fixture
def plugged():
    device = SoftwareCamera()
    device.plug()
    return device


def camera(device, tmp_path, **overrides):
    config = RealSenseConfig(**{"serial": "1234", "color": SMALL, **overrides})
    return RealSense(config, device.context, clock_ns=lambda: 7 * SECOND, usb=tmp_path / "usb", nodes=tmp_path / "dev")


def test_color_and_depth_arrive_with_their_stamps_and_intrinsics(plugged, tmp_path):
    opened = camera(plugged, tmp_path, depth=SMALL)
    intrinsics = opened.open()
    assert set(intrinsics) == {"color", "depth"}
    assert (intrinsics["color"].fx, intrinsics["color"].cy) == (50.0, 24.0)
    assert intrinsics["color"].distortion_model == "plumb_bob"
    assert np.allclose(intrinsics["color"].coefficients, (0.1, 0.2, 0.3, 0.4, 0.5))
    plugged.color(5, 1000.5, value=9)
    plugged.depth(6, 1001.0, value=1234)
    frames = {frame.stream: frame for frame in (opened.read(1.0), opened.read(1.0))}
    opened.close()
    assert frames["color"].image.shape == (HEIGHT, WIDTH, 3)
    assert frames["color"].image.dtype == np.uint8
    assert (frames["color"].number, frames["color"].stamp_ns) == (5, 1_000_500_000)
    assert np.all(frames["color"].image == 9)
    assert np.all(frames["depth"].image == 1234)
    assert frames["depth"].image.shape == (HEIGHT, WIDTH)


def test_thirty_hertz_of_stamps_are_preserved(plugged, tmp_path):
    opened = camera(plugged, tmp_path)
    opened.open()
    stamps = []
    for number in range(60):
        plugged.color(number, 1000 + number * 1000 / 30)
        stamps.append(opened.read(1.0).stamp_ns)
    opened.close()
    assert np.allclose(np.diff(stamps), SECOND / 30, atol=1000)


def test_a_clock_of_the_device_is_tied_to_the_host_at_the_first_frame(plugged, tmp_path):
    opened = camera(plugged, tmp_path)
    opened.open()
    own = rs.timestamp_domain.hardware_clock
    plugged.color(1, 100.0, domain=own)
    plugged.color(2, 133.0, domain=own)
    first, second = opened.read(1.0), opened.read(1.0)
    opened.close()
    assert first.stamp_ns == 7 * SECOND
    assert second.stamp_ns == 7 * SECOND + 33_000_000


def test_depth_is_in_millimetres_whatever_the_device_counts_in(tmp_path):
    device = SoftwareCamera()
    device.plug(depth_unit=0.0001)
    opened = camera(device, tmp_path, color=None, depth=SMALL)
    opened.open()
    device.depth(1, 1.0, value=12345)
    frame = opened.read(1.0)
    opened.close()
    assert np.all(frame.image == 1234)


def test_the_only_device_needs_no_serial(plugged, tmp_path):
    opened = camera(plugged, tmp_path, serial="")
    assert opened.open()
    opened.close()


def test_unplugged_and_plugged_again_it_goes_on(plugged, tmp_path):
    loop = CameraLoop(camera(plugged, tmp_path), silence_s=1.0, retry_s=2.0)
    loop.open(0)
    plugged.color(1, 1.0)
    plugged.color(4, 2.0)
    assert [loop.step(0, 1.0).number for _ in range(2)] == [1, 4]
    plugged.unplug()
    assert loop.step(2 * SECOND, 0.01) is None
    assert "no color frame for 1.0 s" in loop.status.complaint
    assert loop.step(3 * SECOND, 0.01) is None
    assert not loop.status.connected
    assert loop.step(5 * SECOND, 0.01) is None
    assert "no RealSense camera with serial '1234'; found: none" in loop.status.complaint
    plugged.plug()
    assert loop.step(6 * SECOND, 0.01) is None
    assert not loop.status.connected
    loop.step(8 * SECOND, 0.01)
    assert loop.status.connected
    plugged.color(1, 9.0)
    assert loop.step(8 * SECOND, 1.0).number == 1
    assert loop.status.reconnects == 1
    assert loop.status.dropped == 2
    assert loop.status.frames == 3
    assert loop.status.complaint == ""
    loop.close()


def test_wrong_serial_names_the_ones_that_are_there(plugged, tmp_path):
    with pytest.raises(CameraError, match=r"serial '9'; found: 1234\. Check serial_no"):
        camera(plugged, tmp_path, serial="9").open()


def test_two_devices_need_a_serial(plugged, tmp_path):
    first = plugged.device
    plugged.plug("5678")
    with pytest.raises(CameraError, match=r"several RealSense cameras: .*; set serial_no"):
        camera(plugged, tmp_path, serial="").open()
    del first


def test_missing_permission_names_the_remedy(tmp_path):
    usb = tmp_path / "usb" / "2-1"
    usb.mkdir(parents=True)
    facts = {"idVendor": "8086", "product": "Intel(R) RealSense(TM) Depth Camera 435", "busnum": "2", "devnum": "7"}
    for name, value in facts.items():
        (usb / name).write_text(value + "\n")
    with pytest.raises(CameraError, match=r"(?s)435 \(.*dev/002/007\) is on the USB bus.*udev rules"):
        camera(SoftwareCamera(), tmp_path).open()


def test_a_profile_that_is_not_offered_lists_those_that_are(plugged, tmp_path):
    with pytest.raises(CameraError, match=r"color profile 640x480x30 is not offered.*64x48x30"):
        camera(plugged, tmp_path, color=Profile(640, 480, 30)).open()


def test_both_streams_off_is_refused():
    with pytest.raises(ConfigError, match="color and depth are both off"):
        RealSenseConfig(color=None)


def test_an_absent_stream_is_named(tmp_path):
    device = SoftwareCamera()
    device.plug(depth=False)
    with pytest.raises(CameraError, match=r"RealSense 1234 has no depth stream; disable it"):
        camera(device, tmp_path, depth=SMALL).open()


def test_a_device_in_use_is_explained(plugged, tmp_path):
    first = camera(plugged, tmp_path)
    first.open()
    with pytest.raises(CameraError, match=r"RealSense 1234 does not start: .*Close other programs that use it"):
        camera(plugged, tmp_path).open()
    first.close()


def test_a_missing_library_says_how_to_install_it():
    code = (
        "import sys; sys.modules['pyrealsense2'] = None\n"
        "from imagewam_ros.cameras.realsense import import_realsense; import_realsense()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "CameraError: pyrealsense2 cannot be imported" in done.stderr
    assert "pip install pyrealsense2" in done.stderr
