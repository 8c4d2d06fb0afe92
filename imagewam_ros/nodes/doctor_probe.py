# SPDX-License-Identifier: Apache-2.0
"""The ears of `imagewam doctor`: listen to a running cell for some seconds and command nothing."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image as ImageMsg
from sensor_msgs.msg import JointState as JointStateMsg

from imagewam_ros.core.embodiment import Camera, Embodiment
from imagewam_ros.core.errors import ImageWamError
from imagewam_ros.core.joints import JointMerge
from imagewam_ros.core.schema import Image
from imagewam_ros.doctor_checks.streams import Heard, Joints, Stream
from imagewam_ros.nodes import messages, qos, topics

APPEAR_S = 3.0
"""Until a first publisher of the cell is found."""
REST_S = 0.5
"""For the other publishers, which are found at about the same time."""
CONNECT_S = 10.0
"""At most, until every topic was heard once; a loaded machine connects slowly."""
WAKE_S = 0.1
KEPT_PER_S = 5.0
"""Pictures kept per second and camera."""
KEPT_PX = 64
"""Longer side of a kept picture, at most twice this."""


def listen(robot: Embodiment, seconds: float, namespace: str = "") -> Heard:
    """Listen to the cell of `robot` for `seconds` once it is connected; needs no running ROS of the caller's."""
    context = Context()
    rclpy.init(context=context, args=[])  # or it would take the name of the node that asks
    try:
        node = Node("doctor_probe", namespace=namespace, context=context)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        wanted = [topics.JOINT_STATES, *(name for c in robot.cameras for name in (c.topic, topics.compressed(c.topic)))]
        _spin(executor, APPEAR_S, lambda: any(map(node.count_publishers, wanted)))
        _spin(executor, REST_S)
        ears = _Ears(node, robot)
        _spin(executor, CONNECT_S if any(map(node.count_publishers, wanted)) else 0.0, lambda: ears.complete)
        ears.forget()
        _spin(executor, seconds)
        heard = ears.heard(seconds)
        executor.shutdown(timeout_sec=1.0)
        node.destroy_node()
        return heard
    finally:
        rclpy.try_shutdown(context=context)


def _spin(executor: SingleThreadedExecutor, seconds: float, enough: Callable[[], bool] = lambda: False) -> None:
    """Spin for `seconds`, or until `enough`."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and not enough():
        executor.spin_once(timeout_sec=min(left, WAKE_S))


class _Topic:
    """Arrivals, stamps and what is kept of the messages of one topic."""

    def __init__(self, name: str) -> None:
        self.name, self.frame = name, ""
        self.forget()

    def forget(self) -> None:
        self.arrivals: list[int] = []
        self.stamps: list[int] = []
        self.kept: list[Any] = []
        self.kept_stamps: list[int] = []
        self.kept_arrivals: list[int] = []
        self.names: dict[str, None] = {}

    def stream(self) -> Stream:
        return Stream(self.name, np.array(self.arrivals, np.int64), np.array(self.stamps, np.int64), self.frame)


class _Feedback:
    """States of some joints, each as old as its oldest one."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._merge, self.topic = JointMerge(names), _Topic(topics.JOINT_STATES)

    def take(self, message: JointStateMsg, arrival_ns: int) -> None:
        """Note a message after which every joint is newer."""
        messages.merge_joint_state(message, self._merge)
        stamps = self.topic.stamps
        if self._merge.complete and (not stamps or self._merge.state.stamp_ns > stamps[-1]):
            stamps.append(self._merge.state.stamp_ns)
            self.topic.arrivals.append(arrival_ns)


class _Ears:
    """Subscriptions of one listening."""

    def __init__(self, node: Node, robot: Embodiment) -> None:
        self._node, self._robot = node, robot
        self._complaints: dict[str, None] = {}
        self._waits_for_clock = bool(node.count_publishers("/clock"))
        if self._waits_for_clock:
            node.set_parameters([Parameter("use_sim_time", value=True)])
            node.create_subscription(Clock, "/clock", self._on_clock, qos.DIAGNOSTICS)
        self._cameras = {camera.name: self._watch(camera) for camera in robot.cameras}
        self._merge = JointMerge.of(robot)
        names, grips = np.array(robot.joint_names), robot.gripper_mask
        parts = {"arms": names[~grips], "grippers": names[grips]}
        self._feedback = {part: _Feedback(tuple(mine.tolist())) for part, mine in parts.items()}
        self._joints = self._listen(JointStateMsg, topics.JOINT_STATES, qos.JOINT_STATES, self._keep_merged)
        self._leaders = {
            arm.side: self._listen(JointStateMsg, topics.leader(arm.side), qos.JOINT_STATES, self._keep_joints)
            for arm in robot.arms
        }

    @property
    def complete(self) -> bool:
        """Whether everything of the cell that is published was heard, and the simulated time with it."""
        return not self._waits_for_clock and all(topic.stamps for topic in (self._joints, *self._cameras.values()))

    def forget(self) -> None:
        """Start the listening: what came while the topics connected says nothing about the cell."""
        heard = (part.topic for part in self._feedback.values())
        for topic in (self._joints, *heard, *self._cameras.values(), *self._leaders.values()):
            topic.forget()

    def heard(self, seconds: float) -> Heard:
        home = self._node.get_namespace()
        cameras = {name: topic for name, topic in self._cameras.items() if topic.stamps}
        leaders = {side: _joints(topic) for side, topic in self._leaders.items() if topic.kept}
        return Heard(
            seconds=seconds,
            topics=tuple(name.removeprefix(home).lstrip("/") for name, _ in self._node.get_topic_names_and_types()),
            cameras={name: topic.stream() for name, topic in cameras.items()},
            images={name: (np.array(t.kept_stamps, np.int64), t.kept) for name, t in cameras.items()},
            joints=_joints(self._joints) if self._joints.stamps else None,
            feedback={name: part.topic.stream() for name, part in self._feedback.items() if self._joints.kept},
            leaders=leaders,
            commanders=self._commanders(),
            complaints=tuple(self._complaints),
        )

    def _on_clock(self, message: Clock) -> None:
        self._waits_for_clock = False

    def _watch(self, camera: Camera) -> _Topic:
        def keep(topic: _Topic, message: ImageMsg | CompressedImage) -> None:
            topic.frame = message.header.frame_id
            if not topic.kept_stamps or topic.stamps[-1] - topic.kept_stamps[-1] > 1e9 / KEPT_PER_S:
                topic.kept.append(_small(messages.to_image(message, camera)))
                topic.kept_stamps.append(topic.stamps[-1])

        compressed = topics.compressed(camera.topic)
        if not self._node.count_publishers(camera.topic) and self._node.count_publishers(compressed):
            return self._listen(CompressedImage, compressed, qos.IMAGES, keep)
        return self._listen(ImageMsg, camera.topic, qos.IMAGES, keep)

    def _listen(self, kind: type, name: str, profile: Any, keep: Callable[[_Topic, Any], None]) -> _Topic:
        topic = _Topic(name)

        def take(message: Any) -> None:
            topic.arrivals.append(self._node.get_clock().now().nanoseconds)
            topic.stamps.append(messages.stamp_ns(message.header.stamp))
            try:
                keep(topic, message)
            except ImageWamError as error:
                self._complaints[str(error)] = None

        self._node.create_subscription(kind, name, take, profile)
        return topic

    def _keep_joints(self, topic: _Topic, message: JointStateMsg) -> None:
        topic.kept.append(messages.to_joint_state(message, tuple(message.name)))
        topic.kept_arrivals.append(topic.arrivals[-1])

    def _keep_merged(self, topic: _Topic, message: JointStateMsg) -> None:
        """Keep whole states, whether one message or two carry both arms."""
        topic.names |= dict.fromkeys(message.name)
        messages.merge_joint_state(message, self._merge)
        if self._merge.complete and (not topic.kept or self._merge.state.stamp_ns > topic.kept[-1].stamp_ns):
            topic.kept.append(self._merge.state)
            topic.kept_arrivals.append(topic.arrivals[-1])
        for part in self._feedback.values():
            part.take(message, topic.arrivals[-1])

    def _commanders(self) -> dict[str, tuple[str, ...]]:
        kinds = (topics.forward, topics.gripper, topics.trajectory)
        names = [kind(arm.side) for kind in kinds for arm in self._robot.arms]
        found = {name: self._node.get_publishers_info_by_topic(name) for name in names}
        return {name: tuple(sorted(i.node_name for i in infos)) for name, infos in found.items() if infos}


def _joints(topic: _Topic) -> Joints:
    """Return the states that name the same joints as the last one; without a whole state only the names."""
    if not topic.kept:
        return Joints(topic.stream(), tuple(topic.names), np.zeros((0, len(topic.names))))
    names = topic.kept[-1].joint_names
    alike = [(a, state) for a, state in zip(topic.kept_arrivals, topic.kept, strict=True) if state.joint_names == names]
    arrivals = np.array([arrival for arrival, _ in alike], np.int64)
    stamps = np.array([state.stamp_ns for _, state in alike], np.int64)
    return Joints(Stream(topic.name, arrivals, stamps), names, np.stack([state.position for _, state in alike]))


def _small(image: Image) -> Image:
    stride = max(max(image.shape[:2]) // KEPT_PX, 1)
    return np.ascontiguousarray(image[::stride, ::stride])
