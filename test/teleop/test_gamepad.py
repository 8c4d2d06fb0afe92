# SPDX-License-Identifier: Apache-2.0
"""A gamepad played from events."""

import numpy as np
import pytest

from imagewam_ros.core.errors import DeviceError
from imagewam_ros.teleop.events import EV_ABS, EV_KEY, EV_SYN, SYN_DROPPED, Axis, InputEvent
from imagewam_ros.teleop.gamepad import (
    ABS_HAT0X,
    ABS_RX,
    ABS_RY,
    ABS_RZ,
    ABS_X,
    ABS_Y,
    ABS_Z,
    BTN_EAST,
    BTN_SOUTH,
    BTN_TL,
    BTN_TR,
    Gamepad,
)
from imagewam_ros.teleop.jog import LEFT, RIGHT, Stick

AXES = {code: Axis(-32768, 32767) for code in (ABS_X, ABS_Y, ABS_RX, ABS_RY)}
AXES |= {ABS_Z: Axis(0, 255), ABS_RZ: Axis(0, 255), ABS_HAT0X: Axis(-1, 1)}


class Pad:
    """An event stream that a test fills."""

    def __init__(self, axes=AXES):
        self.axes, self.waiting, self.lost = axes, [], False

    def read(self, now_ns):
        if self.lost:
            raise DeviceError("gone")
        events, self.waiting = self.waiting, []
        return events

    def close(self):
        pass

    def move(self, code, value):
        self.waiting.append(InputEvent(EV_ABS, code, value))

    def press(self, code, down=1):
        self.waiting.append(InputEvent(EV_KEY, code, down))


@pytest.fixture
def pad():
    return Pad()


@pytest.fixture
def gamepad(pad):
    return Gamepad(pad)


def test_at_rest_nothing_is_wished(gamepad):
    jog = gamepad.read(0)
    assert not jog.enabled.any()
    assert not jog.linear.any()
    assert not jog.angular.any()


@pytest.mark.parametrize(
    ("code", "value", "part", "axis", "sign"),
    [
        (ABS_Y, -32768, "linear", 0, 1),
        (ABS_X, -32768, "linear", 1, 1),
        (ABS_RZ, 255, "linear", 2, 1),
        (ABS_Z, 255, "linear", 2, -1),
        (ABS_HAT0X, 1, "angular", 0, 1),
        (ABS_RY, 32767, "angular", 1, -1),
        (ABS_RX, -32768, "angular", 2, 1),
    ],
)
def test_each_axis_wishes_one_direction(pad, gamepad, code, value, part, axis, sign):
    pad.move(code, value)
    jog = gamepad.read(0)
    wish = np.concatenate([jog.linear[LEFT], jog.angular[LEFT]])
    expected = np.zeros(6)
    expected[axis + (3 if part == "angular" else 0)] = sign
    assert np.allclose(wish, expected)


def test_the_shoulders_are_the_dead_man_switches(pad, gamepad):
    pad.press(BTN_TL)
    assert gamepad.read(0).enabled.tolist() == [True, False]
    pad.press(BTN_TR)
    assert gamepad.read(0).enabled.tolist() == [True, True]
    pad.press(BTN_TL, 0)
    assert gamepad.read(0).enabled.tolist() == [False, True]


def test_buttons_open_and_close_the_gripper(pad, gamepad):
    pad.press(BTN_EAST)
    assert gamepad.read(0).gripper[RIGHT] == 1
    pad.press(BTN_SOUTH)
    pad.press(BTN_EAST, 0)
    assert gamepad.read(0).gripper[RIGHT] == -1


def test_a_small_deflection_is_rest(pad, gamepad):
    pad.move(ABS_X, 2000)
    assert not gamepad.read(0).linear.any()


def test_lost_events_and_a_lost_device_let_go(pad, gamepad):
    pad.press(BTN_TL)
    pad.waiting.append(InputEvent(EV_SYN, SYN_DROPPED, 0))
    assert not gamepad.read(0).enabled.any()
    pad.press(BTN_TL)
    gamepad.read(0)
    pad.lost = True
    with pytest.raises(DeviceError, match="gone"):
        gamepad.read(0)
    pad.lost = False
    assert not gamepad.read(0).enabled.any()


def test_a_device_without_sticks_is_refused():
    with pytest.raises(DeviceError, match="lacks the stick axes"):
        Gamepad(Pad({ABS_X: Axis(0, 255)}))


def test_the_stick_is_continuous_odd_and_reaches_full_scale():
    values = np.array([Stick().shaped(x) for x in np.linspace(-1, 1, 401)])
    assert np.allclose(values, -values[::-1])
    assert values[-1] == 1.0
    assert np.abs(np.diff(values)).max() < 0.02
