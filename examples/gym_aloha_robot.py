# SPDX-License-Identifier: Apache-2.0
"""gym-aloha's two ViperX arms as a robot: another simulator behind the topics that any robot has.

Imports nothing of imagewam_ros and uses standard messages only, so it shows all that a robot must offer.
gym-aloha pins an older MuJoCo: give it an environment of its own.

    python3 -m venv aloha && aloha/bin/pip install gym-aloha -r requirements/ros-kilted.txt
    ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST aloha/bin/python examples/gym_aloha_robot.py

and in another terminal: imagewam up sim:=none robot:=aloha policy:=none teleop:=gamepad
"""

import argparse
import os
import time

os.environ.setdefault("MUJOCO_GL", "egl")

import gym_aloha  # noqa: F401  registers the environment
import gymnasium
import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64MultiArray

SIDES = ("left", "right")
JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "left_finger")
NAMES = [f"{side}_{joint}" for side in SIDES for joint in JOINTS]
GRIPPERS = [6, 13]
CLOSED_M, OPEN_M = 0.01844, 0.058
"""Finger travel that gym-aloha calls 0 and 1."""

STEP_S = 0.02
"""One step of the environment."""

IMAGE_EVERY = 3
CAMERAS = {"head": "top", "left_wrist": "left_wrist", "right_wrist": "right_wrist"}
WIDTH, HEIGHT = 640, 480


class GymAlohaRobot(Node):
    """Takes positions for arms and grippers, publishes joint states and images."""

    def __init__(self) -> None:
        """Reset the environment and hold where it starts."""
        super().__init__("gym_aloha")
        self.environment = gymnasium.make("gym_aloha/AlohaTransferCube-v0", obs_type="pixels_agent_pos").unwrapped
        self.physics, self.task = self.environment._env.physics, self.environment._env.task
        # Before the first image: soft shadows and smooth edges cost a CPU thirty times the image itself.
        self.physics.model.vis.quality.shadowsize = 0
        self.physics.model.vis.quality.offsamples = 0
        self.environment.reset(seed=0)
        self.target = self.positions()
        self.joints = self.create_publisher(JointState, "joint_states", qos_profile_sensor_data)
        self.images = {
            name: self.create_publisher(Image, f"{name}_camera/color/image_raw", qos_profile_sensor_data)
            for name in CAMERAS
        }
        for i, side in enumerate(SIDES):
            arm, gripper = slice(7 * i, 7 * i + 6), slice(7 * i + 6, 7 * i + 7)
            for topic, part in (("forward_position_controller", arm), ("gripper_controller", gripper)):
                self.create_subscription(Float64MultiArray, f"{side}_{topic}/commands", self.taker(part), 1)

    def taker(self, part: slice) -> "object":
        """Return a callback that writes a message into its part of the target."""

        def take(message: Float64MultiArray) -> None:
            if len(message.data) == part.stop - part.start and np.isfinite(message.data).all():
                self.target[part] = message.data

        return take

    def positions(self) -> np.ndarray:
        """(14,) rad and, for the grippers, m."""
        both = self.physics.data.qpos[:16].reshape(2, 8)
        return both[:, :7].ravel().copy()

    def step(self, count: int) -> None:
        """Move on by one step of the environment and publish."""
        action = self.target.copy()
        action[GRIPPERS] = (action[GRIPPERS] - CLOSED_M) / (OPEN_M - CLOSED_M)
        # The environment's own step renders too and ends episodes; a robot does neither.
        self.task.before_step(action, self.physics)
        self.physics.step(round(STEP_S / self.physics.timestep()))
        stamp = self.get_clock().now().to_msg()
        state = JointState(name=NAMES, position=self.positions().tolist())
        state.velocity = self.physics.data.qvel[:16].reshape(2, 8)[:, :7].ravel().tolist()
        state.header.stamp = stamp
        self.joints.publish(state)
        if count % IMAGE_EVERY == 0:
            for name, camera in CAMERAS.items():
                self.publish_image(name, camera, stamp)

    def publish_image(self, name: str, camera: str, stamp: object) -> None:
        """Render one camera and publish it."""
        pixels = self.physics.render(height=HEIGHT, width=WIDTH, camera_id=camera)
        message = Image(height=HEIGHT, width=WIDTH, encoding="rgb8", step=3 * WIDTH)
        message.header.stamp, message.header.frame_id = stamp, f"{name}_camera_color_optical_frame"
        message.data.frombytes(np.ascontiguousarray(pixels).tobytes())
        self.images[name].publish(message)


def main() -> None:
    """Run until Ctrl-C or for so many seconds."""
    parser = argparse.ArgumentParser(description="gym-aloha as a robot on standard topics.")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="how long (default: until Ctrl-C)")
    arguments = parser.parse_args()
    rclpy.init()
    robot = GymAlohaRobot()
    robot.get_logger().info("joint_states and three cameras are published")
    start, count = time.monotonic(), 0
    while rclpy.ok() and time.monotonic() - start < arguments.seconds:
        robot.step(count)
        count += 1
        # One callback per call: take what came for the four command topics meanwhile.
        until = max(start + count * STEP_S, time.monotonic() + 0.002)
        while (left := until - time.monotonic()) > 0:
            rclpy.spin_once(robot, timeout_sec=left)
    robot.get_logger().info(f"{count} steps in {time.monotonic() - start:.1f} s")


if __name__ == "__main__":
    main()
