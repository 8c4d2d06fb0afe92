# SPDX-License-Identifier: Apache-2.0
"""docs/ros.md names every topic, service and parameter that the nodes have."""

import dataclasses
from pathlib import Path

import pytest

from imagewam_ros.nodes import topics
from imagewam_ros.nodes.bringup_node import BringupConfig
from imagewam_ros.nodes.executor_node import ExecutorNodeConfig
from imagewam_ros.nodes.policy_node import PolicyNodeConfig
from imagewam_ros.nodes.sim_node import SimConfig

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "ros.md").read_text(encoding="utf8")
OTHERS = ("TELEOP", "DOCTOR", "EPISODE", "JOY")
"""Of nodes that are described elsewhere."""


@pytest.mark.parametrize("config", [SimConfig, PolicyNodeConfig, ExecutorNodeConfig, BringupConfig])
def test_every_parameter_is_named(config: type) -> None:
    for field in dataclasses.fields(config):
        nested = dataclasses.is_dataclass(getattr(config(), field.name))
        assert f"`{field.name}.*`" in PAGE or f"`{field.name}`" in PAGE or (nested and f"`{field.name}." in PAGE), field


def test_every_topic_and_service_is_named() -> None:
    constants = {name: value for name, value in vars(topics).items() if name.isupper() and not name.startswith(OTHERS)}
    assert not [value for value in constants.values() if f"`{value}`" not in PAGE]
    for topic in (topics.forward("<side>"), topics.trajectory("<side>"), topics.gripper("<side>")):
        assert f"`{topic}`" in PAGE


def test_every_test_file_that_is_named_exists() -> None:
    for name in ("test_cell.py", "test_faults.py", "test_policy_node.py", "test_executor_node.py"):
        assert name in PAGE and (Path(__file__).parent / name).exists()
