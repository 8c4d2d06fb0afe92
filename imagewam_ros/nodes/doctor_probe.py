# SPDX-License-Identifier: Apache-2.0
"""The ears of `imagewam doctor`: listen to a running cell for some seconds and command nothing."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image as ImageMsg
from sensor_msgs.msg import JointState as JointStateMsg

from imagewam_ros.core.embodiment import Camera, Embodiment
from imagewam_ros.core.errors import ImageWamError
from imagewam_ros.core.schema import Image
from imagewam_ros.doctor_checks.streams import Heard, Joints, Stream
from imagewam_ros.nodes import messages, qos, topics

DISCOVERY_S = 2.0
KEPT_PER_S = 5.0
"""Pictures kept per second and camera."""
KEPT_PX = 64
"""Longer side of a kept picture, at most twice this."""


def listen(robot: Embodiment, seconds: float, namespace: str = "", args: list[str] | None = None) -> Heard:
    """Listen to the cell of `robot` for `seconds` after a short discovery."""
    rclpy.init(args=args)
    try:
        node = Node("doctor", namespace=namespace)
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        _spin(executor, DISCOVERY_S)
        if node.count_publishers("/clock"):
            node.set_parameters([Parameter("use_sim_time", value=True)])
        ears = _Ears(node, robot)
        _spin(executor, seconds)
        heard = ears.heard(seconds)
        executor.shutdown(timeout_sec=1.0)
        node.destroy_node()
        return heard
    finally:
        rclpy.try_shutdown()


def _spin(executor: SingleThreadedExecutor, seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        executor.spin_once(timeout_sec=left)


class _Topic:
    """Arrivals, stamps and what is kept of the messages of one topic."""

    def __init__(self, name: str) -> None:
        self.name, self.frame = name, ""
        self.arrivals: list[int] = []
        self.stamps: list[int] = []
        self.kept: list[Any] = []
        self.kept_stamps: list[int] = []

    def stream(self) -> Stream:
        return Stream(self.name, np.array(self.arrivals, np.int64), np.array(self.stamps, np.int64), self.frame)


class _Ears:
    """Subscriptions of one listening."""

    def __init__(self, node: Node, robot: Embodiment) -> None:
        self._node, self._robot = node, robot
        self._complaints: dict[str, None] = {}
        self._cameras = {camera.name: self._watch(camera) for camera in robot.cameras}
        self._joints = self._listen(JointStateMsg, topics.JOINT_STATES, qos.JOINT_STATES, self._keep_joints)
        self._leaders = {
            arm.side: self._listen(JointStateMsg, topics.leader(arm.side), qos.JOINT_STATES, self._keep_joints)
            for arm in robot.arms
        }

    def heard(self, seconds: float) -> Heard:
        cameras = {name: topic for name, topic in self._cameras.items() if topic.stamps}
        leaders = {side: _joints(topic) for side, topic in self._leaders.items() if topic.kept}
        return Heard(
            seconds=seconds,
            topics=tuple(name.lstrip("/") for name, _ in self._node.get_topic_names_and_types()),
            cameras={name: topic.stream() for name, topic in cameras.items()},
            images={name: (np.array(t.kept_stamps, np.int64), t.kept) for name, t in cameras.items()},
            joints=_joints(self._joints) if self._joints.kept else None,
            leaders=leaders,
            commanders=self._commanders(),
            complaints=tuple(self._complaints),
        )

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
        names = tuple(message.name)
        topic.kept.append(messages.to_joint_state(message, names))
        topic.kept_stamps.append(topic.stamps[-1])

    def _commanders(self) -> dict[str, tuple[str, ...]]:
        kinds = (topics.forward, topics.gripper, topics.trajectory)
        names = [kind(arm.side) for kind in kinds for arm in self._robot.arms]
        found = {name: self._node.get_publishers_info_by_topic(name) for name in names}
        return {name: tuple(sorted(i.node_name for i in infos)) for name, infos in found.items() if infos}


def _joints(topic: _Topic) -> Joints:
    """Join the samples that name the same joints as the last one; merged drivers may alternate."""
    names = topic.kept[-1].joint_names
    alike = [i for i, state in enumerate(topic.kept) if state.joint_names == names]
    stamps = np.array([topic.kept_stamps[i] for i in alike], np.int64)
    arrivals = np.array(topic.arrivals, np.int64)[-len(topic.kept) :][alike]
    positions = np.stack([topic.kept[i].position for i in alike])
    return Joints(Stream(topic.name, arrivals, stamps), names, positions)


def _small(image: Image) -> Image:
    stride = max(max(image.shape[:2]) // KEPT_PX, 1)
    return np.ascontiguousarray(image[::stride, ::stride])
