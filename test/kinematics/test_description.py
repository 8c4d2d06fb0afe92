# SPDX-License-Identifier: Apache-2.0
"""The expanded URDF: one tree, the YAML's limits, inertias that a solid body can have."""

import os
import shutil
import subprocess
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.paths import share_dir
from imagewam_ros.kinematics.description import expand

ROBOT = load_embodiment("sim_cell")


@pytest.fixture(scope="module")
def urdf():
    return ET.fromstring(expand())


def test_limits_equal_the_robot_yaml(urdf):
    joints = {joint.get("name"): joint for joint in urdf.iter("joint") if joint.find("limit") is not None}
    for joint in ROBOT.joints:
        limit = joints[joint.name].find("limit")
        found = [float(limit.get(key)) for key in ("lower", "upper", "velocity")]
        assert found == [joint.lower, joint.upper, joint.velocity], joint.name
        assert joints[joint.name].get("type") == ("prismatic" if joint.unit == "m" else "revolute")


def test_every_moving_joint_is_commanded_or_mimics_one_that_is(urdf):
    for joint in urdf.iter("joint"):
        if joint.get("type") in ("revolute", "prismatic"):
            mimic = joint.find("mimic")
            assert (joint.get("name") if mimic is None else mimic.get("joint")) in ROBOT.joint_names


def test_frames_form_one_tree(urdf):
    links = {link.get("name") for link in urdf.findall("link")}
    parents = {j.find("child").get("link"): j.find("parent").get("link") for j in urdf.findall("joint")}
    assert links - set(parents) == {"world"}
    for link in links:
        seen = set()
        while link in parents:
            assert link not in seen
            seen.add(link)
            link = parents[link]
        assert link == "world"


def test_frames_that_others_rely_on_exist(urdf):
    links = {link.get("name") for link in urdf.findall("link")}
    assert {"base_link", "left_base_link", "right_base_link", "left_tool0", "right_tool0"} <= links
    assert {camera.frame for camera in ROBOT.cameras} <= links
    assert {arm.tool_frame for arm in ROBOT.arms} <= links


def test_optical_frames_follow_rep_103(urdf):
    joints = {joint.get("name"): joint for joint in urdf.findall("joint")}
    for camera in ROBOT.cameras:
        joint = joints[camera.frame.replace("_frame", "_joint")]
        rpy = [float(value) for value in joint.find("origin").get("rpy").split()]
        assert np.allclose(rpy, (-np.pi / 2, 0, -np.pi / 2))


def test_links_that_move_have_inertias_of_solid_bodies(urdf):
    moving = {j.find("child").get("link") for j in urdf.findall("joint") if j.get("type") != "fixed"}
    for link in urdf.findall("link"):
        inertial = link.find("inertial")
        if inertial is None:
            assert link.get("name") not in moving
            continue
        ixx, iyy, izz = (float(inertial.find("inertia").get(key)) for key in ("ixx", "iyy", "izz"))
        assert 0.01 < float(inertial.find("mass").get("value")) < 10
        assert 2 * max(ixx, iyy, izz) < ixx + iyy + izz


def test_left_and_right_arm_are_the_same_macro(urdf):
    def arm(side):
        text = [ET.tostring(e, "unicode").strip() for e in urdf if e.get("name", "").startswith(f"{side}_")]
        return [t.replace(f'"{side}_', '"') for t in text if "_mount" not in t and "rgba" not in t]

    assert arm("left") == arm("right")


@pytest.mark.parametrize(
    ("hardware", "plugin"),
    [
        ("mock", "mock_components/GenericSystem"),
        ("gazebo", "gz_ros2_control/GazeboSimSystem"),
        ("real", "my_driver/MySystem"),
    ],
)
def test_hardware_argument_chooses_the_driver_of_both_arms(hardware, plugin):
    urdf = ET.fromstring(expand(arguments={"hardware": hardware, "plugin": "my_driver/MySystem"}))
    systems = urdf.findall("ros2_control")
    assert [system.find("hardware/plugin").text for system in systems] == [plugin, plugin]
    joints = [joint for system in systems for joint in system.findall("joint")]
    assert [j.get("name") for j in joints if j.find("command_interface") is not None] == list(ROBOT.joint_names)
    starts = {j.findtext("state_interface/param[@name='initial_value']") for j in joints}
    assert (starts == {None}) == (hardware == "real"), "what a real joint starts from is measured"
    assert (urdf.find("gazebo") is not None) == (hardware == "gazebo")


@pytest.mark.parametrize("prefixes", [None, "", "/nowhere"])
def test_a_file_elsewhere_takes_our_parts_by_find(monkeypatch, tmp_path, prefixes):
    """A tutorial's cell.xacro by $(find imagewam_ros), in a checkout as after a colcon build."""
    pytest.importorskip("ament_index_python", reason="xacro needs it to find packages")
    monkeypatch.delenv("AMENT_PREFIX_PATH", raising=False)
    if prefixes is not None:
        monkeypatch.setenv("AMENT_PREFIX_PATH", prefixes)
    mine = tmp_path / "mine.urdf.xacro"
    aloha = (share_dir() / "urdf" / "aloha.urdf.xacro").read_text()
    mine.write_text(aloha.replace('include filename="', 'include filename="$(find imagewam_ros)/urdf/'))
    found, expected = (expand(path) for path in (mine, share_dir() / "urdf" / "aloha.urdf.xacro"))
    assert ET.canonicalize(found) == ET.canonicalize(expected), "but for the comments, which name the file"
    assert os.environ.get("AMENT_PREFIX_PATH") == prefixes


@pytest.mark.parametrize("given", ['other="1"', ""])
def test_a_macro_of_another_version_is_suspected(tmp_path, given):
    mine = tmp_path / "mine.urdf.xacro"
    macro = f'<xacro:macro name="arm" params="kind"/><xacro:arm {given}/>'
    mine.write_text(f'<robot xmlns:xacro="http://www.ros.org/wiki/xacro" name="mine">{macro}</robot>')
    with pytest.raises(ConfigError, match=r"mine.urdf.xacro: .*; is a vendor's package of another version than"):
        expand(mine)


def test_unknown_hardware_is_refused():
    with pytest.raises(ConfigError, match="hardware must be mock, gazebo or real, found 'gazeebo'"):
        expand(arguments={"hardware": "gazeebo"})


@pytest.mark.parametrize("hardware", ["mock", "gazebo", "real"])
@pytest.mark.parametrize("tool", [("check_urdf",), ("ign", "sdf", "-k")])
def test_checkers_of_ros_and_gazebo_accept_the_urdf(tool, hardware, tmp_path):
    if shutil.which(tool[0]) is None:
        pytest.skip(f"{tool[0]} is not installed (apt-get install liburdfdom-tools ignition-tools libsdformat-dev)")
    path = tmp_path / "cell.urdf"
    path.write_text(expand(arguments={"hardware": hardware}))
    done = subprocess.run([*tool, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Valid." in done.stdout or "Successfully Parsed" in done.stdout


def test_missing_description_says_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match=r"no such robot description: .*/arm.xacro; check the path"):
        expand(tmp_path / "arm.xacro")


@pytest.mark.parametrize(
    "text", ["<robot>", "<robot xmlns:xacro='http://ros.org/wiki/xacro'><a b='${nothing}'/></robot>"]
)
def test_broken_description_names_the_file(tmp_path, text):
    path = tmp_path / "bad.xacro"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"xacro cannot expand .*bad.xacro"):
        expand(path)
