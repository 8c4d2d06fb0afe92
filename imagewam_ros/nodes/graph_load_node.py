# SPDX-License-Identifier: Apache-2.0
"""Cameras, joints and controllers of a cell for `imagewam bench graph`; no physics, no rendering.

Publishes by the clock, follows the commands exactly, and at the end writes what it published and
what policy and executor said of themselves on /diagnostics.
"""

import json
import threading
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from sensor_msgs.msg import Image
from sensor_msgs.msg import JointState as JointStateMsg
from std_msgs.msg import Float64MultiArray

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import ConfigError, GraphError
from imagewam_ros.core.schema import JointState
from imagewam_ros.msg import ActionChunk, ExecutorStatus
from imagewam_ros.nodes import messages, parameters, qos, topics
from imagewam_ros.nodes.pacing import SteadyPacer
from imagewam_ros.nodes.spin import run

BEGIN, END = "load begins", "load ends"
"""Lines that mark the measured stretch in the output."""
PICTURES = 8
SLACK_NS = 50_000_000
WATCHED = ("policy", "executor")


@dataclass(frozen=True)
class GraphLoadConfig:
    """Publish the robot's cameras at their sizes and rates for `seconds`, and joints at joint_hz; write to `out`.

    patience_s is how long the others may take to come up, and to say what they saw.
    """

    robot: str = "sim_cell"
    seconds: float = 10.0
    joint_hz: float = 200.0
    out: str = "load.json"
    patience_s: float = 60.0

    def __post_init__(self) -> None:
        if self.seconds <= 0 or self.joint_hz <= 0:
            raise ConfigError("seconds and joint_hz must be positive")


class GraphLoadNode(Node):
    """`finished` when everything is written; exit_status tells whether it went as planned."""

    def __init__(self) -> None:
        super().__init__("load", automatically_declare_parameters_from_overrides=True)
        self.finished, self.exit_status = False, 1
        self._config = parameters.declare(self, GraphLoadConfig)
        self._robot = load_embodiment(self._config.robot)
        noise = np.random.default_rng(0)
        self._cameras = {
            camera: (
                self.create_publisher(Image, camera.topic, qos.IMAGES_OUT),
                [array("B", noise.bytes(3 * camera.width * camera.height)) for _ in range(PICTURES)],
            )
            for camera in self._robot.cameras
        }
        self._joints = self.create_publisher(JointStateMsg, topics.JOINT_STATES, qos.JOINT_STATES_OUT)
        self._position = (self._robot.limits.lower + self._robot.limits.upper) / 2
        for arm in self._robot.arms:
            whole = self._robot.arm_slice(arm.side)
            for topic, part in (
                (topics.forward(arm.side), slice(whole.start, whole.stop - 1)),
                (topics.gripper(arm.side), slice(whole.stop - 1, whole.stop)),
            ):
                self.create_subscription(Float64MultiArray, topic, partial(self._follow, part), qos.COMMANDS)
        self._executor_state = ExecutorStatus.INACTIVE
        self._said: dict[str, dict[str, str]] = {}
        self._heard_s: dict[str, float] = {}
        self.create_subscription(ExecutorStatus, topics.STATUS, self._on_status, qos.STATUS)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.DIAGNOSTICS)
        self._published = {"frames": 0, "joint_states": 0}
        self._ready_ns: list[int] = []
        self.create_subscription(ActionChunk, topics.CHUNK, self._on_chunk, qos.CHUNKS_IN)
        threading.Thread(target=self._move, daemon=True).start()
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        try:
            self._until(lambda: self._executor_state == ExecutorStatus.HOLDING, "the executor is not active")
            everyone = [publisher for publisher, _ in self._cameras.values()]
            self._until(lambda: all(p.get_subscription_count() for p in everyone), "the policy does not subscribe")
            print(BEGIN, flush=True)
            self._look()
            print(END, flush=True)
            ended_s = time.monotonic()
            self._until(
                lambda: all(self._heard_s.get(name, 0) > ended_s + 1 for name in WATCHED),
                "policy and executor say nothing",
            )
            found = {"published": self._published, "ready_ns": self._ready_ns, "said": self._said}
            Path(self._config.out).write_text(json.dumps(found), encoding="utf8")
            self.exit_status = 0
        except GraphError as error:
            self.get_logger().error(str(error))
        finally:
            self.finished = True

    def _look(self) -> None:
        """Press all shutters at once, by absolute deadlines."""
        rate_hz = self._robot.cameras[0].rate_hz
        pacer = SteadyPacer(round(1e9 / rate_hz), SLACK_NS)
        for number in range(round(self._config.seconds * rate_hz)):
            pacer.wait()
            stamp = self.get_clock().now().to_msg()
            for place, (camera, (publisher, pictures)) in enumerate(self._cameras.items()):
                message = Image(height=camera.height, width=camera.width, encoding="rgb8", step=3 * camera.width)
                message.data = pictures[(number + place) % PICTURES]
                message.header.stamp = stamp
                publisher.publish(message)
            self._published["frames"] += 1

    def _move(self) -> None:
        """Report the joints where they were commanded to be."""
        pacer = SteadyPacer(round(1e9 / self._config.joint_hz), SLACK_NS)
        rest = np.zeros(len(self._robot.joint_names))
        while not self.finished:
            pacer.wait()
            now_ns = int(self.get_clock().now().nanoseconds)
            state = JointState(now_ns, self._robot.joint_names, self._position, rest)
            self._joints.publish(messages.from_joint_state(state))
            self._published["joint_states"] += 1

    def _follow(self, part: slice, message: Float64MultiArray) -> None:
        position = np.array(self._position)
        position[part] = messages.to_values(message)
        self._position = position

    def _on_chunk(self, message: ActionChunk) -> None:
        self._ready_ns.append(messages.stamp_ns(message.ready))

    def _on_status(self, message: ExecutorStatus) -> None:
        self._executor_state = message.state

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            name = status.name.rpartition("/")[2]
            found = {pair.key: pair.value for pair in status.values}
            if name in WATCHED and any(key.endswith("_total") for key in found):
                self._said[name], self._heard_s[name] = found, time.monotonic()

    def _until(self, condition: Callable[[], bool], complaint: str) -> None:
        end = time.monotonic() + self._config.patience_s
        while not condition():
            if time.monotonic() > end:
                raise GraphError(f"{complaint} (waited {self._config.patience_s:.0f} s)")
            time.sleep(0.05)


def main() -> int:
    """Run the node."""
    return run(GraphLoadNode)
