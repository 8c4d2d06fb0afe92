# SPDX-License-Identifier: Apache-2.0
"""The simulated controllers on their topics: what arrives is handed over, what is refused is said."""

from collections.abc import Callable
from functools import partial
from typing import Any

from sensor_msgs.msg import JointState as JointStateMsg
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.schema import Floats
from imagewam_ros.nodes import messages, qos, topics
from imagewam_ros.nodes.lifecycle import ManagedNode
from imagewam_ros.nodes.live_cell import Slice
from imagewam_ros.sim.controllers import ForwardController, JointTrajectoryController

KINDS = ("forward", "trajectory", "joint_command")


class SimControllers:
    """One controller per arm and gripper, of one of KINDS; grippers always have a forward controller."""

    def __init__(self, node: ManagedNode, robot: Embodiment, kind: str, now_ns: Callable[[], int]) -> None:
        """Subscribe on `node`; now_ns is the cell's clock. The controllers themselves come with `make`."""
        self._node, self._robot, self._kind, self._now_ns = node, robot, kind, now_ns
        self._forward: dict[str, ForwardController] = {}
        self._trajectory: dict[str, JointTrajectoryController] = {}
        for side in (arm.side for arm in robot.arms):
            self._listen(Float64MultiArray, topics.gripper(side), partial(self._on_values, gripper_of(side)))
            if kind == "forward":
                self._listen(Float64MultiArray, topics.forward(side), partial(self._on_values, side))
            elif kind == "trajectory":
                self._listen(JointTrajectory, topics.trajectory(side), partial(self._on_trajectory, side))
        if kind == "joint_command":
            self._listen(JointStateMsg, topics.JOINT_COMMAND, self._on_target)

    def make(self, positions: Floats) -> tuple[Slice, ...]:
        """Return new controllers that hold `positions`, (joints,) in the embodiment's order."""
        slices: list[Slice] = []
        for arm in self._robot.arms:
            whole = self._robot.arm_slice(arm.side)
            joints, grip = slice(whole.start, whole.stop - 1), slice(whole.stop - 1, whole.stop)
            names = tuple(joint.name for joint in arm.joints)
            gripper = self._forward[gripper_of(arm.side)] = ForwardController((arm.gripper.name,), positions[grip])
            slices.append(Slice(grip, gripper))
            if self._kind == "trajectory":
                self._trajectory[arm.side] = JointTrajectoryController(names, positions[joints])
                slices.append(Slice(joints, self._trajectory[arm.side]))
            else:
                self._forward[arm.side] = ForwardController(names, positions[joints])
                slices.append(Slice(joints, self._forward[arm.side]))
        return tuple(slices)

    def _listen(self, kind: type, topic: str, callback: Callable[[Any], None]) -> None:
        self._node.subscribe(kind, topic, callback, qos.COMMANDS)

    def _on_values(self, controller: str, message: Float64MultiArray) -> None:
        self._refused(controller, self._forward[controller].accept(messages.to_values(message)))

    def _on_trajectory(self, side: str, message: JointTrajectory) -> None:
        self._refused(side, self._trajectory[side].accept(messages.to_trajectory(message), self._now_ns()))

    def _on_target(self, message: JointStateMsg) -> None:
        target = messages.to_joint_state(message, self._robot.joint_names).position
        for side in (arm.side for arm in self._robot.arms):
            part = target[self._robot.arm_slice(side)]
            self._refused(side, self._forward[side].accept(part[:-1]))
            self._refused(gripper_of(side), self._forward[gripper_of(side)].accept(part[-1:]))

    def _refused(self, controller: str, reason: str | None) -> None:
        if reason is not None:
            self._node.get_logger().warning(f"controller {controller!r}: {reason}", throttle_duration_sec=1.0)


def gripper_of(side: str) -> str:
    """Name of the gripper's controller."""
    return f"{side}_gripper"
