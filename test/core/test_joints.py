# SPDX-License-Identifier: Apache-2.0
"""Joint states from one broadcaster or several."""

import re

import numpy as np
import pytest

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import EmbodimentMismatch, StaleObservation
from imagewam_ros.core.joints import JointMerge

ROBOT = load_embodiment("sim_cell")
LEFT, RIGHT = ROBOT.joint_names[:7], ROBOT.joint_names[7:]
NONE = np.zeros(0)


def test_one_message_with_everything_in_any_order() -> None:
    merge = JointMerge.of(ROBOT)
    names = ("spectator", *reversed(ROBOT.joint_names))
    position = np.arange(15.0)
    assert merge.add(5, names, position, position / 10) == ("left", "right")
    assert merge.complete and merge.state.stamp_ns == 5
    np.testing.assert_array_equal(merge.state.position, np.arange(14, 0, -1))
    np.testing.assert_allclose(merge.state.velocity, np.arange(14, 0, -1) / 10)


def test_two_broadcasters_make_one_state_as_old_as_the_older() -> None:
    merge = JointMerge.of(ROBOT)
    assert merge.add(10, LEFT, np.ones(7), NONE) == ("left",)
    assert not merge.complete
    assert merge.add(12, RIGHT, np.full(7, 2.0), NONE) == ("right",)
    assert merge.state.stamp_ns == 10
    np.testing.assert_array_equal(merge.state.position, [1] * 7 + [2] * 7)
    assert merge.add(20, LEFT, np.full(7, 3.0), NONE) == ("left",)
    assert merge.state.stamp_ns == 12, "the right arm is silent"


def test_gripper_by_itself_and_repeated_stamps() -> None:
    merge = JointMerge.of(ROBOT)
    assert merge.add(10, LEFT[:6], np.zeros(6), NONE) == ()
    assert merge.add(11, LEFT[6:], np.ones(1), NONE) == ("left",)
    assert merge.add(11, LEFT, np.ones(7), NONE) == ("left",), "six joints were of 10"
    assert merge.add(11, LEFT, np.ones(7), NONE) == (), "a driver that repeats itself is silent"
    assert merge.add(99, ("other",), np.ones(1), NONE) == ()


def test_a_clock_that_jumps_back_starts_anew() -> None:
    merge = JointMerge.of(ROBOT)
    merge.add(10**9, ROBOT.joint_names, np.zeros(14), NONE)
    assert merge.add(5, LEFT, np.zeros(7), NONE) == ("left",)
    assert not merge.complete


def test_what_is_wrong_is_named() -> None:
    merge = JointMerge.of(ROBOT)
    with pytest.raises(EmbodimentMismatch, match=re.escape("lacks left_waist, left_shoulder")):
        _ = merge.state
    merge.add(1, ROBOT.joint_names[1:], np.zeros(13), NONE)
    with pytest.raises(
        EmbodimentMismatch, match=r"joint_states lacks left_waist; found left_shoulder.* are both arms on"
    ):
        _ = merge.state
    with pytest.raises(EmbodimentMismatch, match="names 7 joints and gives 1 positions"):
        merge.add(2, LEFT, np.zeros(1), NONE)
    with pytest.raises(StaleObservation, match="position of left_elbow is not a number"):
        merge.add(2, LEFT, np.array([0, 0, np.nan, 0, 0, 0, 0]), NONE)


def test_fresh_state_or_a_reason() -> None:
    merge = JointMerge.of(ROBOT)
    with pytest.raises(StaleObservation, match="no joint states yet; is /arms published"):
        merge.fresh(0, 0.5, "/arms")
    merge.add(10**9, ROBOT.joint_names, np.zeros(14), NONE)
    assert merge.fresh(12 * 10**8, 0.5, "/arms").stamp_ns == 10**9
    for now_ns, age in ((2 * 10**9, r"1\.00"), (0, r"-1\.00")):
        with pytest.raises(StaleObservation, match=rf"is {age} s old \(limit 0\.5 s\); is /arms alive.*use_sim_time"):
            merge.fresh(now_ns, 0.5, "/arms")
