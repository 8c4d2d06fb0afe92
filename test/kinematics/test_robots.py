# SPDX-License-Identifier: Apache-2.0
"""Every robot that ships: its YAML, URDF and controllers say the same.

Vendors' descriptions are taken where they are installed; where they are not, stand-ins with the same
macros, joint names and limits take their place.
"""

import os
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import yaml

from imagewam_ros.control.measured import inside
from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.paths import share_dir
from imagewam_ros.kinematics.chains import Chains
from imagewam_ros.kinematics.clearance import Clearance
from imagewam_ros.kinematics.description import describe, expand

NAMES = sorted(path.stem for path in (share_dir() / "config" / "robots").glob("*.yaml"))
OWN = ("aloha", "piper", "sim_cell")
"""Robots whose description is ours alone."""
STAND_INS = Path(__file__).parent / "stand_ins"
ROUNDING = 2e-5


@pytest.fixture(scope="module", params=NAMES)
def robot(request):
    if request.param not in OWN:
        pytest.importorskip("ament_index_python", reason="xacro needs it to find packages")
    prefixes = [os.environ.get("AMENT_PREFIX_PATH", ""), str(STAND_INS)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AMENT_PREFIX_PATH", os.pathsep.join(filter(None, prefixes)))
        yield load_embodiment(request.param)


@pytest.fixture(scope="module")
def urdf(robot):
    return describe(robot, {"hardware": "mock"})


def test_bounds_are_the_urdfs_and_speeds_no_higher(robot, urdf):
    joints = {joint.get("name"): joint for joint in ET.fromstring(urdf).findall("joint")}
    for joint in robot.joints:
        limit = joints[joint.name].find("limit")
        if joints[joint.name].get("type") != "continuous":
            assert joint.lower == pytest.approx(float(limit.get("lower")), abs=ROUNDING)
            assert joint.upper == pytest.approx(float(limit.get("upper")), abs=ROUNDING)
            assert float(limit.get("lower")) <= joint.lower + 1e-12
            assert joint.upper <= float(limit.get("upper")) + 1e-12
        assert joint.velocity <= float(limit.get("velocity"))
        assert (joint.unit == "m") == (joints[joint.name].get("type") == "prismatic")


def test_frames_form_one_tree_with_tools_and_cameras(robot, urdf):
    tree = ET.fromstring(urdf)
    links = [link.get("name") for link in tree.findall("link")]
    parents = {joint.find("child").get("link"): joint.find("parent").get("link") for joint in tree.findall("joint")}
    assert len(set(links)) == len(links)
    assert len(parents) == len(tree.findall("joint")) == len(links) - 1
    assert set(links) - set(parents) == {"world"}
    assert "base_link" in links, "what RViz and Foxglove look from"
    assert {arm.tool_frame for arm in robot.arms} <= set(links)
    assert {camera.frame for camera in robot.cameras} <= set(links)


def test_pinocchio_reads_it_and_the_arms_reach(robot, urdf):
    chains = Chains(urdf, robot)
    middle = (robot.limits.lower + robot.limits.upper) / 2
    rng = np.random.default_rng(0)
    goal = chains.forward(middle + rng.uniform(-0.2, 0.2, middle.size) * ~robot.gripper_mask)
    for arm in robot.arms:
        assert chains.inverse(arm.side, goal[arm.side], middle).error < 2e-3


def test_mujoco_reads_it(robot, urdf):
    mujoco = pytest.importorskip("mujoco")
    if "package://" in urdf:
        pytest.skip("MuJoCo does not resolve the vendor's package:// meshes")
    model = mujoco.MjModel.from_xml_string(urdf)
    for joint in robot.joints:
        assert model.joint(joint.name).id >= 0


def test_distances_can_be_measured(robot, urdf):
    if "package://" in urdf:
        pytest.skip("needs the folders of the vendor's meshes")
    clearance = Clearance(urdf, Chains(urdf, robot))
    middle = (robot.limits.lower + robot.limits.upper) / 2
    assert np.isfinite(clearance.nearest(middle).distance_m)


def test_ros2_control_commands_the_policys_joints(robot, urdf):
    system = ET.fromstring(urdf).findall("ros2_control")
    assert [joint.get("name") for side in system for joint in side.findall("joint")] == list(robot.joint_names)
    assert {side.find("hardware/plugin").text for side in system} == {"mock_components/GenericSystem"}


@pytest.mark.parametrize("hardware", ["mock", "gazebo"])
def test_simulated_arms_begin_inside_their_bounds_and_both_fingers_move(robot, hardware):
    """A joint without initial_value begins at 0, which the executor refuses where 0 is out of bounds.

    Source: ros2_control 53b9999, GenericSystem and component_parser.cpp: mimics are looked for among the joints of
    the tag alone. mock_components needs none, robot_state_publisher moves them by itself.
    """
    tree = ET.fromstring(describe(robot, {"hardware": hardware}))
    joints = {joint.get("name"): joint for system in tree.findall("ros2_control") for joint in system.findall("joint")}
    start = [float(joints[name].findtext("state_interface/param[@name='initial_value']")) for name in robot.joint_names]
    inside(np.array(start), robot)
    followers = {joint.get("name") for joint in tree.findall("joint") if joint.find("mimic") is not None}
    assert followers
    assert set(joints) - set(robot.joint_names) == (followers if hardware == "gazebo" else set())
    assert not any(joints[name].findall("command_interface") for name in followers & set(joints))


def test_gazebo_cameras_have_the_robots_size_rate_and_topic(robot):
    tree = ET.fromstring(describe(robot, {"hardware": "gazebo"}))
    sensors = {sensor.find("topic").text: sensor for sensor in tree.iter("sensor")}
    assert set(sensors) == {camera.topic for camera in robot.cameras}
    for camera in robot.cameras:
        sensor = sensors[camera.topic]
        size = [int(sensor.find(f"camera/image/{key}").text) for key in ("width", "height")]
        assert size == [camera.width, camera.height]
        assert float(sensor.find("update_rate").text) == camera.rate_hz
        assert sensor.find("gz_frame_id").text == camera.frame


def test_controllers_have_the_joints_in_order_and_the_names_that_the_nodes_use(robot):
    path = share_dir() / "config" / "controllers" / f"{robot.name}.yaml"
    controllers = yaml.safe_load(path.read_text())
    started = controllers["/**/controller_manager"]["ros__parameters"]
    assert started["update_rate"] >= robot.control_rate_hz
    for arm in robot.arms:
        names = [joint.name for joint in arm.joints]
        for kind, joints in (
            ("forward_position_controller", names),
            ("joint_trajectory_controller", names),
            ("gripper_controller", [arm.gripper.name]),
        ):
            assert controllers[f"/**/{arm.side}_{kind}"]["ros__parameters"]["joints"] == joints
            assert "type" in started[f"{arm.side}_{kind}"]


@pytest.mark.parametrize(("version", "kind"), [("1.1.0", "robot_type"), ("0.1.0", "arm_id")])
def test_frankas_driver_gets_its_seven_joints_and_what_it_asks_for(monkeypatch, version, kind):
    """Source: franka_ros2 v3.4.0 and v3.1.0, FrankaHardwareInterface::on_init and kNumberOfJoints."""
    pytest.importorskip("ament_index_python", reason="xacro needs it to find packages")
    prefixes = [os.environ.get("AMENT_PREFIX_PATH", ""), str(STAND_INS)]
    monkeypatch.setenv("AMENT_PREFIX_PATH", os.pathsep.join(filter(None, prefixes)))
    fr3 = load_embodiment("fr3")
    systems = ET.fromstring(describe(fr3, {"hardware": "real", "franka_version": version})).findall("ros2_control")
    for system, arm, address in zip(systems, fr3.arms, ("172.16.0.2", "172.16.1.2"), strict=True):
        assert [joint.get("name") for joint in system.findall("joint")] == [joint.name for joint in arm.joints]
        given = {param.get("name"): param.text for param in system.findall("hardware/param")}
        assert given == {"version": version, kind: "fr3", "prefix": f"{arm.side}_", "robot_ip": address}
    assert fr3.grippers == "gripper_command"


def test_description_of_a_vendor_who_is_not_installed_says_so(monkeypatch):
    monkeypatch.setenv("AMENT_PREFIX_PATH", "/nowhere")
    found = r"(no package 'ur_description' in /nowhere, .*|.*ament_index.*)"  # the second without ROS's index
    with pytest.raises(ConfigError, match=rf"xacro cannot expand .*ur5e.urdf.xacro: {found}; install and source the"):
        expand(share_dir() / "urdf" / "ur5e.urdf.xacro")
