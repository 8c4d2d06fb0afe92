# SPDX-License-Identifier: Apache-2.0
"""Drivers, controllers and a policy for `imagewam bench executor --timing`, in the process that measures.

Joints are where they were commanded to be; chunks follow one smooth motion with the noise of a policy.
"""

import threading
import time
from functools import partial

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import JointState as JointStateMsg
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from imagewam_ros.control import tracking
from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.schema import ActionChunk, Floats, JointState
from imagewam_ros.msg import ActionChunk as ActionChunkMsg
from imagewam_ros.msg import ExecutorCommand, ExecutorStatus
from imagewam_ros.nodes import messages, qos, topics
from imagewam_ros.nodes.pacing import SteadyPacer

CHUNK_PERIOD_NS, ROWS, REPLAN_S = 50_000_000, 16, 0.4
NOISE_RAD = 2e-3
SLACK_NS = 50_000_000


class TimingLoad:
    """Runs on threads of its own until `close`; `sent_ns` are the moments at which commands were sent."""

    def __init__(self, robot: Embodiment, seed: int) -> None:
        self._robot, self._rng = robot, np.random.default_rng(seed)
        self._trajectory = tracking.smooth(robot, self._rng, 0.5)
        self._position: Floats = self._trajectory.at(np.zeros(1))[0]
        self.sent_ns: list[int] = []
        self.status = ExecutorStatus()
        self._begun_ns, self._ended = 0, False
        rclpy.init()
        self._node = node = rclpy.create_node("timing_load")
        self._joints = node.create_publisher(JointStateMsg, topics.JOINT_STATES, qos.JOINT_STATES_OUT)
        self._chunks = node.create_publisher(ActionChunkMsg, topics.CHUNK, qos.CHUNKS)
        node.create_subscription(ExecutorCommand, topics.COMMAND, self._on_command, qos.COMMAND_LOG)
        node.create_subscription(ExecutorStatus, topics.STATUS, self._on_status, qos.STATUS)
        for side in (arm.side for arm in robot.arms):
            for kind, topic in (
                (Float64MultiArray, topics.forward(side)),
                (Float64MultiArray, topics.gripper(side)),
                (JointTrajectory, topics.trajectory(side)),
            ):
                node.create_subscription(kind, topic, lambda message: None, qos.COMMANDS)
        node.create_timer(REPLAN_S, self._send)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._spin, partial(self._move, 5e-3))]
        for thread in self._threads:
            thread.start()

    @property
    def ready(self) -> bool:
        """True once the executor holds or runs."""
        return self.status.state in (ExecutorStatus.HOLDING, ExecutorStatus.ACTIVE)

    def begin(self) -> None:
        """Send chunks from now on."""
        self._begun_ns = self._now_ns

    def close(self) -> None:
        """End everything."""
        self._ended = True
        self._executor.shutdown(timeout_sec=1.0)
        for thread in self._threads:
            thread.join(2.0)
        self._node.destroy_node()
        rclpy.try_shutdown()

    @property
    def _now_ns(self) -> int:
        return time.time_ns()

    def _spin(self) -> None:
        while not self._ended:
            self._executor.spin_once(timeout_sec=0.05)

    def _move(self, period_s: float) -> None:
        pacer, still = SteadyPacer(round(period_s * 1e9), SLACK_NS), np.zeros(len(self._robot.joints))
        while not self._ended:
            pacer.wait()
            state = JointState(self._now_ns, self._robot.joint_names, self._position, still)
            self._joints.publish(messages.from_joint_state(state))

    def _send(self) -> None:
        if not self._begun_ns:
            return
        now_ns = self._now_ns
        due_s: Floats = (now_ns - self._begun_ns + CHUNK_PERIOD_NS * np.arange(1.0, ROWS + 1.0)) * 1e-9
        noise = np.where(self._robot.gripper_mask, 0.0, self._rng.normal(0, NOISE_RAD, (ROWS, len(self._robot.joints))))
        # Begins where the arms are and is on the motion within a second.
        share = np.minimum(due_s, 1.0)[:, None]
        rows: Floats = self._trajectory.at(np.zeros(1)) * (1 - share) + self._trajectory.at(due_s) * share + noise
        chunk = ActionChunk(now_ns, CHUNK_PERIOD_NS, self._robot.joint_names, rows, contract_hash="timing")
        self._chunks.publish(messages.from_chunk(chunk))

    def _on_command(self, message: ExecutorCommand) -> None:
        self._position = np.frombuffer(message.position, dtype=np.float64)
        self.sent_ns.append(messages.stamp_ns(message.header.stamp))

    def _on_status(self, message: ExecutorStatus) -> None:
        self.status = message
