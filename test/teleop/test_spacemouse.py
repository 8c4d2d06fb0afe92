# SPDX-License-Identifier: Apache-2.0
"""A SpaceMouse played from events of both kinds."""

import numpy as np
import pytest

from imagewam_ros.core.errors import DeviceError
from imagewam_ros.teleop.events import EV_ABS, EV_KEY, EV_REL, EV_SYN, SYN_DROPPED, Axis, InputEvent
from imagewam_ros.teleop.jog import LEFT, RIGHT
from imagewam_ros.teleop.spacemouse import BTN_CLOSE, BTN_OPEN, SpaceMouse

MS = 1_000_000


class Puck:
    """An event stream that a test fills."""

    def __init__(self, axes=None):
        self.axes, self.waiting = axes or {}, []

    def read(self, now_ns):
        events, self.waiting = self.waiting, []
        return events

    def close(self):
        pass


@pytest.mark.parametrize("kind", [EV_REL, EV_ABS])
@pytest.mark.parametrize(
    ("code", "part", "axis", "sign"),
    [
        (0, "linear", 1, -1),  # to the right: -y
        (1, "linear", 0, -1),  # towards the user: -x
        (2, "linear", 2, -1),  # pressed down: -z
        (3, "angular", 1, -1),
        (4, "angular", 0, -1),
        (5, "angular", 2, -1),
    ],
)
def test_the_tool_moves_as_the_cap(kind, code, part, axis, sign):
    puck = Puck({code: Axis(-350, 350)} if kind == EV_ABS else None)
    puck.waiting = [InputEvent(kind, code, 350)]
    jog = SpaceMouse({"left": puck}).read(0)
    expected = np.zeros(3)
    expected[axis] = sign
    assert np.allclose(getattr(jog, part)[LEFT], expected)
    assert jog.enabled.tolist() == [True, False]


def test_silence_is_rest_for_relative_reports_only():
    relative, absolute = Puck(), Puck({0: Axis(-350, 350)})
    relative.waiting, absolute.waiting = [InputEvent(EV_REL, 0, 350)], [InputEvent(EV_ABS, 0, 350)]
    mouse = SpaceMouse({"left": relative, "right": absolute})
    assert mouse.read(0).enabled.tolist() == [True, True]
    jog = mouse.read(150 * MS)
    assert jog.enabled.tolist() == [False, True]
    assert not jog.linear[LEFT].any()


def test_buttons_move_the_gripper_of_their_hand():
    left, right = Puck(), Puck()
    left.waiting, right.waiting = [InputEvent(EV_KEY, BTN_CLOSE, 1)], [InputEvent(EV_KEY, BTN_OPEN, 1)]
    jog = SpaceMouse({"left": left, "right": right}).read(0)
    assert jog.gripper.tolist() == [-1, 1]
    assert jog.enabled.tolist() == [True, True]
    assert not jog.linear[RIGHT].any()


def test_lost_events_are_rest():
    puck = Puck()
    puck.waiting = [InputEvent(EV_REL, 0, 350), InputEvent(EV_SYN, SYN_DROPPED, 0)]
    assert not SpaceMouse({"left": puck}).read(0).enabled.any()


def test_no_device_is_refused():
    with pytest.raises(DeviceError, match="no SpaceMouse given; set devices.left, devices.right or both"):
        SpaceMouse({})
