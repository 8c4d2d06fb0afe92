# SPDX-License-Identifier: Apache-2.0
"""The ways to the grippers: one value per control period on a topic, or goals of an action.

Actions are for grippers whose driver plans its own motion (gripper_action_controller,
parallel_gripper_action_controller of ros2_controllers). They get a goal when the target has moved
far enough, and a last one once it rests; a newer goal replaces the one before.
"""

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

from rclpy.action.client import ActionClient
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray

from imagewam_ros.core.embodiment import GRIPPERS, Arm, Embodiment
from imagewam_ros.core.errors import ConfigError, unknown_name
from imagewam_ros.core.schema import Command
from imagewam_ros.nodes import messages, qos, topics
from imagewam_ros.nodes.lifecycle import ManagedNode

GOAL_S = 0.05
"""How often it is looked whether a gripper needs a new goal."""

MOVED_SHARE = 0.05
"""A target that moved by this share of the gripper's range is a new goal at once."""

RESTS_SHARE = 0.001
"""A resting target that differs from the last goal by this share of the range is a new goal."""


class Grippers(Protocol):
    """Where gripper targets go."""

    def send(self, command: Command) -> None:
        """Take one sample."""
        ...

    def silent(self) -> list[tuple[str, str]]:
        """Arms whose gripper nobody listens for, with the name of the topic or action."""
        ...


class GripperTopics:
    """One value per period to each gripper's forward controller: its position, or how far it is open in per cent."""

    def __init__(self, node: ManagedNode, robot: Embodiment, percent: bool) -> None:
        self._parts = []
        for arm in robot.arms:
            publisher = node.publisher(Float64MultiArray, topics.gripper(arm.side), qos.COMMANDS)
            place = robot.arm_slice(arm.side).stop - 1
            scale, zero = 100 / (arm.gripper.opened - arm.gripper.closed), arm.gripper.closed
            self._parts.append((arm.side, publisher, place, (scale, zero) if percent else (1.0, 0.0)))

    def send(self, command: Command) -> None:
        """Send both grippers' values."""
        for _, publisher, place, (scale, zero) in self._parts:
            publisher.publish(messages.from_values((command.position[place : place + 1] - zero) * scale))

    def silent(self) -> list[tuple[str, str]]:
        """Arms whose topic has no subscriber."""
        return [(side, str(p.topic_name)) for side, p, *_ in self._parts if p.get_subscription_count() == 0]


class _Goal(NamedTuple):
    """One gripper's client, its place in the joint vector and what it is asked."""

    arm: Arm
    client: Any
    place: int


class GripperActions:
    """Goals to each gripper's action server; `make_goal(arm, position)` fills one."""

    def __init__(self, node: ManagedNode, robot: Embodiment, kind: Any, make_goal: Callable[[Arm, float], Any]) -> None:
        self._node, self._make_goal = node, make_goal
        self._command: Command | None = None
        self._tick = -1
        self._asked: dict[str, float] = {}
        self._goals = []
        for arm in robot.arms:
            client: Any = ActionClient(node, kind, topics.gripper_action(arm.side))
            node.cleanup.callback(client.destroy)
            self._goals.append(_Goal(arm, client, robot.arm_slice(arm.side).stop - 1))
        node.every(GOAL_S, self._consider)

    def send(self, command: Command) -> None:
        """Take one sample; goals are sent from the node's own thread."""
        if command.tick <= self._tick:
            self._asked = {}  # another activation: where the gripper is, it stays
        self._tick, self._command = command.tick, command

    def silent(self) -> list[tuple[str, str]]:
        """Arms whose action server is not there."""
        return [
            (goal.arm.side, topics.gripper_action(goal.arm.side))
            for goal in self._goals
            if not goal.client.server_is_ready()
        ]

    def _consider(self) -> None:
        command, self._command = self._command, None  # where nothing is sent any more nothing is asked for
        if command is None or not self._node.is_active:
            return
        for arm, client, place in self._goals:
            target, span = float(command.position[place]), arm.gripper.upper - arm.gripper.lower
            rests = command.velocity[place] == 0
            asked = self._asked.setdefault(arm.side, target)  # where it is when it starts, it stays
            if abs(target - asked) <= (RESTS_SHARE if rests else MOVED_SHARE) * span:
                continue
            self._asked[arm.side] = target
            answered = partial(self._answered, arm.side, asked)
            client.send_goal_async(self._make_goal(arm, target)).add_done_callback(answered)

    def _answered(self, side: str, before: float, future: Any) -> None:
        goal = future.result()
        if goal is not None and not goal.accepted:
            self._asked[side] = before  # so that it is asked again
            self._node.complain("a gripper refused its goal; is its controller active and the target in its range?")


def make_grippers(kind: str, node: ManagedNode, robot: Embodiment, effort: float) -> Grippers:
    """Return the way to the grippers called `kind`; `effort` in N goes into goals, 0 leaves it to the driver.

    Raises ConfigError for an unknown kind, and for actions without control_msgs.
    """
    if kind not in GRIPPERS:
        raise ConfigError(unknown_name("grippers", kind, GRIPPERS))
    if kind in ("commands", "percent"):
        return GripperTopics(node, robot, kind == "percent")
    if kind == "gripper_command":
        action = _action("GripperCommand", kind)

        def plain(arm: Arm, position: float) -> Any:
            goal = action.Goal()
            goal.command.position, goal.command.max_effort = position, effort
            return goal

        return GripperActions(node, robot, action, plain)
    action = _action("ParallelGripperCommand", kind)

    def named(arm: Arm, position: float) -> Any:
        state = JointState(name=[arm.gripper.name], position=[position], effort=[effort] if effort else [])
        return action.Goal(command=state)

    return GripperActions(node, robot, action, named)


def _action(name: str, kind: str) -> Any:
    try:
        return getattr(importlib.import_module("control_msgs.action"), name)
    except (ImportError, AttributeError):
        raise ConfigError(
            f"grippers {kind!r} needs {name} of control_msgs, which is not installed here; install "
            "ros-$ROS_DISTRO-control-msgs, or choose grippers: commands"
        ) from None
