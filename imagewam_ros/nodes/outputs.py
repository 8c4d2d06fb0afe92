# SPDX-License-Identifier: Apache-2.0
"""The ways to the arm controllers. Each takes one sent sample per control period.

Real controllers do not stop when their commander dies: the forward controller stays where it
was told to be last, so its last command must be one that can be held; the trajectory controller
plays its trajectory to the end, so every message ends at rest.
"""

from typing import Any, NamedTuple, Protocol

from sensor_msgs.msg import JointState as JointStateMsg
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from imagewam_ros.control.horizon import rolling_horizon
from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import ConfigError, unknown_name
from imagewam_ros.core.schema import Command
from imagewam_ros.nodes import messages, qos, topics
from imagewam_ros.nodes.lifecycle import ManagedNode

LONGEST_GAP_NS = 500_000_000
"""Commands further apart belong to two activations, or the clock was set."""


class Output(Protocol):
    """Where commands go."""

    def send(self, command: Command) -> None:
        """Send one sample."""
        ...

    def silent_topics(self) -> list[str]:
        """Topics that nobody listens to."""
        ...

    def listening_arms(self) -> list[str]:
        """Arms of which every controller listens."""
        ...


class _Part(NamedTuple):
    """A publisher and the part of the joint vector that it carries."""

    publisher: Any
    part: slice
    joint_names: tuple[str, ...]


class _Topics:
    """Publishers of one output, by the arms that they serve."""

    def __init__(self, node: ManagedNode) -> None:
        self._node = node
        self._publishers: list[tuple[tuple[str, ...], Any]] = []

    def add(self, kind: type, topic: str, *sides: str) -> Any:
        publisher = self._node.publisher(kind, topic, qos.COMMANDS)
        self._publishers.append((sides, publisher))
        return publisher

    def silent(self) -> list[str]:
        return [str(p.topic_name) for _, p in self._publishers if p.get_subscription_count() == 0]

    def listening(self) -> list[str]:
        everyone = dict.fromkeys(side for sides, _ in self._publishers for side in sides)
        deaf = {side for sides, p in self._publishers if p.get_subscription_count() == 0 for side in sides}
        return [side for side in everyone if side not in deaf]


def _parts(robot: Embodiment, side: str) -> tuple[slice, slice]:
    """Joints and gripper of an arm in the policy vector."""
    whole = robot.arm_slice(side)
    return slice(whole.start, whole.stop - 1), slice(whole.stop - 1, whole.stop)


class ForwardOutput:
    """Positions to each arm's forward position controller and to each gripper's."""

    def __init__(self, node: ManagedNode, robot: Embodiment) -> None:
        self._topics = _Topics(node)
        self._arms, self._grippers = [], []
        for arm in robot.arms:
            joints, gripper = _parts(robot, arm.side)
            names = robot.joint_names
            forward, grip = topics.forward(arm.side), topics.gripper(arm.side)
            self._arms.append(_Part(self._topics.add(Float64MultiArray, forward, arm.side), joints, names[joints]))
            self._grippers.append(_Part(self._topics.add(Float64MultiArray, grip, arm.side), gripper, names[gripper]))
        self.silent_topics, self.listening_arms = self._topics.silent, self._topics.listening

    def send(self, command: Command) -> None:
        """Send both arms, then both grippers."""
        for publisher, part, _ in (*self._arms, *self._grippers):
            publisher.publish(messages.from_values(command.position[part]))


class TrajectoryOutput:
    """A short trajectory per period to each arm's trajectory controller; grippers as in ForwardOutput.

    The first point is the sample sent before, stamped in the past, so that the controller never
    interpolates from where it measures the arm to be; then the present sample; then the way to
    rest. Both arms carry one stamp.
    """

    def __init__(self, node: ManagedNode, robot: Embodiment, stop_share: float) -> None:
        self._topics = _Topics(node)
        self._limits, self._share = robot.limits, stop_share
        self._arms, self._grippers = [], []
        for arm in robot.arms:
            joints, gripper = _parts(robot, arm.side)
            path, grip = topics.trajectory(arm.side), topics.gripper(arm.side)
            names = robot.joint_names
            self._arms.append(_Part(self._topics.add(JointTrajectory, path, arm.side), joints, names[joints]))
            self._grippers.append(_Part(self._topics.add(Float64MultiArray, grip, arm.side), gripper, names[gripper]))
        self._before: Command | None = None
        self.silent_topics, self.listening_arms = self._topics.silent, self._topics.listening

    def send(self, command: Command) -> None:
        """Send both arms with one stamp, then both grippers."""
        before, self._before = self._before, command
        if before is None or not 0 < command.nominal_ns - before.nominal_ns < LONGEST_GAP_NS:
            return
        stamp_ns, offsets_ns, *motion = rolling_horizon(before, command, self._limits, self._share)
        for publisher, part, names in self._arms:
            samples: list[messages.Sample] = list(zip(*(values[:, part] for values in motion), strict=True))
            publisher.publish(messages.from_trajectory(names, stamp_ns, offsets_ns, samples))
        for publisher, part, _ in self._grippers:
            publisher.publish(messages.from_values(command.position[part]))


class JointCommandOutput:
    """All joints in one sensor_msgs/JointState, which Isaac Sim takes as a command."""

    def __init__(self, node: ManagedNode, robot: Embodiment) -> None:
        self._topics = _Topics(node)
        sides = [arm.side for arm in robot.arms]
        self._publisher = self._topics.add(JointStateMsg, topics.JOINT_COMMAND, *sides)
        self.silent_topics, self.listening_arms = self._topics.silent, self._topics.listening

    def send(self, command: Command) -> None:
        """Send positions and velocities."""
        self._publisher.publish(messages.from_target(command, command.nominal_ns))


KINDS = ("forward", "trajectory", "joint_command")


def make_output(kind: str, node: ManagedNode, robot: Embodiment, stop_share: float) -> Output:
    """Return the output called `kind`. Raises ConfigError with the nearest match."""
    if kind == "forward":
        return ForwardOutput(node, robot)
    if kind == "trajectory":
        return TrajectoryOutput(node, robot, stop_share)
    if kind == "joint_command":
        return JointCommandOutput(node, robot)
    raise ConfigError(unknown_name("output", kind, KINDS))
