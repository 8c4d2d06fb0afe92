# SPDX-License-Identifier: Apache-2.0
"""The ways to the arm controllers. Each takes one sent sample per control period.

Real controllers do not stop when their commander dies: the forward controller stays where it
was told to be last, so its last command must be one that can be held; the trajectory controller
plays its trajectory to the end, so every message ends at rest.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from sensor_msgs.msg import JointState as JointStateMsg
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from imagewam_ros.control.horizon import rolling_horizon
from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import ConfigError, unknown_name
from imagewam_ros.core.schema import Command
from imagewam_ros.nodes import messages, qos, topics
from imagewam_ros.nodes.controller_states import ControllerStates, Tell
from imagewam_ros.nodes.grippers import Grippers
from imagewam_ros.nodes.lifecycle import ManagedNode

LONGEST_GAP_NS = 500_000_000
"""Commands further apart belong to two activations, or the clock was set."""


class Output(Protocol):
    """Where commands go."""

    def send(self, command: Command) -> None:
        """Send one sample."""
        ...

    def silent_topics(self) -> list[str]:
        """Topics and actions that nobody listens to, and controllers that stopped telling their state."""
        ...

    def listening_arms(self) -> list[str]:
        """Arms of which every controller listens and none tells its own state."""
        ...


class _Part(NamedTuple):
    """A publisher and the part of the joint vector that it carries."""

    side: str
    publisher: Any
    part: slice
    joint_names: tuple[str, ...]


class _ArmTopics:
    """One publisher per arm, without the gripper."""

    def __init__(self, node: ManagedNode, robot: Embodiment, kind: type, topic: Any, grippers: Grippers) -> None:
        self.parts, self.grippers = [], grippers
        for arm in robot.arms:
            whole = robot.arm_slice(arm.side)
            joints = slice(whole.start, whole.stop - 1)
            publisher = node.publisher(kind, topic(arm.side), qos.COMMANDS)
            self.parts.append(_Part(arm.side, publisher, joints, robot.joint_names[joints]))

    def silent(self) -> list[tuple[str, str]]:
        """Arms that nobody listens for, with the name of the topic or action."""
        deaf = [(p.side, str(p.publisher.topic_name)) for p in self.parts if not p.publisher.get_subscription_count()]
        return deaf + self.grippers.silent()

    def listening(self) -> list[str]:
        """Arms of which every controller listens."""
        deaf = {side for side, _ in self.silent()}
        return [part.side for part in self.parts if part.side not in deaf]


class ForwardOutput:
    """Positions to each arm's forward position controller and to each gripper."""

    def __init__(self, node: ManagedNode, robot: Embodiment, grippers: Grippers) -> None:
        self._arms, self._grippers = _ArmTopics(node, robot, Float64MultiArray, topics.forward, grippers), grippers
        self.listening_arms = self._arms.listening

    def send(self, command: Command) -> None:
        """Send both arms, then both grippers."""
        for _, publisher, part, _ in self._arms.parts:
            publisher.publish(messages.from_values(command.position[part]))
        self._grippers.send(command)

    def silent_topics(self) -> list[str]:
        """Topics and actions that nobody listens to."""
        return [name for _, name in self._arms.silent()]


class TrajectoryOutput:
    """A short trajectory per period to each arm's trajectory controller; grippers as in ForwardOutput.

    The first point is the sample sent before, stamped in the past, so that the controller never
    interpolates from where it measures the arm to be; then the present sample; then the way to
    rest. Both arms carry one stamp.
    """

    def __init__(self, node: ManagedNode, robot: Embodiment, stop_share: float, grippers: Grippers, tell: Tell) -> None:
        self._limits, self._share = robot.limits, stop_share
        self._arms, self._grippers = _ArmTopics(node, robot, JointTrajectory, topics.trajectory, grippers), grippers
        self._states = ControllerStates(node, robot, tell)
        self._before: Command | None = None

    def send(self, command: Command) -> None:
        """Send both arms with one stamp, then both grippers."""
        before, self._before = self._before, command
        if before is None or not 0 < command.nominal_ns - before.nominal_ns < LONGEST_GAP_NS:
            return
        stamp_ns, offsets_ns, *motion = rolling_horizon(before, command, self._limits, self._share)
        for _, publisher, part, names in self._arms.parts:
            samples: list[messages.Sample] = list(zip(*(values[:, part] for values in motion), strict=True))
            publisher.publish(messages.from_trajectory(names, stamp_ns, offsets_ns, samples))
        self._grippers.send(command)

    def silent_topics(self) -> list[str]:
        """Topics and actions that nobody listens to, and controllers that stopped telling their state."""
        return [name for _, name in self._arms.silent()] + self._states.fallen_silent()

    def listening_arms(self) -> list[str]:
        """Arms of which every controller listens and none tells its own state."""
        return [side for side in self._arms.listening() if side not in self._states.heard]


class JointCommandOutput:
    """All joints in one sensor_msgs/JointState, which Isaac Sim takes as a command."""

    def __init__(self, node: ManagedNode, robot: Embodiment) -> None:
        self._publisher = node.publisher(JointStateMsg, topics.JOINT_COMMAND, qos.COMMANDS)
        self._sides = [arm.side for arm in robot.arms]

    def send(self, command: Command) -> None:
        """Send positions and velocities."""
        self._publisher.publish(messages.from_target(command, command.nominal_ns))

    def silent_topics(self) -> list[str]:
        """The topic, when nobody listens."""
        return [] if self._publisher.get_subscription_count() else [str(self._publisher.topic_name)]

    def listening_arms(self) -> list[str]:
        """Both arms, when somebody listens."""
        return self._sides if self._publisher.get_subscription_count() else []


KINDS = ("forward", "trajectory", "joint_command")


def make_output(
    kind: str, node: ManagedNode, robot: Embodiment, stop_share: float, grippers: Callable[[], Grippers], tell: Tell
) -> Output:
    """Return the output called `kind`; `grippers` makes the way to the grippers, `tell` takes controllers' states.

    Raises ConfigError with the nearest match, and what `grippers` raises.
    """
    if kind == "forward":
        return ForwardOutput(node, robot, grippers())
    if kind == "trajectory":
        return TrajectoryOutput(node, robot, stop_share, grippers(), tell)
    if kind == "joint_command":
        return JointCommandOutput(node, robot)
    raise ConfigError(unknown_name("output", kind, KINDS))
