# SPDX-License-Identifier: Apache-2.0
"""Input events from recordings, and from a virtual device where the kernel has uinput."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from imagewam_ros.core.errors import DeviceError
from imagewam_ros.teleop.events import (
    EV_ABS,
    EV_KEY,
    Axis,
    EvdevStream,
    InputEvent,
    RecordedStream,
    find_devices,
    open_stream,
    read_recording,
)

RECORDING = """# EVEMU 1.3
N: Test pad
I: 0003 046d c21d 4014
A: 00 -100 100 16 128 0
A: 02 0 255 0 0 0
E: 5.100000 0003 0000 50
E: 5.100000 0000 0000 0
E: 5.250000 0001 0136 1
"""
MS = 1_000_000


def test_a_recording_gives_axes_and_events_in_their_time(tmp_path):
    path = tmp_path / "pad.evemu"
    path.write_text(RECORDING)
    recording = read_recording(path)
    assert recording.name == "Test pad"
    assert recording.axes == {0: Axis(-100, 100), 2: Axis(0, 255)}
    stream = RecordedStream(recording)
    assert list(stream.read(1000 * MS)) == [InputEvent(EV_ABS, 0, 50), InputEvent(0, 0, 0)]
    assert list(stream.read(1149 * MS)) == []
    assert list(stream.read(1150 * MS)) == [InputEvent(EV_KEY, 0x136, 1)]
    assert list(stream.read(9000 * MS)) == []


def test_a_plain_file_is_played(tmp_path):
    path = tmp_path / "pad.evemu"
    path.write_text(RECORDING)
    assert isinstance(open_stream(str(path)), RecordedStream)


def test_axes_are_shares_of_their_range():
    assert [Axis(0, 255).share(value) for value in (0, 255)] == [-1.0, 1.0]
    assert Axis(-100, 100).share(50) == 0.5


def test_a_damaged_recording_names_the_line(tmp_path):
    path = tmp_path / "pad.evemu"
    path.write_text("N: pad\nE: 1.0 0003\n")
    with pytest.raises(DeviceError, match=r"pad.evemu:2: not a line of evemu-record"):
        read_recording(path)
    path.write_text("N: pad\n")
    with pytest.raises(DeviceError, match="holds no events; record with evemu-record"):
        read_recording(path)


def test_devices_are_found_by_their_stable_name(tmp_path):
    for name in (
        "usb-Logitech_F310-event-joystick",
        "usb-Logitech_F310-joystick",
        "usb-3Dconnexion_SpaceMouse-event-mouse",
    ):
        (tmp_path / name).touch()
    assert [path.name for path in find_devices("joystick", tmp_path)] == ["usb-Logitech_F310-event-joystick"]
    assert list(find_devices("joystick", tmp_path / "absent")) == []


def test_an_absent_device_is_explained(tmp_path):
    pytest.importorskip("evdev")
    with pytest.raises(DeviceError, match=r"no input device at .*event99; devices here: "):
        open_stream(str(tmp_path / "event99"))


def test_what_is_no_input_device_is_explained():
    pytest.importorskip("evdev")
    with pytest.raises(DeviceError, match="/dev/null is not an input device"):
        EvdevStream(Path("/dev/null"))


def test_a_missing_library_says_how_to_install_it():
    code = (
        "import sys; sys.modules['evdev'] = None\n"
        "from imagewam_ros.teleop.events import open_stream; open_stream('/dev/null')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "DeviceError: python-evdev cannot be imported" in done.stderr
    assert "pip install evdev" in done.stderr


@pytest.mark.skipif(not os.access("/dev/uinput", os.W_OK), reason="this kernel gives no virtual input devices")
def test_a_virtual_device_is_read_lost_and_found():
    evdev = pytest.importorskip("evdev")
    info = evdev.AbsInfo(value=0, min=-100, max=100, fuzz=0, flat=0, resolution=0)
    with evdev.UInput({EV_ABS: [(0, info)], EV_KEY: [0x136]}, name="imagewam test pad") as virtual:
        time.sleep(0.5)
        stream = EvdevStream(Path(virtual.device.path))
        assert stream.axes == {0: Axis(-100, 100)}
        virtual.write(EV_ABS, 0, 50)
        virtual.syn()
        time.sleep(0.1)
        assert InputEvent(EV_ABS, 0, 50) in stream.read(0)
    with pytest.raises(DeviceError, match="is gone"):
        stream.read(0)
