# SPDX-License-Identifier: Apache-2.0
"""Devices by name."""

import pytest

from imagewam_ros.core.errors import DeviceError
from imagewam_ros.teleop.devices import DeviceConfig, _only, open_device
from imagewam_ros.teleop.spacemouse import SpaceMouse


def test_an_unknown_device_answers_with_the_nearest():
    with pytest.raises(DeviceError, match="unknown device 'gamepda'; did you mean 'gamepad'"):
        open_device("gamepda", DeviceConfig())


def test_two_recordings_are_two_space_mice(tmp_path):
    for side in ("left", "right"):
        (tmp_path / side).write_text("N: puck\nE: 0.0 0002 0000 350\n")
    device = open_device("spacemouse", DeviceConfig(left=str(tmp_path / "left"), right=str(tmp_path / "right")))
    assert isinstance(device, SpaceMouse)
    assert device.read(0).enabled.tolist() == [True, True]


def test_one_device_is_found_and_two_must_be_chosen_between(tmp_path):
    (tmp_path / "usb-a-event-joystick").touch()
    assert _only("event-joystick", "gamepad", tmp_path).name == "usb-a-event-joystick"
    (tmp_path / "usb-b-event-joystick").touch()
    with pytest.raises(DeviceError, match=r"expected one gamepad in .*usb-a.*usb-b.*; give its path"):
        _only("event-joystick", "gamepad", tmp_path)
