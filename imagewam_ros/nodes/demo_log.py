# SPDX-License-Identifier: Apache-2.0
"""What the demo hears during one episode, kept serialised until the episode is over."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image as ImageMsg
from sensor_msgs.msg import JointState as JointStateMsg

from imagewam_ros.core.embodiment import Camera, Embodiment
from imagewam_ros.core.schema import Image
from imagewam_ros.demo_record import Chunks, EpisodeRecord, Measured, Sent
from imagewam_ros.msg import ActionChunk, ExecutorCommand, ExecutorStatus, SimStatus
from imagewam_ros.nodes import messages, topics


class Shot(NamedTuple):
    """A front image, the newest images of the cameras by name, and the simulator's status then."""

    front: bytes
    cameras: dict[str, bytes]
    status: SimStatus


class Span(NamedTuple):
    """How long an episode took, in simulated and in real seconds."""

    episode_s: float
    wall_s: float


@dataclass
class EpisodeLog:
    """Appended to by the subscriptions of the demo node."""

    commands: list[bytes] = field(default_factory=list)
    joints: list[bytes] = field(default_factory=list)
    chunks: list[ActionChunk] = field(default_factory=list)
    shots: list[Shot] = field(default_factory=list)
    newest: dict[str, bytes] = field(default_factory=dict)
    images: Counter[str] = field(default_factory=Counter)

    def record(
        self, robot: Embodiment, status: ExecutorStatus, sim: SimStatus, success: bool, span: Span
    ) -> EpisodeRecord:
        """Return the record of an episode that ended with these states."""
        return EpisodeRecord(
            seed=sim.seed,
            instruction=sim.instruction,
            success=success,
            episode_s=span.episode_s,
            wall_s=span.wall_s,
            period_ns=robot.period_ns,
            joint_names=robot.joint_names,
            limited_ticks=status.limited_ticks,
            refused_chunks=status.refused,
            camera_hz={camera.name: self.images[camera.name] / span.episode_s for camera in robot.cameras},
            sent=self._sent(len(robot.joints)),
            measured=self._measured(robot),
            chunks=self._chunks(),
        )

    def _sent(self, joints: int) -> Sent:
        heard = [deserialize_message(raw, ExecutorCommand) for raw in self.commands]
        commands = [messages.to_command(message) for message in heard]
        return Sent(
            np.array([c.tick for c in commands], dtype=np.int64),
            np.array([c.nominal_ns for c in commands], dtype=np.int64),
            np.array([messages.stamp_ns(message.header.stamp) for message in heard], dtype=np.int64),
            *(
                np.array([getattr(c, part) for c in commands]).reshape(-1, joints)
                for part in ("position", "velocity", "acceleration")
            ),
        )

    def _measured(self, robot: Embodiment) -> Measured:
        states = [
            messages.to_joint_state(deserialize_message(r, JointStateMsg), robot.joint_names) for r in self.joints
        ]
        positions = np.array([s.position for s in states]).reshape(-1, len(robot.joints))
        return Measured(np.array([s.stamp_ns for s in states], dtype=np.int64), positions)

    def _chunks(self) -> Chunks:
        return Chunks(
            np.array([messages.stamp_ns(c.header.stamp) for c in self.chunks], dtype=np.int64),
            np.array([messages.stamp_ns(c.ready) for c in self.chunks], dtype=np.int64),
            np.array([c.inference_s for c in self.chunks], dtype=np.float64),
        )

    def frames(self, robot: Embodiment) -> Iterator[tuple[Image, dict[str, Image], SimStatus]]:
        """Front view, camera views and status of every shot that all cameras are in."""
        for shot in self.shots:
            if len(shot.cameras) == len(robot.cameras):
                views = {camera.name: _image(shot.cameras[camera.name], camera) for camera in robot.cameras}
                yield _image(shot.front), views, shot.status


def _image(raw: bytes, camera: Camera | None = None) -> Image:
    message = deserialize_message(raw, ImageMsg)
    any_size = Camera("front", topics.FRONT_IMAGE, message.header.frame_id, message.width, message.height, 0.0)
    return messages.to_image(message, camera or any_size)
