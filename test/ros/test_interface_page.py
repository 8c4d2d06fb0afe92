# SPDX-License-Identifier: Apache-2.0
"""docs/ros.md names every topic and service that the nodes have; parameters are in the reference."""

from pathlib import Path

from imagewam_ros.nodes import topics

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "ros.md").read_text(encoding="utf8")
OTHERS = ("TELEOP", "DOCTOR", "EPISODE", "JOY")
"""Of nodes that are described elsewhere."""


def test_every_topic_and_service_is_named() -> None:
    constants = {name: value for name, value in vars(topics).items() if name.isupper() and not name.startswith(OTHERS)}
    assert not [value for value in constants.values() if f"`{value}`" not in PAGE]
    for topic in (topics.forward("<side>"), topics.trajectory("<side>"), topics.gripper("<side>")):
        assert f"`{topic}`" in PAGE


def test_every_test_file_that_is_named_exists() -> None:
    for name in ("test_cell.py", "test_faults.py", "test_policy_node.py", "test_executor_node.py"):
        assert name in PAGE and (Path(__file__).parent / name).exists()
