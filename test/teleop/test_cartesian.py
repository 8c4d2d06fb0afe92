# SPDX-License-Identifier: Apache-2.0
"""Tool velocities to joint targets, on the shipped robot's own kinematics."""

import numpy as np
import pytest

pytest.importorskip("pinocchio", reason="needs pinocchio")
pytest.importorskip("xacro", reason="needs xacro")

from imagewam_ros.core.errors import ConfigError, DeviceError
from imagewam_ros.core.schema import Source
from imagewam_ros.kinematics.chains import Chains
from imagewam_ros.kinematics.description import expand
from imagewam_ros.teleop.cartesian import CartesianConfig, CartesianOperator
from imagewam_ros.teleop.jog import LEFT, RIGHT, Jog
from imagewam_ros.teleop.operator import ChunkConfig, ChunkMaker, Clutch

MS = 1_000_000


class Hand:
    """A device that a test moves."""

    def __init__(self):
        self.jog, self.lost = Jog.rest(), False

    def read(self, now_ns):
        if self.lost:
            raise DeviceError("unplugged")
        return self.jog

    def wish(self, row, linear=(0, 0, 0), angular=(0, 0, 0), gripper=0.0):
        self.jog = Jog.rest()
        self.jog.linear[row], self.jog.angular[row], self.jog.gripper[row] = linear, angular, gripper
        self.jog.enabled[row] = True

    def close(self):
        pass


@pytest.fixture(scope="module")
def chains(robot):
    return Chains(expand(), robot)


@pytest.fixture
def hand():
    return Hand()


class Follower:
    """Arms that are where the last chunk's first row put them, unless they are blocked."""

    def __init__(self, chains, hand, measured, position, **overrides):
        robot = chains.embodiment
        self.operator = CartesianOperator(
            chains, hand, CartesianConfig(**overrides), ChunkMaker(robot, ChunkConfig(), Source.TELEOP)
        )
        self.operator.arm()
        self.robot, self.measured, self.position, self.now_ms, self.blocked = robot, measured, position.copy(), 0, False

    def run(self, ms):
        for _ in range(0, ms, 20):
            step = self.operator.step(self.now_ms * MS, self.measured(self.now_ms * MS, self.position))
            if step.chunk is not None and not self.blocked:
                index = [self.robot.joint_names.index(name) for name in step.chunk.joint_names]
                self.position[index] = step.chunk.positions[0]
            self.now_ms += 20
        return step


@pytest.fixture
def follower(chains, hand, measured, ready):
    return Follower(chains, hand, measured, ready)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_straight_push_is_straight_level_and_as_fast_as_asked(chains, hand, follower, axis):
    before = chains.forward(follower.position)
    hand.wish(LEFT, linear=np.eye(3)[axis] * -0.5)
    follower.run(1000)
    hand.jog = Jog.rest()
    follower.run(100)
    after = chains.forward(follower.position)
    moved = after["left"][:3, 3] - before["left"][:3, 3]
    assert np.allclose(moved, np.eye(3)[axis] * -0.1, atol=3e-3)
    assert np.allclose(after["left"][:3, :3], before["left"][:3, :3], atol=5e-3)
    assert np.allclose(after["right"], before["right"])


def test_a_turn_stays_on_its_spot(chains, hand, follower):
    before = chains.forward(follower.position)["right"]
    hand.wish(RIGHT, angular=(0, 0, 0.5))
    follower.run(1000)
    hand.jog = Jog.rest()
    follower.run(100)
    after = chains.forward(follower.position)["right"]
    assert np.allclose(after[:3, 3], before[:3, 3], atol=3e-3)
    turn = after[:3, :3] @ before[:3, :3].T
    assert np.isclose(np.arctan2(turn[1, 0], turn[0, 0]), 0.5, atol=0.02)


def test_in_the_tool_frame_forward_is_where_the_tool_points(chains, hand, measured, ready):
    follower = Follower(chains, hand, measured, ready, frame="tool")
    before = chains.forward(follower.position)["left"]
    hand.wish(LEFT, linear=(0.5, 0, 0))
    follower.run(400)
    after = chains.forward(follower.position)["left"]
    moved = after[:3, 3] - before[:3, 3]
    assert np.allclose(moved / np.linalg.norm(moved), before[:3, 0], atol=0.05)


def test_only_the_enabled_arm_is_named(hand, follower, robot):
    hand.wish(RIGHT, linear=(0, 0, 1))
    assert follower.run(40).chunk.joint_names == robot.joint_names[7:]


def test_letting_go_sends_one_chunk_at_rest_and_then_none(hand, follower):
    hand.wish(LEFT, linear=(0, 0, 1))
    moving = follower.run(200)
    assert not np.allclose(moving.chunk.positions[0], moving.chunk.positions[-1])
    hand.jog = Jog.rest()
    last = follower.run(20)
    assert np.allclose(last.chunk.positions[0], last.chunk.positions[-1])
    step = follower.run(20)
    assert (step.chunk, step.clutch) == (None, Clutch.MATCHING)
    assert step.reason == "hold the dead-man switch to move"


def test_joint_rates_keep_their_share_even_when_singular(chains, hand, measured, robot):
    follower = Follower(chains, hand, measured, np.zeros(14), joint_share=0.5)  # stretched out: singular
    hand.wish(LEFT, linear=(-1, 0.5, -1), angular=(1, 1, 1))
    fastest = np.zeros(14)
    for _ in range(50):
        before = follower.operator._target.copy()
        follower.run(20)
        if follower.now_ms > 40:
            fastest = np.maximum(fastest, np.abs(follower.operator._target - before) / 0.02)
    assert np.all(fastest <= robot.limits.velocity * 0.5 + 1e-9)
    assert fastest.max() > 0.1


def test_bounds_hold_and_the_way_back_is_immediate(chains, hand, follower, robot):
    hand.wish(LEFT, linear=(0, 0, 1))
    follower.run(5000)
    assert np.all(follower.position <= robot.limits.upper)
    assert np.all(follower.position >= robot.limits.lower)
    top = chains.forward(follower.position)["left"][2, 3]
    hand.wish(LEFT, linear=(0, 0, -1))
    follower.run(1000)
    assert chains.forward(follower.position)["left"][2, 3] < top - 0.05


def test_a_blocked_arm_is_not_wound_up(hand, follower):
    follower.blocked = True
    hand.wish(LEFT, linear=(0, 0, -1))
    follower.run(3000)
    assert np.abs(follower.operator._target - follower.position)[:6].max() <= 0.25 + 1e-9


def test_the_gripper_opens_at_its_pace_and_stops_at_its_bound(hand, follower):
    hand.wish(LEFT, gripper=1.0)
    follower.run(200)
    assert 0.025 < follower.position[6] < 0.032
    follower.run(2000)
    assert follower.position[6] == 0.04


def test_sag_is_not_followed_down_but_another_commander_is(hand, follower, ready):
    hand.wish(LEFT, gripper=-1.0)
    follower.run(100)
    hand.jog = Jog.rest()
    follower.run(60)
    target = follower.operator._target.copy()
    follower.position[1] += 0.02
    hand.wish(LEFT)
    assert np.allclose(follower.run(20).chunk.positions[0], target[:7])
    hand.jog = Jog.rest()
    follower.run(60)
    follower.position[6] = 0.035
    hand.wish(LEFT)
    assert np.isclose(follower.run(20).chunk.positions[0][6], 0.035)


def test_an_arm_that_joins_later_starts_from_where_it_is(hand, follower):
    hand.wish(LEFT, linear=(0, 0, 1))
    hand.jog.enabled[RIGHT] = True
    follower.run(100)
    hand.jog.enabled[RIGHT] = False
    follower.run(100)
    follower.position[7:13] += 0.3
    hand.jog.enabled[RIGHT] = True
    step = follower.run(20)
    assert len(step.chunk.joint_names) == 14
    assert np.allclose(step.chunk.positions[0][7:], follower.position[7:], atol=1e-3)


def test_without_arming_nothing_moves(hand, follower):
    follower.operator.release("deactivated")
    hand.wish(LEFT, linear=(0, 0, 1))
    step = follower.run(100)
    assert (step.chunk, step.clutch, step.reason) == (None, Clutch.RELEASED, "deactivated")


def test_a_lost_device_and_a_silent_robot_stop(hand, follower, measured, ready):
    hand.wish(LEFT, linear=(0, 0, 1))
    follower.run(100)
    hand.lost = True
    assert follower.run(20).reason == "unplugged"
    hand.lost = False
    step = follower.operator.step(5000 * MS, measured(4000 * MS, ready))
    assert step.chunk is None
    assert "joint_states silent for 1.00 s" in step.reason


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        ({"frame": "camera"}, "frame must be base or tool, found 'camera'"),
        ({"joint_share": 1.5}, r"joint_share must be in \(0, 1\], found 1.5"),
        ({"linear_m_s": 0, "lead_rad": -1}, "linear_m_s, lead_rad must be positive"),
    ],
)
def test_absurd_configs_are_refused(overrides, text):
    with pytest.raises(ConfigError, match=text):
        CartesianConfig(**overrides)
