# SPDX-License-Identifier: Apache-2.0
"""The robot YAML: order, slices, and every mistake named."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from imagewam_ros.core.embodiment import Camera, Embodiment, Joint, load_embodiment
from imagewam_ros.core.errors import ConfigError


def test_policy_vector_is_left_then_right_gripper_last(robot: Embodiment) -> None:
    assert len(robot.joint_names) == 14
    assert robot.joint_names[6] == "left_gripper"
    assert robot.joint_names[13] == "right_gripper"
    assert robot.arm_slice("right") == slice(7, 14)
    assert np.flatnonzero(robot.gripper_mask).tolist() == [6, 13]
    assert robot.limits.upper[6] == pytest.approx(0.04)
    assert robot.period_ns == 5_000_000


def test_limits_are_read_only(robot: Embodiment) -> None:
    with pytest.raises(ValueError, match="read-only"):
        robot.limits.velocity[0] = 9.0


def test_unknown_names_answer_with_the_nearest(robot: Embodiment) -> None:
    with pytest.raises(ConfigError, match="unknown robot 'sim_cel'; did you mean 'sim_cell'"):
        load_embodiment("sim_cel")
    with pytest.raises(ConfigError, match="unknown camera 'left_wrst'; did you mean 'left_wrist'"):
        robot.camera("left_wrst")
    with pytest.raises(ConfigError, match="unknown arm 'middle'"):
        robot.arm_slice("middle")


def test_loads_a_file_by_path(tmp_path: Path, robot: Embodiment) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_embodiment(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"unit": "deg"}, "unknown unit 'deg'"),
        ({"lower": 2.0}, "lower 2.0 is not below upper 1.0"),
        ({"jerk": 0.0}, "jerk must be positive, found 0.0"),
    ],
)
def test_joint_refuses_nonsense(change: dict[str, object], text: str) -> None:
    joint = Joint("a", -1.0, 1.0, 1.0, 1.0, 1.0)
    with pytest.raises(ConfigError, match=text):
        dataclasses.replace(joint, **change)  # type: ignore[arg-type]


def test_embodiment_refuses_contradictions(robot: Embodiment) -> None:
    with pytest.raises(ConfigError, match="arms must be left then right"):
        dataclasses.replace(robot, arms=robot.arms[::-1])
    with pytest.raises(ConfigError, match="unknown grippers 'command'; did you mean 'commands'"):
        dataclasses.replace(robot, grippers="command")
    with pytest.raises(ConfigError, match="control_rate_hz must be 50 to 1000, found 20"):
        dataclasses.replace(robot, control_rate_hz=20)
    with pytest.raises(ConfigError, match="camera named twice: head"):
        dataclasses.replace(robot, cameras=(*robot.cameras, Camera("head", "t", "f", 1, 1, 1.0)))
