# SPDX-License-Identifier: Apache-2.0
"""A robot of somebody else needs nothing of ours: standard messages on the topics that a preset names."""

import ast

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.paths import share_dir
from imagewam_ros.nodes import topics

TREE = ast.parse((share_dir() / "examples" / "gym_aloha_robot.py").read_text())


def test_it_imports_nothing_of_ours() -> None:
    names = {alias.name for node in ast.walk(TREE) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(TREE) if isinstance(node, ast.ImportFrom)}
    assert not [name for name in names if name.startswith("imagewam")]


def test_names_and_cameras_are_those_of_the_preset() -> None:
    wanted = ("SIDES =", "JOINTS =", "NAMES =", "CAMERAS =", "WIDTH, HEIGHT =", "(WIDTH, HEIGHT) =")
    parts = [statement for statement in TREE.body if ast.unparse(statement).startswith(wanted)]
    space: dict[str, object] = {}
    exec(compile(ast.Module(parts, []), "constants", "exec"), space)
    robot = load_embodiment("aloha")
    assert tuple(space["NAMES"]) == robot.joint_names  # type: ignore[arg-type]
    assert set(space["CAMERAS"]) == set(robot.camera_names)  # type: ignore[call-overload]
    assert {(camera.width, camera.height) for camera in robot.cameras} == {(space["WIDTH"], space["HEIGHT"])}


def test_topics_are_those_of_the_graph() -> None:
    text = ast.unparse(TREE)
    assert f"'{topics.JOINT_STATES}'" in text
    for topic in (topics.forward("left"), topics.gripper("left")):
        controller = topic.removeprefix("left_").removesuffix("/commands")
        assert f"'{controller}'" in text
