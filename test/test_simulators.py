# SPDX-License-Identifier: Apache-2.0
"""Gazebo's world and bridge and Isaac Sim's script, as far as they can be checked without either."""

import ast
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.paths import share_dir
from imagewam_ros.kinematics.description import expand
from imagewam_ros.nodes import topics

GAZEBO = share_dir() / "gazebo"
WORLD = GAZEBO / "cell_world.sdf"
ISAAC = share_dir() / "isaac" / "run_cell.py"
ROBOT = load_embodiment("sim_cell")
IMAGES = {camera.topic for camera in ROBOT.cameras}
CAMERA_TOPICS = IMAGES | {topics.camera_info(image) for image in IMAGES}


def bridged() -> list[dict[str, str]]:
    found: list[dict[str, str]] = yaml.safe_load((GAZEBO / "bridge.yaml").read_text())
    return found


def test_the_bridge_carries_the_clock_and_what_the_policy_looks_at() -> None:
    assert {entry["ros_topic_name"] for entry in bridged()} == {"/clock", *CAMERA_TOPICS}
    for entry in bridged():
        assert entry["gz_topic_name"] == entry["ros_topic_name"]
        assert entry["direction"] == "GZ_TO_ROS"
        kind = entry["ros_type_name"].rpartition("/")[2]
        assert entry["gz_type_name"] == f"gz.msgs.{kind}"
        leaf = entry["ros_topic_name"].rpartition("/")[2]
        assert kind == {"clock": "Clock", "image_raw": "Image", "camera_info": "CameraInfo"}[leaf]


def test_the_urdf_publishes_what_the_bridge_carries() -> None:
    urdf = ET.fromstring(expand(None, {"hardware": "gazebo", "controllers": "controllers.yaml"}))
    sensors = [sensor for sensor in urdf.iter("sensor") if sensor.get("type") == "camera"]
    assert {sensor.findtext("topic") for sensor in sensors} == IMAGES
    assert {sensor.findtext("gz_frame_id") for sensor in sensors} == {camera.frame for camera in ROBOT.cameras}


def test_the_world_has_the_systems_and_objects_of_the_cell() -> None:
    world = ET.parse(WORLD).getroot().find("world")
    assert world is not None
    systems = {(plugin.get("name") or "").rpartition(":")[2] for plugin in world.findall("plugin")}
    assert systems == {"Physics", "UserCommands", "SceneBroadcaster", "Sensors"}
    assert {model.get("name") for model in world.findall("model")} == {"floor", "table", "tray"}


def checked(path: Path) -> subprocess.CompletedProcess[str]:
    if not shutil.which("ign"):
        pytest.skip("no sdformat: apt install ignition-tools libsdformat-dev")
    return subprocess.run(["ign", "sdf", "-k", str(path)], capture_output=True, text=True, timeout=60, check=False)


def test_sdformat_accepts_the_world() -> None:
    result = checked(WORLD)
    assert result.returncode == 0, result.stderr


def test_sdformat_refuses_a_world_with_a_mistake(tmp_path: Path) -> None:
    wrong = tmp_path / "cell_world.sdf"
    wrong.write_text(WORLD.read_text().replace("<mass>0.7</mass>", "<mass>-1</mass>"))
    assert checked(wrong).returncode != 0


def connected() -> tuple[dict[str, str], dict[str, Any], list[tuple[str, str]]]:
    """Nodes, values and wires of the graph that the script hands to Isaac Sim."""
    wanted = ("CAMERAS =", "PIXELS =", "PHYSICS_HZ, ", "JOINT_STATES, ", "BRIDGES =", "def connect(")
    lines = [(ast.unparse(statement).lstrip("("), statement) for statement in ast.parse(ISAAC.read_text()).body]
    parts = [statement for text, statement in lines if text.startswith(wanted)]
    assert len(parts) == len(wanted)
    edits: list[dict[str, Any]] = []
    keys = SimpleNamespace(CREATE_NODES="nodes", SET_VALUES="values", CONNECT="wires")
    og = SimpleNamespace(
        Controller=SimpleNamespace(Keys=keys, edit=lambda _, edit: edits.append(edit)),
        get_node_type=lambda name: SimpleNamespace(is_valid=lambda: name.startswith("isaacsim.ros2.nodes")),
    )
    space: dict[str, Any] = {"og": og, "Sdf": SimpleNamespace(Path=str)}
    exec(compile(ast.Module(parts, []), str(ISAAC), "exec"), space)
    space["connect"]("/cell", {name: f"/{name}" for name in space["CAMERAS"]})
    return dict(edits[0]["nodes"]), dict(edits[0]["values"]), edits[0]["wires"]


def test_isaac_speaks_the_topics_of_the_graph() -> None:
    nodes, values, _ = connected()
    named = {value for key, value in values.items() if key.endswith("topicName")}
    assert named == {"/clock", topics.JOINT_STATES, topics.JOINT_COMMAND, *CAMERA_TOPICS}
    frames = {value for key, value in values.items() if key.endswith("frameId")}
    assert frames == {camera.frame for camera in ROBOT.cameras}
    assert nodes["context"] == "isaacsim.ros2.nodes.ROS2Context", "the prefix that is registered is taken"


def test_every_wire_of_isaac_joins_nodes_that_exist() -> None:
    nodes, values, wires = connected()
    ends = [*values, *(end for wire in wires for end in wire)]
    assert {end.partition(".")[0] for end in ends} == set(nodes)
    driven = {target for _, target in wires}
    assert len(driven) == len(wires), "an input has one source"
    assert {node for node in nodes if f"{node}.inputs:execIn" in driven} == set(nodes) - {"tick", "context", "time"}
