# SPDX-License-Identifier: Apache-2.0
"""The layouts for RViz and Foxglove show the topics of the graph."""

import json
from collections.abc import Iterator
from typing import Any

import yaml

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.paths import share_dir
from imagewam_ros.kinematics.description import describe
from imagewam_ros.nodes import topics

ROBOT = load_embodiment("sim_cell")
IMAGES = {camera.topic for camera in ROBOT.cameras}
RVIZ = yaml.safe_load((share_dir() / "config" / "rviz" / "cell.rviz").read_text())["Visualization Manager"]
FOXGLOVE = json.loads((share_dir() / "config" / "foxglove" / "cell.json").read_text())


def test_rviz_shows_the_cameras_and_the_arms() -> None:
    shown = {display["Name"]: display for display in RVIZ["Displays"]}
    images = [d for d in shown.values() if d["Class"] == "rviz_default_plugins/Image"]
    assert {display["Topic"]["Value"] for display in images} == IMAGES
    assert {display["Topic"]["Reliability Policy"] for display in images} == {"Best Effort"}
    description = shown["Arms"]["Description Topic"]
    assert (description["Value"], description["Durability Policy"]) == ("robot_description", "Transient Local")


def test_rviz_looks_from_a_frame_of_the_robot() -> None:
    assert f'<link name="{RVIZ["Global Options"]["Fixed Frame"]}"' in describe(ROBOT)


def test_rviz_can_show_a_cell_in_a_namespace() -> None:
    named = [topic["Value"] for d in RVIZ["Displays"] for topic in d.values() if isinstance(topic, dict)]
    assert named and not [name for name in named if name.startswith("/")]


def words(value: Any) -> Iterator[str]:
    """Every string of a tree."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from words(key)
            yield from words(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from words(inner)
    elif isinstance(value, str):
        yield value


def test_foxglove_shows_topics_of_the_graph() -> None:
    ours = {topics.JOINT_STATES, topics.COMMAND, topics.STATUS, "diagnostics", "robot_description"}
    ours |= IMAGES | {topics.camera_info(image) for image in IMAGES}
    named = {word.lstrip("/").partition(".")[0] for word in words(FOXGLOVE["configById"]) if word.startswith("/")}
    assert named == ours


def test_every_panel_of_foxglove_has_its_place() -> None:
    placed = [word for word in words(FOXGLOVE["layout"]) if "!" in word]
    assert sorted(placed) == sorted(FOXGLOVE["configById"])
