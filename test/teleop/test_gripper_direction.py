# SPDX-License-Identifier: Apache-2.0
"""Whoever says "open" opens the gripper of every robot that ships, whichever of its bounds that is."""

import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pinocchio", reason="needs pinocchio")
pytest.importorskip("xacro", reason="needs xacro")

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.paths import share_dir
from imagewam_ros.core.schema import JointState, Source
from imagewam_ros.kinematics.chains import Chains
from imagewam_ros.kinematics.description import describe
from imagewam_ros.teleop.cartesian import CartesianConfig, CartesianOperator
from imagewam_ros.teleop.jog import Jog
from imagewam_ros.teleop.leader import LeaderArm, LeaderMap
from imagewam_ros.teleop.operator import ChunkConfig, ChunkMaker

OPEN = {
    "aloha": 0.057,
    "fr3": 0.04,
    "openarm": 0.044,
    "piper": 0.035,
    "sim_cell": 0.04,
    "ur3e": 0.0,
    "ur5e": 0.0,
}
"""Where each vendor's gripper is open, m or rad (Source: the descriptions named in each YAML's first lines)."""
STAND_INS = Path(__file__).parents[1] / "kinematics" / "stand_ins"


@pytest.fixture(params=sorted(OPEN))
def robot(request):
    return load_embodiment(request.param)


def test_every_robot_that_ships_is_here():
    assert {path.stem for path in (share_dir() / "config" / "robots").glob("*.yaml")} == set(OPEN)


def test_the_yaml_says_where_it_is_open(robot):
    for arm in robot.arms:
        assert arm.gripper.opened == OPEN[robot.name]
        assert {arm.gripper.opened, arm.gripper.closed} == {arm.gripper.lower, arm.gripper.upper}
        assert arm.gripper.unit == "m" or arm.gripper.open, "of a gripper that turns nobody guesses it"


class Button:
    """A device whose open button, or close button, is held for both arms."""

    def __init__(self, gripper):
        self.jog = Jog.rest()
        self.jog.gripper[:], self.jog.enabled[:] = gripper, True

    def read(self, now_ns):
        return self.jog

    def close(self):
        pass


@pytest.mark.parametrize(("wish", "share"), [(1.0, 0.0), (-1.0, 1.0)], ids=["open", "close"])
def test_the_open_button_opens_and_the_close_button_closes(robot, monkeypatch, wish, share):
    prefixes = [os.environ.get("AMENT_PREFIX_PATH", ""), str(STAND_INS)]
    monkeypatch.setenv("AMENT_PREFIX_PATH", os.pathsep.join(filter(None, prefixes)))
    chains = Chains(describe(robot), robot)
    chunks = ChunkMaker(robot, ChunkConfig(), Source.TELEOP)
    hands = CartesianOperator(chains, Button(wish), CartesianConfig(), chunks)
    hands.arm()
    position = (robot.limits.lower + robot.limits.upper) / 2
    for now_ns in range(0, 2_000_000_000, 20_000_000):
        chunk = hands.step(now_ns, JointState(now_ns, robot.joint_names, position, np.zeros_like(position))).chunk
        position = chunk.positions[0]
    closed = robot.limits.lower + robot.limits.upper - OPEN[robot.name]
    wanted = OPEN[robot.name] + share * (closed - OPEN[robot.name])
    assert np.allclose(position[robot.gripper_mask], wanted[robot.gripper_mask])


def test_a_leaders_open_trigger_opens_its_follower(robot):
    arm = LeaderArm(gripper_closed=-1.0, gripper_open=1.0)
    for side in ("left", "right"):
        mapping, gripper = LeaderMap(robot, side, arm), robot.arms[side == "right"].gripper
        names = robot.joint_names[robot.arm_slice(side)]
        grip = []
        for trigger in (1.0, -1.0):
            reading = np.append(np.zeros(len(names) - 1), trigger)
            grip.append(mapping.positions(JointState(0, names, reading, np.zeros_like(reading)))[-1])
        assert np.allclose(grip, [OPEN[robot.name], gripper.lower + gripper.upper - OPEN[robot.name]])
