# SPDX-License-Identifier: Apache-2.0
"""Put the recorder under a known load: cameras and two arms that publish by the clock, and count.

Drives the recorder through one episode, publishes for some seconds on a thread of its own, and
writes what it published. Its counts are the truth that the recording is compared with.
"""

import json
import threading
import time
from array import array
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState
from std_srvs.srv import Trigger

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import ConfigError, GraphError
from imagewam_ros.msg import EpisodeStatus
from imagewam_ros.nodes import parameters, qos, topics
from imagewam_ros.nodes.spin import run

ARM_TOPIC = "arm/joint_states"
"""The second stream of joints; the first is the robot's own."""

PICTURES = 8
"""Different noise images that are published in turn."""

SETTLED_S = 1.5
"""A recorder that wrote nothing for so long, three of its reports, has taken everything."""

BEGIN, END = "load begins", "load ends"
"""Lines that mark the measured stretch in the output."""


@dataclass(frozen=True)
class LoadConfig:
    """What to publish, for how long, how long to wait for the recorder, and where to write the counts (a JSON file)."""

    robot: str = "sim_cell"
    seconds: float = 10.0
    width: int = 640
    height: int = 480
    camera_hz: float = 30.0
    joint_hz: float = 200.0
    out: str = "load.json"
    patience_s: float = 30.0

    def __post_init__(self) -> None:
        if self.seconds <= 0 or self.width < 1 or self.height < 1 or self.camera_hz <= 0 or self.joint_hz <= 0:
            raise ConfigError("seconds, width, height, camera_hz and joint_hz must be positive")


@dataclass
class Load:
    """What was done: messages per topic, bytes of pixels, seconds it took, most that a tick was late, the bag."""

    published: dict[str, int]
    pixels: int
    seconds: float
    late_s: float
    episode: str


class LoadNode(Node):
    """`finished` when the episode is over; exit_status tells whether it went as planned."""

    def __init__(self) -> None:
        super().__init__("load", automatically_declare_parameters_from_overrides=True)
        self.finished, self.exit_status = False, 1
        self._config = parameters.declare(self, LoadConfig)
        self._robot = load_embodiment(self._config.robot)
        noise = np.random.default_rng(0)
        size = self._config.width * self._config.height * 3
        self._pictures = [array("B", noise.integers(0, 256, size, dtype=np.uint8).tobytes()) for _ in range(PICTURES)]
        self._cameras = {c.topic: self.create_publisher(Image, c.topic, qos.IMAGES_OUT) for c in self._robot.cameras}
        joints = (topics.JOINT_STATES, ARM_TOPIC)
        self._joints = {name: self.create_publisher(JointState, name, qos.JOINT_STATES_OUT) for name in joints}
        self._written = 0
        self.create_subscription(EpisodeStatus, topics.EPISODE_STATUS, self._on_status, qos.STATUS)
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        try:
            load = self._episode()
            Path(self._config.out).write_text(json.dumps(asdict(load)), encoding="utf8")
            self.exit_status = 0
        except GraphError as error:
            self.get_logger().error(str(error))
        finally:
            self.finished = True

    def _episode(self) -> Load:
        """One episode of the recorder. Raises GraphError when it does not do as it is told."""
        for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
            request = ChangeState.Request(transition=Transition(id=transition))
            self._call(ChangeState, "recorder/change_state", request)
        publishers = [*self._cameras.values(), *self._joints.values()]
        self._until(lambda: all(p.get_subscription_count() for p in publishers), "the recorder does not subscribe")
        episode = self._call(Trigger, f"{topics.EPISODE}/start", Trigger.Request()).message
        print(BEGIN, flush=True)
        load = self._publish(episode)
        print(END, flush=True)
        self._settle()
        self._call(Trigger, f"{topics.EPISODE}/success", Trigger.Request())
        return load

    def _publish(self, episode: str) -> Load:
        """Publish by absolute deadlines; late ticks are made up, none is left out."""
        config = self._config
        load = Load(dict.fromkeys([*self._cameras, *self._joints], 0), 0, 0.0, 0.0, episode)
        due = [(1e9 / config.camera_hz, self._shutter), (1e9 / config.joint_hz, self._sample)]
        counts = [0, 0]
        began_ns = time.monotonic_ns()
        end_ns = began_ns + round(config.seconds * 1e9)
        while True:
            which = min((0, 1), key=lambda i: counts[i] * due[i][0])
            when_ns = began_ns + round(counts[which] * due[which][0])
            if when_ns >= end_ns:
                break
            time.sleep(max(0.0, (when_ns - time.monotonic_ns()) / 1e9))
            load.late_s = max(load.late_s, (time.monotonic_ns() - when_ns) / 1e9)
            due[which][1](counts[which], load)
            counts[which] += 1
        load.seconds = (time.monotonic_ns() - began_ns) / 1e9
        return load

    def _settle(self) -> None:
        """Wait until the recorder takes nothing more: what is on its way belongs to the episode."""
        end, known = time.monotonic() + self._config.patience_s, -1
        while time.monotonic() < end and known != self._written:
            known = self._written
            time.sleep(SETTLED_S)

    def _on_status(self, message: EpisodeStatus) -> None:
        self._written = message.messages

    def _shutter(self, number: int, load: Load) -> None:
        stamp = self.get_clock().now().to_msg()
        for place, (topic, publisher) in enumerate(self._cameras.items()):
            message = Image(height=self._config.height, width=self._config.width, encoding="rgb8")
            message.step = 3 * self._config.width
            message.data = self._pictures[(number + place) % PICTURES]
            message.header.stamp = stamp
            publisher.publish(message)
            load.published[topic] += 1
            load.pixels += len(message.data)

    def _sample(self, number: int, load: Load) -> None:
        names = list(self._robot.joint_names)
        message = JointState(name=names, position=[number * 1e-3] * len(names), velocity=[0.0] * len(names))
        message.header.stamp = self.get_clock().now().to_msg()
        for topic, publisher in self._joints.items():
            publisher.publish(message)
            load.published[topic] += 1

    def _call(self, kind: type, name: str, request: Any) -> Any:
        """Call a service from the working thread; raises GraphError when it fails or does not answer."""
        client: Any = self.create_client(kind, name)
        self._until(client.service_is_ready, f"there is no service {name}; does the recorder run?")
        future = client.call_async(request)
        self._until(future.done, f"{name} does not answer")
        answer: Any = future.result()
        if not answer.success:
            raise GraphError(f"{name} failed: {getattr(answer, 'message', '')}; see the recorder's output")
        return answer

    def _until(self, condition: Callable[[], Any], complaint: str) -> None:
        end = time.monotonic() + self._config.patience_s
        while not condition():
            if time.monotonic() > end:
                raise GraphError(f"{complaint} (waited {self._config.patience_s:.0f} s)")
            time.sleep(0.02)


def main() -> int:
    """Run the node."""
    return run(LoadNode)
