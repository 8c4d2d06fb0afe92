# SPDX-License-Identifier: Apache-2.0
"""Controller files and ros2_control tags against what ros2_control documents.

Names are from the parameter and plugin files of github.com/ros-controls: ros2_controllers 94e74de, ros2_control
53b9999, gz_ros2_control e19b0ef.
"""

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
import yaml

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.paths import share_dir
from imagewam_ros.kinematics.description import expand

FILES = sorted((share_dir() / "config" / "controllers").glob("*.yaml"))
MANAGER = {"update_rate", "enforce_command_limits", "handle_exceptions"}
PARAMETERS = {
    "joint_state_broadcaster/JointStateBroadcaster": {"use_local_topics", "joints", "interfaces", "frame_id"},
    "forward_command_controller/ForwardCommandController": {"joints", "interface_name"},
    "joint_trajectory_controller/JointTrajectoryController": {
        "joints",
        "command_joints",
        "command_interfaces",
        "state_interfaces",
        "allow_partial_joints_goal",
        "allow_trajectory_replacement",
        "interpolate_from_desired_state",
        "action_monitor_rate",
        "interpolation_method",
        "allow_nonzero_velocity_at_trajectory_end",
        "cmd_timeout",
        "constraints",
    },
}
PLUGINS = {"mock": "mock_components/GenericSystem", "gazebo": "gz_ros2_control/GazeboSimSystem"}


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    assert all(name.startswith("/**/") for name in found), "in any namespace"
    return {name.removeprefix("/**/"): section["ros__parameters"] for name, section in found.items()}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_only_documented_parameters_are_set(path: Path) -> None:
    sections = read(path)
    manager = sections.pop("controller_manager")
    kinds = {name: entry["type"] for name, entry in manager.items() if isinstance(entry, dict)}
    assert set(manager) - set(kinds) <= MANAGER
    assert set(kinds.values()) <= set(PARAMETERS)
    assert set(sections) <= set(kinds)
    for name, section in sections.items():
        assert set(section) <= PARAMETERS[kinds[name]], name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_positions_are_commanded_and_every_controller_has_joints(path: Path) -> None:
    sections = read(path)
    for name, entry in sections["controller_manager"].items():
        section = sections.get(name, {})
        if name.endswith(("forward_position_controller", "gripper_controller")):
            assert section["interface_name"] == "position" and section["joints"]
        elif name.endswith("trajectory_controller"):
            assert (section["command_interfaces"], section["state_interfaces"]) == (
                ["position"],
                ["position", "velocity"],
            )
            assert section["joints"] and section["interpolate_from_desired_state"] is True
        else:
            assert name == "update_rate" or "Broadcaster" in entry["type"]


@pytest.mark.parametrize(("hardware", "plugin"), PLUGINS.items())
def test_the_urdf_offers_what_the_controllers_claim(hardware: str, plugin: str) -> None:
    urdf = ElementTree.fromstring(expand(None, {"hardware": hardware, "controllers": "sim_cell.yaml"}))
    systems = urdf.findall("ros2_control")
    assert {system.findtext("hardware/plugin", "").strip() for system in systems} == {plugin}
    assert {system.get("type") for system in systems} == {"system"}
    offered = {
        joint.get("name"): (
            [i.get("name") for i in joint.findall("command_interface")],
            [i.get("name") for i in joint.findall("state_interface")],
        )
        for system in systems
        for joint in system.findall("joint")
    }
    claimed = load_embodiment("sim_cell").joint_names
    assert set(claimed) <= set(offered)
    assert all(offered[name] == (["position"], ["position", "velocity"]) for name in claimed)


def test_gazebo_runs_the_controller_manager_with_our_file() -> None:
    urdf = ElementTree.fromstring(expand(None, {"hardware": "gazebo", "controllers": "sim_cell.yaml"}))
    (plugin,) = (p for p in urdf.iter("plugin") if p.get("filename"))
    found = (plugin.get("filename"), plugin.get("name"), plugin.findtext("parameters"))
    assert found == ("gz_ros2_control-system", "gz_ros2_control::GazeboSimROS2ControlPlugin", "sim_cell.yaml")
