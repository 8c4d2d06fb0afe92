# SPDX-License-Identifier: Apache-2.0
"""What an operator sends, the executor takes and plays inside the limits."""

import numpy as np
import pytest

pytest.importorskip("pinocchio", reason="needs pinocchio")
pytest.importorskip("ruckig", reason="needs ruckig")

from imagewam_ros.control.checker import check
from imagewam_ros.control.executor import Executor
from imagewam_ros.core.schema import JointState, Source
from imagewam_ros.kinematics.chains import Chains
from imagewam_ros.kinematics.description import expand
from imagewam_ros.teleop.cartesian import CartesianConfig, CartesianOperator
from imagewam_ros.teleop.clutch import ClutchConfig
from imagewam_ros.teleop.jog import Jog
from imagewam_ros.teleop.leader import LeaderConfig, LeaderOperator
from imagewam_ros.teleop.operator import ChunkConfig, ChunkMaker

MS = 1_000_000
TICK_MS, STEP_MS = 5, 20


def play(robot, operator, before_step, start, seconds):
    """Arms that follow commands exactly, an executor at 200 Hz, an operator at 50 Hz."""
    position, velocity, commands = start.copy(), np.zeros(14), []
    executor = Executor(robot)
    state = JointState(0, robot.joint_names, position, velocity)
    executor.activate(0, state)
    operator.arm()
    for now_ms in range(TICK_MS, round(seconds * 1000), TICK_MS):
        now_ns = now_ms * MS
        if now_ms % STEP_MS == 0:
            before_step(now_ns)
            step = operator.step(now_ns, state)
            if step.chunk is not None:
                verdict = executor.accept(step.chunk, now_ns)
                assert verdict.accepted, verdict.reason
        command = executor.step(now_ns, state).command
        state = JointState(now_ns, robot.joint_names, command.position, command.velocity)
        commands.append(command)
    assert not check(commands, robot.limits)
    return np.array([command.position for command in commands])


def test_leaders_are_followed_closely(robot, ready):
    hands = LeaderOperator(robot, LeaderConfig(), ClutchConfig(), ChunkMaker(robot, ChunkConfig(), Source.TELEOP))
    swing = np.where(robot.gripper_mask, 0.0, 0.3)

    def leader(now_ns):
        return ready + swing * np.sin(max(now_ns / 1e9 - 0.5, 0.0) * 2) ** 2

    def read(now_ns):
        for side in ("left", "right"):
            part = robot.arm_slice(side)
            hands.read(side, JointState(now_ns, robot.joint_names[part], leader(now_ns)[part], np.zeros(7)))

    played = play(robot, hands, read, ready, 2.5)
    asked = np.array([leader(ms * MS) for ms in range(TICK_MS, 2500, TICK_MS)])
    late = round(0.03 / 0.005)
    assert np.abs(played[late:] - asked[:-late]).max() < 0.02
    assert np.abs(played - ready).max() > 0.25


def test_restless_hands_move_the_arms_inside_the_limits(robot, ready):
    wishes = np.random.default_rng(0)

    class Hand:
        jog = Jog.rest()

        def read(self, now_ns):
            if now_ns % (200 * MS) == 0:
                self.jog = Jog(
                    wishes.uniform(-1, 1, (2, 3)),
                    wishes.uniform(-1, 1, (2, 3)),
                    wishes.uniform(-1, 1, 2),
                    wishes.random(2) < 0.8,
                )
            return self.jog

        def close(self):
            pass

    operator = CartesianOperator(
        Chains(expand(), robot), Hand(), CartesianConfig(), ChunkMaker(robot, ChunkConfig(), Source.TELEOP)
    )
    played = play(robot, operator, lambda now_ns: None, ready, 3.0)
    assert np.abs(np.diff(played, axis=0)).sum() > 1.0
