# SPDX-License-Identifier: Apache-2.0
"""Leader arms: the mapping, the clutch in use, and what the follower is asked to do."""

import numpy as np
import pytest

from imagewam_ros.core.errors import ConfigError, EmbodimentMismatch
from imagewam_ros.core.schema import JointState, Source
from imagewam_ros.teleop.clutch import ClutchConfig
from imagewam_ros.teleop.leader import LeaderArm, LeaderConfig, LeaderMap, LeaderOperator
from imagewam_ros.teleop.operator import ChunkConfig, ChunkMaker, Clutch

MS = 1_000_000
NAMES = tuple(f"l{i}" for i in range(7))


def reading(stamp_ns, names, position):
    return JointState(stamp_ns, tuple(names), position, np.zeros(len(position)))


def operator(robot, config=None):
    return LeaderOperator(
        robot, config or LeaderConfig(), ClutchConfig(), ChunkMaker(robot, ChunkConfig(), Source.TAKEOVER)
    )


def drive(operator, robot, measured, motion, follower, start_ms=0, stop_ms=1000):
    """Step every 20 ms with both leaders at `motion(ms)`; returns the last step."""
    for now_ms in range(start_ms, stop_ms, 20):
        position = motion(now_ms)
        for side in ("left", "right"):
            part = robot.arm_slice(side)
            operator.read(side, reading(now_ms * MS, robot.joint_names[part], position[part]))
        step = operator.step(now_ms * MS, measured(now_ms * MS, follower))
    return step


def test_names_signs_offsets_and_the_trigger_are_mapped(robot):
    arm = LeaderArm(
        NAMES, signs=(1, -1, 1, 1, 1, 1), offsets_rad=(0, 0.5, 0, 0, 0, 0), gripper_closed=-1.0, gripper_open=1.0
    )
    mapping = LeaderMap(robot, "right", arm)
    found = mapping.positions(reading(0, reversed(NAMES), [0.5, 0.0, 0.0, 0.0, 0.0, 0.2, 0.1]))
    assert np.allclose(found, [0.1, 0.3, 0, 0, 0, 0, 0.03])


def test_the_robots_own_names_are_the_default(robot, ready):
    mapping = LeaderMap(robot, "left", LeaderArm())
    assert np.array_equal(mapping.positions(reading(0, robot.joint_names, ready)), ready[:7])


def test_a_leader_that_lacks_a_joint_is_named(robot):
    with pytest.raises(EmbodimentMismatch, match="leader joint states lack l6; found l0, l1"):
        LeaderMap(robot, "left", LeaderArm(NAMES)).positions(reading(0, NAMES[:6], np.zeros(6)))


def test_a_mapping_of_the_wrong_length_is_refused(robot):
    with pytest.raises(ConfigError, match="left leader: signs has 2 values, robot 'sim_cell' needs 6"):
        LeaderMap(robot, "left", LeaderArm(signs=(1, 1)))


def test_nothing_moves_until_the_leaders_match(robot, measured, ready):
    hands = operator(robot)
    hands.arm()
    step = drive(hands, robot, measured, lambda ms: ready + 0.2, ready)
    assert step.chunk is None
    assert step.clutch is Clutch.MATCHING
    step = drive(hands, robot, measured, lambda ms: ready, ready, 1000, 1500)
    assert step.clutch is Clutch.ENGAGED
    assert step.chunk.source is Source.TAKEOVER
    assert np.allclose(step.chunk.positions, ready, atol=1e-3)


def test_a_moving_leader_is_led_by_its_velocity(robot, measured, ready):
    hands = operator(robot)
    hands.arm()
    drive(hands, robot, measured, lambda ms: ready, ready, 0, 600)
    pace = np.where(robot.gripper_mask, 0.0, 0.2)
    step = drive(hands, robot, measured, lambda ms: ready + pace * (ms - 600) / 1000, ready, 600, 1000)
    now = ready + pace * 0.38
    assert np.allclose(step.chunk.positions[0], now + pace * 0.05 * (1 - np.exp(-0.4)), atol=1e-3)


def test_one_leader_moves_one_arm(robot, measured, ready):
    hands = operator(robot, LeaderConfig(sides=("left",)))
    hands.arm()
    for now_ms in range(0, 600, 20):
        hands.read("left", reading(now_ms * MS, robot.joint_names[:7], ready[:7]))
        step = hands.step(now_ms * MS, measured(now_ms * MS, ready))
    assert step.chunk.joint_names == robot.joint_names[:7]


def test_a_silent_robot_lets_go(robot, measured, ready):
    hands = operator(robot)
    hands.arm()
    drive(hands, robot, measured, lambda ms: ready, ready, 0, 600)
    step = hands.step(600 * MS, measured(300 * MS, ready))
    assert (step.chunk, step.clutch) == (None, Clutch.MATCHING)
    assert "joint_states silent for 0.30 s" in step.reason


def test_the_second_leader_is_waited_for(robot, measured, ready):
    hands = operator(robot)
    hands.arm()
    hands.read("left", reading(0, robot.joint_names[:7], ready[:7]))
    assert "no leader joint states yet" in hands.step(0, measured(0, ready)).reason


def test_release_stops_the_chunks(robot, measured, ready):
    hands = operator(robot)
    hands.arm()
    drive(hands, robot, measured, lambda ms: ready, ready, 0, 600)
    hands.release("deactivated")
    step = drive(hands, robot, measured, lambda ms: ready, ready, 600, 640)
    assert (step.chunk, step.clutch, step.reason) == (None, Clutch.RELEASED, "deactivated")


def test_absurd_configs_are_refused():
    with pytest.raises(ConfigError, match="signs of a leader are 1 or -1, found"):
        LeaderArm(signs=(2.0,))
    with pytest.raises(ConfigError, match=r"leader sides must be left, right or both, found \['up'\]"):
        LeaderConfig(sides=("up",))
    with pytest.raises(ConfigError, match="smoothing_s must be positive"):
        LeaderConfig(smoothing_s=0)
