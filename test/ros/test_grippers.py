# SPDX-License-Identifier: Apache-2.0
"""Grippers on topics and as actions, and what trajectory controllers tell of themselves."""

import importlib.util

import numpy as np
import pytest
import rclpy
from rclpy.action import ActionServer
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray

from imagewam_ros.action import RunPolicy
from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.paths import share_dir
from imagewam_ros.core.schema import ActionChunk, Command
from imagewam_ros.core.schema import JointState as Joints
from imagewam_ros.msg import ActionChunk as ActionChunkMsg
from imagewam_ros.msg import ExecutorStatus
from imagewam_ros.nodes import messages, qos, topics
from imagewam_ros.nodes.grippers import GripperActions
from imagewam_ros.nodes.lifecycle import ManagedNode

ROBOT = load_embodiment("sim_cell")
INSTALLED = importlib.util.find_spec("control_msgs") is not None
needs_control_msgs = pytest.mark.skipif(not INSTALLED, reason="needs control_msgs")


class Driver:
    """Arms that stand still in the middle, whatever they are told; an executor in front of them."""

    def __init__(self, spawn, probe, **parameters: object) -> None:
        self.probe, node = probe, probe.node
        self.statuses = probe.collect(ExecutorStatus, topics.STATUS, qos.STATUS)
        self.position = (ROBOT.limits.lower + ROBOT.limits.upper) / 2
        self._joints = node.create_publisher(JointState, topics.JOINT_STATES, qos.JOINT_STATES_OUT)
        self._chunks = node.create_publisher(ActionChunkMsg, topics.CHUNK, qos.CHUNKS)
        node.create_timer(0.01, self._tick)
        quiet = {"control__joint_state_timeout_s": 2.0, "control__late_limit_s": 0.5, "guarded": False}
        self.executor = spawn("imagewam_ros.nodes.executor_node", **{**quiet, **parameters})

    @property
    def now_ns(self) -> int:
        return int(self.probe.node.get_clock().now().nanoseconds)

    def _tick(self) -> None:
        state = Joints(self.now_ns, ROBOT.joint_names, self.position, np.zeros(14))
        self._joints.publish(messages.from_joint_state(state))

    def start(self) -> None:
        assert self.probe.change("executor", "configure"), self.executor.text()
        assert self.probe.until(lambda: self.probe.change("executor", "activate")), self.executor.text()

    def grip(self, left_m: float, right_m: float) -> None:
        """One chunk that moves the grippers alone."""
        rows = np.tile(self.position, (16, 1))
        rows[:, [6, 13]] = (left_m, right_m)
        chunk = ActionChunk(self.now_ns, 50_000_000, ROBOT.joint_names, rows, contract_hash="cafe")
        self._chunks.publish(messages.from_chunk(chunk))

    def wait(self, condition) -> ExecutorStatus:
        assert self.probe.until(lambda: self.statuses and condition(self.statuses[-1])), self.executor.text()
        return self.statuses[-1]


def listen(probe, kind: str) -> dict[str, list]:
    """Subscribe to all controllers of output `forward`."""
    heard: dict[str, list] = {}
    for side in ("left", "right"):
        probe.collect(Float64MultiArray, topics.forward(side), qos.COMMANDS)
        if kind == "topics":
            heard[side] = probe.collect(Float64MultiArray, topics.gripper(side), qos.COMMANDS)
    return heard


def test_grippers_in_per_cent_of_their_range(spawn, probe) -> None:
    driver, heard = Driver(spawn, probe, grippers="percent"), listen(probe, "topics")
    driver.start()
    assert probe.until(lambda: heard["left"] and heard["right"])
    assert heard["left"][-1].data[0] == pytest.approx(50.0)
    driver.grip(0.04, 0.0)
    assert probe.until(lambda: heard["left"][-1].data[0] > 99.9 and heard["right"][-1].data[0] < 0.1)


def test_a_hundred_per_cent_is_open_whichever_bound_that_is(spawn, probe, tmp_path) -> None:
    robot = tmp_path / "mine.yaml"
    shipped = (share_dir() / "config" / "robots" / "sim_cell.yaml").read_text()
    robot.write_text(shipped.replace("_gripper, unit: m,", "_gripper, unit: m, open: lower,"))
    driver, heard = Driver(spawn, probe, grippers="percent", robot=robot), listen(probe, "topics")
    driver.start()
    assert probe.until(lambda: heard["left"] and heard["right"])
    driver.grip(0.04, 0.0)
    assert probe.until(lambda: heard["left"][-1].data[0] < 0.1 and heard["right"][-1].data[0] > 99.9)


@pytest.mark.skipif(INSTALLED, reason="control_msgs is installed")
@pytest.mark.parametrize("kind", ["gripper_command", "parallel_gripper_command"])
def test_actions_without_control_msgs_say_what_to_install(spawn, probe, kind) -> None:
    driver = Driver(spawn, probe, grippers=kind)
    assert not probe.change("executor", "configure")
    assert "which is not installed here; install ros-$ROS_DISTRO-control-msgs" in driver.executor.text()


def test_an_unknown_way_names_the_nearest(spawn, probe) -> None:
    driver = Driver(spawn, probe, grippers="gripper_comand")
    assert not probe.change("executor", "configure")
    assert "unknown grippers 'gripper_comand'; did you mean 'gripper_command'" in driver.executor.text()


def test_a_gripper_gets_no_goal_of_an_executor_that_sends_nothing(ros) -> None:
    node, goals, looks = ManagedNode("gripping"), [], []

    def make_goal(arm, position: float) -> RunPolicy.Goal:
        goals.append((arm.side, position))
        return RunPolicy.Goal()

    grippers = GripperActions(node, ROBOT, RunPolicy, make_goal)
    node.every(0.05, lambda: looks.append(1))
    zero = np.zeros(14)

    def look(*tick_and_place: tuple[int, float]) -> list:
        goals.clear()
        looks.clear()
        for tick, place in tick_and_place:
            grippers.send(Command(tick, tick, 1, ROBOT.joint_names, zero + place, zero, zero))
        while len(looks) < 2:
            rclpy.spin_once(node, timeout_sec=0.1)
        return list(goals)

    node.is_active = True
    assert look((0, 0.0)) == []
    assert look((1, 0.04)) == [("left", 0.04), ("right", 0.04)]
    grippers._asked = {"left": 0.0, "right": 0.0}  # as a refusal leaves it
    assert look() == [], "nothing is sent any more"
    node.is_active = False
    assert look((2, 0.0)) == []
    node.teardown()


@needs_control_msgs
@pytest.mark.parametrize("kind", ["gripper_command", "parallel_gripper_command"])
def test_grippers_get_few_goals_and_the_last_is_the_target(spawn, probe, kind) -> None:
    from control_msgs.action import GripperCommand, ParallelGripperCommand

    driver, goals = Driver(spawn, probe, grippers=kind, gripper_effort=12.0), {"left": [], "right": []}
    listen(probe, "actions")
    assert probe.change("executor", "configure"), driver.executor.text()
    text = "nobody listens to left_gripper_controller/gripper_cmd"
    assert probe.until(lambda: not probe.change("executor", "activate") and text in driver.executor.text())
    action = GripperCommand if kind == "gripper_command" else ParallelGripperCommand

    def serve(side: str) -> None:
        def execute(goal):
            command = goal.request.command
            plain = kind == "gripper_command"
            goals[side].append(
                (command.position, command.max_effort) if plain else (command.position[0], command.effort[0])
            )
            if not plain:
                assert list(command.name) == [f"{side}_gripper"]
            goal.succeed()
            return action.Result()

        ActionServer(probe.node, action, topics.gripper_action(side), execute)

    serve("left")
    serve("right")
    assert probe.until(lambda: probe.change("executor", "activate")), driver.executor.text()
    driver.wait(lambda s: s.state == ExecutorStatus.HOLDING)
    assert goals == {"left": [], "right": []}, "a gripper that nobody moves gets no goal"
    driver.grip(0.04, 0.0)
    assert probe.until(lambda: all(goals.values()) and goals["left"][-1][0] > 0.0399 and goals["right"][-1][0] < 1e-4)
    assert goals["left"][-1][1] == 12.0
    assert len(goals["left"]) <= 25, "and not one per control period"


def state_publishers(probe) -> dict:
    from control_msgs.msg import JointTrajectoryControllerState

    publishers = {}
    for side in ("left", "right"):
        probe.collect(Float64MultiArray, topics.gripper(side), qos.COMMANDS)
        publishers[side] = probe.node.create_publisher(
            JointTrajectoryControllerState, topics.controller_state(side), qos.JOINT_STATES_OUT
        )
    return publishers


@pytest.fixture
def told(spawn, probe):
    """A driver whose trajectory controllers tell their state; errors by side, None for silence."""
    from control_msgs.msg import JointTrajectoryControllerState
    from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

    driver = Driver(spawn, probe, output="trajectory")
    for side in ("left", "right"):
        probe.collect(JointTrajectory, topics.trajectory(side), qos.COMMANDS)
    errors: dict[str, float | None] = {"left": 0.0, "right": 0.0}
    publishers = state_publishers(probe)

    def tell() -> None:
        for side, publisher in publishers.items():
            if errors[side] is not None:
                names = [joint.name for arm in ROBOT.arms if arm.side == side for joint in arm.joints]
                point = JointTrajectoryPoint(positions=[errors[side], *[0.0] * (len(names) - 1)])
                publisher.publish(JointTrajectoryControllerState(joint_names=names, error=point))

    probe.node.create_timer(0.02, tell)
    driver.start()
    driver.wait(lambda s: s.state == ExecutorStatus.HOLDING)
    return driver, errors


@needs_control_msgs
def test_a_controller_that_falls_silent_holds_both_arms(told, probe) -> None:
    driver, errors = told
    count = len(driver.statuses)
    assert probe.until(lambda: len(driver.statuses) > count + 10)
    assert "silent" not in driver.statuses[-1].reason
    errors["right"] = None
    status = driver.wait(lambda s: s.state == ExecutorStatus.HOLDING and "silent" in s.reason)
    assert status.reason.startswith("right arm's controller silent for ")
    assert probe.change("executor", "deactivate")
    assert not probe.until(lambda: False, 1.1), "long enough to be called silent"
    assert not probe.change("executor", "activate")
    text = "nobody listens to right_joint_trajectory_controller/controller_state"
    assert probe.until(lambda: text in driver.executor.text())


@needs_control_msgs
def test_a_controller_that_strays_is_a_fault(told) -> None:
    driver, errors = told
    errors["left"] = 0.6
    status = driver.wait(lambda s: s.state == ExecutorStatus.FAULTED)
    assert "joint 'left_waist' is 0.600 from what its controller aims at (limit 0.35)" in status.reason
