# SPDX-License-Identifier: Apache-2.0
"""The simulated cell alone: its topics, rates, clock, controllers and errors."""

import numpy as np
import pytest
from rclpy.lifecycle import TransitionCallbackReturn
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Float64MultiArray

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.msg import SimStatus
from imagewam_ros.nodes import messages, qos, topics
from imagewam_ros.nodes.sim_node import SimNode
from imagewam_ros.srv import ResetScene

SIM = "imagewam_ros.nodes.sim_node"
ROBOT = load_embodiment("sim_cell")


def stamps(received: list) -> np.ndarray:
    return np.array([messages.stamp_ns(message.header.stamp) for message in received])


def test_topics_rates_and_clock(spawn, probe) -> None:
    sim = spawn(SIM, use_sim_time=True, speed=0.25, front_rate_hz=10.0)  # a busy machine draws slowly
    joints = probe.collect(JointState, topics.JOINT_STATES, qos.COMMAND_LOG)
    clock = probe.collect(Clock, "/clock", qos.COMMAND_LOG)
    images = {camera.name: probe.collect(Image, camera.topic, qos.IMAGES_OUT) for camera in ROBOT.cameras}
    front = probe.collect(Image, "front_camera/color/image_raw", qos.IMAGES_OUT)
    info = probe.collect(CameraInfo, topics.camera_info(ROBOT.cameras[0].topic), qos.IMAGES_OUT)
    assert probe.change("sim", "configure"), sim.text()
    assert not joints and not clock, "an inactive cell stands still"
    assert probe.change("sim", "activate"), sim.text()
    assert probe.until(lambda: len(front) >= 8), sim.text()
    first_ns, steps = stamps(joints)[0], np.diff(stamps(joints))
    assert np.mean(steps == 5_000_000) > 0.95 and not (steps % 5_000_000).any(), "200 Hz in its own clock"
    for camera in ROBOT.cameras:
        received = images[camera.name]
        assert len(received) >= 15 * np.ptp(stamps(received)) / 1e9
        assert messages.to_image(received[-1], camera).std() > 5, "something is to be seen"
        assert received[-1].header.frame_id == camera.frame
    assert (info[-1].width, info[-1].height) == (ROBOT.cameras[0].width, ROBOT.cameras[0].height)
    shared = set(stamps(images["head"])) & set(stamps(images["left_wrist"])) & set(stamps(images["right_wrist"]))
    told = shared | {messages.stamp_ns(message.clock) for message in clock}
    assert shared and not any((ns - first_ns) % 5_000_000 for ns in told), (
        "clock, cameras and joints share their stamps"
    )
    assert sim.stop() == 0, sim.text()


def test_forward_controller_moves_the_arm_and_holds_for_ever(spawn, probe) -> None:
    sim = spawn(SIM, use_sim_time=True)
    joints = probe.collect(JointState, topics.JOINT_STATES, qos.COMMAND_LOG)
    status = probe.collect(SimStatus, topics.SIM_STATUS, qos.STATUS)
    assert probe.change("sim", "configure", "activate"), sim.text()
    assert probe.until(lambda: len(joints) > 5)
    start = messages.to_joint_state(joints[-1], ROBOT.joint_names).position
    target = start[ROBOT.arm_slice("left")][:6] + np.array([0.1, 0, 0, 0, 0, 0])
    publisher = probe.node.create_publisher(Float64MultiArray, topics.forward("left"), qos.COMMANDS)
    assert probe.until(publisher.get_subscription_count)
    publisher.publish(Float64MultiArray(data=[0.0, 1.0]))
    assert probe.until(lambda: "command size (2) does not match number of joints (6)" in sim.text())
    publisher.publish(messages.from_values(target))

    def waist() -> float:
        return float(messages.to_joint_state(joints[-1], ROBOT.joint_names).position[0])

    assert probe.until(lambda: abs(waist() - target[0]) < 0.02), (waist(), target[0])
    count = len(joints)
    assert probe.until(lambda: len(joints) > count + 200)
    assert abs(waist() - target[0]) < 0.02, "nobody sends any more and it stays"

    answer = probe.call(ResetScene, topics.SIM_RESET, ResetScene.Request(seed=7))
    assert answer.success and "tray" in answer.instruction
    assert probe.until(lambda: status[-1].seed == 7 and abs(waist() - start[0]) < 0.1)
    assert status[-1].object_names == ["tray"] and not status[-1].success
    assert (np.diff(stamps(joints)) > 0).all(), "time never goes back, not even on a reset"

    assert probe.change("sim", "deactivate", "cleanup", "configure", "activate"), sim.text()
    count = len(joints)
    assert probe.until(lambda: len(joints) > count + 20), "it comes apart and together again"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"robot": "sim_cel"}, "unknown robot 'sim_cel'; did you mean 'sim_cell'?"),
        ({"task": "tray_lft"}, "unknown task 'tray_lft'; did you mean 'tray_lift'?"),
        ({"controller": "forwards"}, "unknown controller 'forwards'; did you mean 'forward'?"),
        ({"speed": 0.5}, "speed 0.5 needs use_sim_time:=true on every node"),
        ({"sped": 1.0}, "unknown parameter 'sped'; did you mean 'speed'?"),
        ({"front_rate_hz": 100.0}, "front_rate_hz is 0 to 60"),
        ({"speed": 99.0}, "speed must be 0.05 to 20, found 99.0"),
    ],
)
def test_bad_configuration_is_named(ros, given, text) -> None:
    node = SimNode()
    for name, value in given.items():
        node.declare_parameter(name, value)
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert text in node.diagnostics.message


def test_without_opengl_the_cameras_say_what_to_install(spawn, probe, monkeypatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "disable")
    sim = spawn(SIM)
    assert not probe.change("sim", "configure")
    assert probe.until(lambda: "cameras need OpenGL and none was found; apt-get install libegl1 libgl1" in sim.text())
    assert sim.stop() == 0
