# SPDX-License-Identifier: Apache-2.0
"""Frames of a recorded episode equal what the live path served, tick by tick and byte by byte."""

import contextlib
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_srvs.srv import Trigger

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import StaleObservation
from imagewam_ros.core.schema import Observation
from imagewam_ros.core.sync import JOINTS, SyncConfig, Synchroniser
from imagewam_ros.data.bag_streams import frame_images, plan_frames, read_streams
from imagewam_ros.msg import EpisodeStatus, ExecutorCommand
from imagewam_ros.nodes import messages, qos, topics

ROBOT = load_embodiment("sim_cell")
MS = 1_000_000
PATIENT = QoSProfile(depth=1000)
"""Keeps what a busy machine delivers late, so that both sides get every message."""


class LivePath:
    """What the policy node does with what arrives: pair, take the newest, keep the observation."""

    def __init__(self, node: Any, kind: type) -> None:
        cameras = {camera.name: camera for camera in ROBOT.cameras}
        names = {name: topic_of(camera, kind) for name, camera in cameras.items()}
        self.served: list[Observation] = []
        self.heard = self._newest_ns = 0
        self._sync = Synchroniser(names, JOINTS, SyncConfig(), lambda name, m: messages.to_image(m, cameras[name]))
        for name, topic in names.items():
            node.create_subscription(kind, topic, lambda m, name=name: self._image(name, m), PATIENT)
        node.create_subscription(JointState, topics.JOINT_STATES, self._joint_state, PATIENT)

    def _image(self, name: str, message: Any) -> None:
        stamp_ns = messages.stamp_ns(message.header.stamp)
        self._sync.add_image(name, stamp_ns, message)
        self._serve(stamp_ns)

    def _joint_state(self, message: JointState) -> None:
        state = messages.to_joint_state(message, ROBOT.joint_names)
        self._sync.add_joints(state.stamp_ns, state.position)
        self._serve(state.stamp_ns)

    def _serve(self, stamp_ns: int) -> None:
        """Observe at the newest stamp: how late a busy machine delivers is not the matter here."""
        self.heard, self._newest_ns = self.heard + 1, max(stamp_ns, self._newest_ns)
        last = self.served[-1].stamp_ns if self.served else -1
        with contextlib.suppress(StaleObservation):
            observation = self._sync.observation(self._newest_ns, "wave", after_ns=last)
            if observation is not None:
                self.served.append(observation)


def topic_of(camera: Any, kind: type) -> str:
    return topics.compressed(camera.topic) if kind is CompressedImage else str(camera.topic)


def publish(probe: Any, live: LivePath, cameras: dict[str, Any], joints: Any, commands: Any, kind: type) -> int:
    """Two seconds: 200 Hz joints, 20 Hz cameras with jitter, every tenth wrist image lost. Returns the messages.

    The live path hears each tick before the next: a backlog would come in another order, topic by topic.
    """
    images = 0
    rng, noise = random.Random(3), np.random.default_rng(3)
    names = list(ROBOT.joint_names)
    pictures = [noise.integers(0, 256, (128, 128, 3), dtype=np.uint8) for _ in range(6)]
    start_ns, began = time.time_ns(), time.monotonic()
    for number in range(400):
        stamp_ns = start_ns + number * 5 * MS
        state = JointState(name=names, position=noise.normal(size=14).tolist(), velocity=[0.0] * 14)
        state.header.stamp = messages.to_time(stamp_ns)
        joints.publish(state)
        command = ExecutorCommand(nominal=messages.to_time(stamp_ns), joint_names=names, position=[0.0] * 14)
        commands.publish(command)
        if number % 10 == 0:
            for place, (name, publisher) in enumerate(cameras.items()):
                if place and rng.random() < 0.1:
                    continue
                at = stamp_ns + (rng.randrange(-8, 9) * MS if place else 0)
                picture = pictures[(number // 10 + place) % len(pictures)]
                message = (
                    messages.from_jpeg(picture, at, name, 90)
                    if kind is CompressedImage
                    else messages.from_image(picture, at, name)
                )
                publisher.publish(message)
                images += 1
        assert probe.until(lambda sent=number + 1 + images: live.heard == sent)
        time.sleep(max(0.0, began + (number + 1) * 0.005 - time.monotonic()))
    return 800 + images


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Image, CompressedImage])
def test_bag_frames_equal_live_frames(spawn: Any, probe: Any, tmp_path: Path, kind: type) -> None:
    node = probe.node
    cameras = {c.name: node.create_publisher(kind, topic_of(c, kind), PATIENT) for c in ROBOT.cameras}
    joints = node.create_publisher(JointState, topics.JOINT_STATES, PATIENT)
    commands = node.create_publisher(ExecutorCommand, topics.COMMAND, PATIENT)
    live, statuses = LivePath(node, kind), probe.collect(EpisodeStatus, topics.EPISODE_STATUS, qos.STATUS)
    spawn(
        "imagewam_ros.nodes.recorder_node",
        directory=str(tmp_path),
        instruction="wave",
        compressed=kind is CompressedImage,
        recording__free_mb=0,
    )
    assert probe.change("recorder", "configure", "activate")
    everyone = [*cameras.values(), joints]
    assert probe.until(lambda: all(publisher.get_subscription_count() == 2 for publisher in everyone))
    assert probe.until(commands.get_subscription_count)
    folder = Path(probe.call(Trigger, "/episode/start", Trigger.Request(), once=True).message)
    sent = publish(probe, live, cameras, joints, commands, kind)
    assert probe.until(lambda: statuses and statuses[-1].messages == sent), statuses[-1]
    assert probe.call(Trigger, "/episode/success", Trigger.Request(), once=True).success

    streams = read_streams(folder)
    plan = plan_frames(streams)
    served = {observation.stamp_ns: observation for observation in live.served}
    assert len(plan) > 25
    for row, images in enumerate(frame_images(folder, plan)):
        observation = served[int(plan.stamps_ns[row])]
        np.testing.assert_array_equal(plan.positions[row], observation.positions)
        for name, pixels in images.items():
            np.testing.assert_array_equal(pixels, observation.images[name])
    inside = [stamp for stamp in served if stamp <= plan.stamps_ns[-1]]
    assert sorted(inside) == plan.stamps_ns.tolist()
