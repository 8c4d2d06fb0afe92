# SPDX-License-Identifier: Apache-2.0
"""The dummy chunk and its speed."""

import numpy as np
import pytest

from imagewam_ros.core.schema import ActionChunk
from imagewam_ros.doctor_checks.finding import Level
from imagewam_ros.doctor_checks.rollout import check_chunk, check_speed, dummy_observation


@pytest.fixture
def start(robot):
    return dummy_observation(robot).positions


def chunk(robot, positions):
    return ActionChunk(0, 50_000_000, robot.joint_names, positions)


def test_a_gentle_chunk_passes(robot, start):
    (found,) = check_chunk(chunk(robot, start + np.linspace(0, 0.01, 16)[:, None]), robot, start)
    assert found.level is Level.PASS
    assert "16 rows inside bounds" in found.found


def test_numbers_bounds_and_speed_are_judged(robot, start):
    rows = np.tile(start, (16, 1))
    rows[3, 2] = np.nan
    (found,) = check_chunk(chunk(robot, rows), robot, start)
    assert (found.level, found.found) == (Level.FAIL, "1 values are no numbers")
    rows[3, 2] = 5.0
    found = list(check_chunk(chunk(robot, rows), robot, start))
    assert "row 3 puts left_elbow at 5.000, bounds -0.2 to 2.8" in found[0].found
    assert "times its velocity limit into row 3" in found[1].found


@pytest.mark.parametrize(("later", "level"), [(0.1, Level.PASS), (0.3, Level.WARN), (0.5, Level.FAIL)])
def test_inference_is_judged_by_the_replan_period(later, level):
    (found,) = check_speed(1.0, later, 0.4, "cpu")
    assert found.level is level


def test_a_chunk_of_one_arm_is_judged_by_its_own_joints(robot, start):
    rows = np.tile(start[7:], (16, 1))
    rows[2, 0] = 5.0
    (over, _) = check_chunk(ActionChunk(0, 50_000_000, robot.joint_names[7:], rows), robot, start)
    assert "row 2 puts right_waist at 5.000" in over.found
