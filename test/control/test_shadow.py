# SPDX-License-Identifier: Apache-2.0
"""Agreement of a policy with the human who drives."""

import dataclasses

import numpy as np
import pytest

from imagewam_ros.control.shadow import Agreement, Shadow
from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import EmbodimentMismatch
from imagewam_ros.core.schema import ActionChunk, Command, Floats

ROBOT = load_embodiment("sim_cell")
START_NS = 1_795_000_000_000_000_000
SPEED = np.where(ROBOT.gripper_mask, 0.0, 0.3)


def human(time_ns: int) -> Floats:
    """Joints on a straight line in time, grippers closed."""
    return SPEED * (time_ns - START_NS) / 1e9


def drive(shadow: Shadow, ticks: int, first: int = 0) -> list[dict[str, Agreement]]:
    found = []
    for tick in range(first, ticks):
        now = START_NS + tick * ROBOT.period_ns
        zero = np.zeros(14)
        command = Command(tick, now, ROBOT.period_ns, ROBOT.joint_names, human(now), zero, zero)
        if (agreement := shadow.sent(command)) is not None:
            found.append(agreement)
    return found


def chunk(offset: float = 0.0, rows: int = 8) -> ActionChunk:
    empty = ActionChunk(START_NS, 50_000_000, ROBOT.joint_names, np.zeros((rows, 14)))
    positions = np.array([human(empty.due_ns(row)) for row in range(rows)])
    return dataclasses.replace(empty, positions=positions + offset)


def test_the_same_motion_agrees_exactly_and_only_when_it_is_past() -> None:
    shadow = Shadow(ROBOT)
    shadow.chunk(chunk())
    assert drive(shadow, 80) == []
    (found,) = drive(shadow, 100, first=80)
    for side in ("left", "right"):
        assert found[side].rows == 8 == found[side].gripper_rows
        assert found[side].rms < 1e-9 and found[side].largest < 1e-9


def test_another_motion_is_measured() -> None:
    shadow = Shadow(ROBOT)
    other = np.array(chunk().positions)
    other[:, 0] += 0.12
    other[:, 13] = 0.04
    shadow.chunk(dataclasses.replace(chunk(), positions=other))
    (found,) = drive(shadow, 100)
    assert found["left"].rms == pytest.approx(0.12 / np.sqrt(6)) and found["left"].largest == pytest.approx(0.12)
    assert found["left"].gripper_rows == 8 and found["right"].gripper_rows == 0
    assert found["right"].rms < 1e-9


def test_rows_without_commands_are_left_out() -> None:
    shadow = Shadow(ROBOT)
    shadow.chunk(dataclasses.replace(chunk(), stamp_ns=START_NS - 200_000_000))
    shadow.chunk(dataclasses.replace(chunk(), stamp_ns=START_NS - 20_000_000_000))
    (found,) = drive(shadow, 100)
    assert found["left"].rows == 5


def test_time_set_back_starts_anew() -> None:
    shadow = Shadow(ROBOT)
    drive(shadow, 50)
    shadow.chunk(chunk())
    assert drive(shadow, 100) == []
    shadow.chunk(chunk())
    assert len(drive(shadow, 101, first=100)) == 1


def test_what_cannot_be_compared_is_refused() -> None:
    shadow = Shadow(ROBOT)
    broken = np.array(chunk().positions)
    broken[0, 0] = np.nan
    with pytest.raises(EmbodimentMismatch, match="needs finite values for the joints of robot 'sim_cell'"):
        shadow.chunk(dataclasses.replace(chunk(), positions=broken))
    with pytest.raises(EmbodimentMismatch, match="cannot be compared"):
        shadow.chunk(dataclasses.replace(chunk(), joint_names=ROBOT.joint_names[::-1]))
