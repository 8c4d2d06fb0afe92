# SPDX-License-Identifier: Apache-2.0
"""The doctor's ears on a simulated cell, and on no cell at all."""

import json
import subprocess
import sys

import numpy as np
import pytest
from sensor_msgs.msg import Image, JointState

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.schema import JointState as Joints
from imagewam_ros.doctor import Request, examine
from imagewam_ros.doctor_checks.finding import Level
from imagewam_ros.doctor_checks.streams import check_streams
from imagewam_ros.nodes import messages, qos, topics
from imagewam_ros.nodes.doctor_probe import listen

ROBOT = load_embodiment("sim_cell")


def test_a_simulated_cell_is_heard(spawn, probe) -> None:
    joints = probe.collect(JointState, topics.JOINT_STATES, qos.COMMAND_LOG)
    sim = spawn("imagewam_ros.nodes.sim_node", use_sim_time=True)
    assert probe.change("sim", "configure", "activate"), sim.text()
    assert probe.until(lambda: len(joints) > 20)
    heard = listen(ROBOT, 3.0)
    assert set(heard.cameras) == set(ROBOT.camera_names)
    for camera in ROBOT.cameras:
        stream = heard.cameras[camera.name]
        assert stream.frame == camera.frame
        assert np.all(np.abs(stream.arrivals_ns - stream.stamps_ns) < 1e9), "ages are in simulated time"
        stamps, pictures = heard.images[camera.name]
        assert len(stamps) == len(pictures) > 2
    assert heard.joints is not None
    assert set(heard.joints.names) >= set(ROBOT.joint_names)
    assert heard.joints.positions.shape[0] == heard.joints.stream.stamps_ns.size
    assert heard.complaints == ()
    assert not heard.leaders


def test_swapped_wrist_cameras_are_caught_in_the_graph(spawn, probe) -> None:
    joints = probe.collect(JointState, topics.JOINT_STATES, qos.COMMAND_LOG)
    left, right = (f"{side}_wrist_camera/color/image_raw" for side in ("left", "right"))
    sim = spawn("imagewam_ros.nodes.sim_node", "-r", f"{left}:={right}", "-r", f"{right}:={left}", use_sim_time=True)
    assert probe.change("sim", "configure", "activate"), sim.text()
    assert probe.until(lambda: len(joints) > 20)
    found: list = []

    def caught() -> bool:
        """A busy machine's gaps may hide what else is wrong with a camera."""
        found[:] = [f for f in check_streams(listen(ROBOT, 2.0), ROBOT) if f.level is Level.FAIL]
        left = next((f for f in found if f.check == "camera left_wrist"), None)
        text = "comes from frame 'right_wrist_camera_color_optical_frame'"
        return left is not None and text in left.found and "are two cameras swapped?" in left.remedy

    assert probe.until(caught), found
    assert "camera right_wrist" in {f.check for f in found}


@pytest.fixture
def cameras(probe) -> None:
    """Dark pictures: whoever listens need not wait for cameras to appear."""
    publishers = [
        (camera, probe.node.create_publisher(Image, camera.topic, qos.IMAGES_OUT)) for camera in ROBOT.cameras
    ]

    def send() -> None:
        now_ns = probe.node.get_clock().now().nanoseconds
        for camera, publisher in publishers:
            dark = np.zeros((camera.height, camera.width, 3), np.uint8)
            publisher.publish(messages.from_image(dark, now_ns, camera.frame))

    probe.node.create_timer(0.1, send)


@pytest.mark.usefixtures("cameras")
def test_one_driver_per_arm_is_heard_as_one_robot(probe) -> None:
    publisher = probe.node.create_publisher(JointState, topics.JOINT_STATES, qos.JOINT_STATES_OUT)
    half = {side: ROBOT.joint_names[ROBOT.arm_slice(side)] for side in ("left", "right")}

    def send() -> None:
        for position, names in enumerate(list(half.values())):
            now_ns = probe.node.get_clock().now().nanoseconds
            state = Joints(now_ns, names, np.full(len(names), position * 0.01), np.zeros(len(names)))
            publisher.publish(messages.from_joint_state(state))

    timer = probe.node.create_timer(0.02, send)
    heard = listen(ROBOT, 0.5).joints
    assert heard is not None
    assert heard.names == ROBOT.joint_names
    assert np.allclose(heard.positions[-1], [0.0] * 7 + [0.01] * 7)
    assert np.all(np.diff(heard.stream.stamps_ns) > 0)
    del half["right"]
    heard = listen(ROBOT, 0.5).joints
    probe.node.destroy_timer(timer)
    assert heard is not None
    assert set(heard.names) == set(ROBOT.joint_names[:7])


@pytest.mark.usefixtures("cameras")
def test_a_slow_gripper_beside_fast_arms_is_healthy(probe) -> None:
    publisher = probe.node.create_publisher(JointState, topics.JOINT_STATES, qos.JOINT_STATES_OUT)
    grips = [name for name, grip in zip(ROBOT.joint_names, ROBOT.gripper_mask, strict=True) if grip]
    arms = [name for name in ROBOT.joint_names if name not in grips]

    def send(names: list[str]) -> None:
        now_ns = probe.node.get_clock().now().nanoseconds
        position = np.array([0.02 if name in grips else 0.1 for name in names])
        publisher.publish(messages.from_joint_state(Joints(now_ns, tuple(names), position, np.zeros(len(names)))))

    timers = [probe.node.create_timer(0.01, lambda: send(arms)), probe.node.create_timer(1 / 15, lambda: send(grips))]
    found: list = []

    def healthy() -> bool:
        """A busy machine leaves gaps now and then, which are found rightly."""
        heard = listen(ROBOT, 2.0)
        found[:] = [f for f in check_streams(heard, ROBOT) if f.check in ("joint_states", "gripper states")]
        faster = heard.feedback["arms"].stamps_ns.size > heard.feedback["grippers"].stamps_ns.size
        return faster and len(found) == 2 and not any(f.level is Level.FAIL for f in found)

    assert probe.until(healthy), found
    for timer in timers:
        probe.node.destroy_timer(timer)


@pytest.mark.usefixtures("domain")
@pytest.mark.parametrize(("live", "level"), [("auto", Level.SKIP), ("required", Level.FAIL)])
def test_no_graph_is_said_so(live, level) -> None:
    findings = list(examine(ROBOT, Request(policy="none", live=live, seconds=0.2)))
    found = findings[-1]
    assert (found.check, found.level) == ("live", level)
    assert "no graph of sim_cell heard" in found.found


@pytest.mark.usefixtures("domain")
def test_the_command_ends_by_itself() -> None:
    command = [sys.executable, "-m", "imagewam_ros", "doctor", "--policy", "none", "--seconds", "0.2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SKIP live" in done.stdout


def test_a_checkpoint_is_loaded_warmed_up_and_asked_for_a_chunk(checkpoint) -> None:
    found = {f.check: f for f in examine(ROBOT, Request(policy=str(checkpoint), live="never"))}
    assert found["joint order"].level is Level.PASS
    assert found["cameras"].found == "head, left_wrist, right_wrist; mosaic 96x32, 20 Hz"
    assert "first chunk" in found["inference"].found
    assert "16 rows inside bounds" in found["dummy chunk"].found


def test_a_checkpoint_for_swapped_joints_is_not_run(checkpoint, tmp_path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    names = config["contract"]["joint_names"]
    names[1], names[2] = names[2], names[1]
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "stats.json").write_text((checkpoint / "stats.json").read_text())
    found = {f.check: f for f in examine(ROBOT, Request(policy=str(tmp_path), live="never"))}
    assert found["joint order"].level is Level.FAIL
    assert found["inference"].level is Level.SKIP
