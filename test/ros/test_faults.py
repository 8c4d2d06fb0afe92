# SPDX-License-Identifier: Apache-2.0
"""Faults injected into the running cell: the arms come to rest and somebody says why."""

import dataclasses
import re
import signal

import numpy as np
import pytest
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.schema import JointState as Joints
from imagewam_ros.core.schema import Source
from imagewam_ros.msg import ActionChunk, ExecutorCommand, ExecutorStatus
from imagewam_ros.nodes import messages, qos, topics
from imagewam_ros.srv import SetInstruction

ROBOT = load_embodiment("sim_cell")
STANDSTILL_S = 1.0
"""Of simulated time, from the death of the executor until the arms measure no motion."""


@pytest.mark.parametrize("output", ["forward", "trajectory"])
def test_killed_executor_leaves_no_arm_moving(cell, output) -> None:
    running = cell(output=output)
    running.activate()
    running.start_moving()
    running.executor.kill()
    died_ns, last = running.now_ns, running.commands[-1]

    def still() -> bool:
        velocity = messages.to_joint_state(running.joints[-1], ROBOT.joint_names).velocity
        return bool(np.abs(velocity).max() < 0.01)

    assert running.probe.until(still)
    assert (running.now_ns - died_ns) / 1e9 < STANDSTILL_S
    count = len(running.joints)
    assert running.probe.until(lambda: len(running.joints) > count + 100)
    assert still(), "and it stays there"
    beyond = (running.position - last.position)[[0, 7]]
    if output == "forward":
        assert np.abs(beyond).max() < 0.03, "the forward controllers hold the last command"
    else:
        stop = ROBOT.limits.velocity[0] ** 2 / ROBOT.limits.acceleration[0] / 0.7 + 0.1
        assert (beyond > -0.02).all() and (beyond < stop).all(), "the trajectory controllers play to the rest point"


def test_paused_policy_is_not_obeyed_with_what_it_saw_long_ago(spawn, probe, cell, checkpoint) -> None:
    running = cell()
    policy = spawn("imagewam_ros.nodes.policy_node", checkpoint=checkpoint, use_sim_time=True)
    assert probe.change("policy", "configure", "activate"), policy.text()
    running.activate()
    request = SetInstruction.Request(instruction="lift")
    assert probe.call(SetInstruction, topics.SET_INSTRUCTION, request).success
    running.wait(lambda s: s.state == ExecutorStatus.ACTIVE and s.accepted >= 2)
    policy.process.send_signal(signal.SIGSTOP)
    status = running.wait(lambda s: s.state == ExecutorStatus.HOLDING)
    assert "no new chunk" in status.reason
    running.wait_at_rest()
    accepted, ticks = status.accepted, len(running.joints)
    assert probe.until(lambda: len(running.joints) > ticks + 300), "a pause of a second and a half"
    policy.process.send_signal(signal.SIGCONT)
    running.wait(lambda s: s.state == ExecutorStatus.ACTIVE and s.accepted > accepted)
    running.check_limits()


def test_of_two_commanders_the_lower_one_is_refused(cell) -> None:
    running = cell()
    running.activate()
    running.send(dataclasses.replace(running.chunk(running.lean(0.2)), source=Source.TELEOP))
    running.wait(lambda s: s.state == ExecutorStatus.ACTIVE and s.source == ActionChunk.SOURCE_TELEOP)
    running.send(running.chunk(running.lean(-0.2)))
    status = running.wait(lambda s: s.refused == 1)
    assert "policy is refused" in status.refusal and "teleop commands" in status.refusal
    assert status.source == ActionChunk.SOURCE_TELEOP
    for source in (Source.POLICY, Source.TELEOP) * 3:  # at once: each is judged, none is lost on the way
        running.send(dataclasses.replace(running.chunk(running.lean(0.1)), source=source))
    running.wait(lambda s: s.accepted + s.refused >= 8)


class StillRobot:
    """Controllers, joints and a /clock of the test's own, which may jump."""

    def __init__(self, probe) -> None:
        node = probe.node
        self.now_ns = 1_000_000_000_000
        self._clock = node.create_publisher(Clock, "/clock", qos.CLOCK_OUT)
        self._joints = node.create_publisher(JointState, topics.JOINT_STATES, qos.JOINT_STATES_OUT)
        for arm in ROBOT.arms:
            for topic in (topics.forward(arm.side), topics.gripper(arm.side)):
                node.create_subscription(Float64MultiArray, topic, lambda message: None, qos.COMMANDS)
        node.create_timer(0.005, self._tick)

    def _tick(self) -> None:
        self.now_ns += 5_000_000
        self._clock.publish(Clock(clock=messages.to_time(self.now_ns)))
        state = Joints(self.now_ns, ROBOT.joint_names, np.full(14, 0.02), np.zeros(14))
        self._joints.publish(messages.from_joint_state(state))


@pytest.mark.parametrize("jump_s", [5, -5])
def test_clock_jump_holds_and_recovers(spawn, probe, jump_s) -> None:
    robot = StillRobot(probe)
    statuses = probe.collect(ExecutorStatus, topics.STATUS, qos.STATUS)
    logged = probe.collect(ExecutorCommand, topics.COMMAND, qos.COMMAND_LOG)
    quiet = {"control__joint_state_timeout_s": 1.0, "guarded": False}
    executor = spawn("imagewam_ros.nodes.executor_node", use_sim_time=True, **quiet)
    assert probe.change("executor", "configure"), executor.text()
    assert probe.until(lambda: probe.change("executor", "activate")), executor.text()
    assert probe.until(lambda: len(logged) > 50)
    robot.now_ns += jump_s * 1_000_000_000
    jumped = r"time jumped by (\+5\.0|-4\.9|-5\.0)\d s; waiting for a new chunk"
    assert probe.until(lambda: re.search(jumped, statuses[-1].reason)), statuses[-1].reason
    count = len(logged)
    assert probe.until(lambda: len(logged) > count + 50), "it goes on in the new time"
    assert abs(messages.stamp_ns(logged[-1].nominal) - robot.now_ns) < 200_000_000
    positions = np.array([message.position for message in logged])
    assert np.ptp(positions, axis=0).max() < 1e-9
