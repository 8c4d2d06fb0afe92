# SPDX-License-Identifier: Apache-2.0
"""The launch file starts the graph of graph.py. Where launch is not installed, only its source is read."""

import ast
import runpy
from pathlib import Path
from typing import Any

import pytest

from imagewam_ros.core.paths import share_dir
from imagewam_ros.graph import ARGUMENTS, PROCESSES, Death, profile_variable, running, settings

FILE = share_dir() / "launch" / "dual_arm.launch.py"


def calls(name: str) -> list[ast.Call]:
    nodes = ast.walk(ast.parse(FILE.read_text()))
    return [n for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == name]


def test_nodes_and_arguments_come_from_the_graph_alone() -> None:
    assert len(calls("Node")) == len(calls("DeclareLaunchArgument")) == 1
    tables = {ast.unparse(argument) for call in calls("map") for argument in call.args}
    assert tables == {"declare", "ARGUMENTS", "node", "PROCESSES"}


@pytest.fixture
def described() -> tuple[Any, Any]:
    """Context and entities of the real launch system."""
    launch = pytest.importorskip("launch")
    pytest.importorskip("launch_ros")
    context = launch.LaunchContext()
    description = runpy.run_path(str(FILE))["generate_launch_description"]()
    return context, description.entities


def test_every_argument_is_described_and_has_the_default_of_the_graph(described: tuple[Any, Any]) -> None:
    _, entities = described
    declared = {e.name: e for e in entities if type(e).__name__ == "DeclareLaunchArgument"}
    assert list(declared) == [argument.name for argument in ARGUMENTS]
    assert all(e.description for e in declared.values())


@pytest.mark.parametrize("sim", ["mujoco", "none"])
def test_the_same_processes_run_as_under_up(described: tuple[Any, Any], sim: str) -> None:
    context, entities = described
    for argument in ARGUMENTS:
        context.launch_configurations[argument.name] = str(argument.default).lower()
    context.launch_configurations["sim"] = sim
    nodes = [e for e in entities if type(e).__name__ == "Node"]
    started = [e.node_executable for e in nodes if e.condition is None or e.condition.evaluate(context)]
    assert started == [process.executable for process in running(settings({"sim": sim}))]


def test_a_death_has_the_consequence_of_the_graph(described: tuple[Any, Any]) -> None:
    del described
    consequence = runpy.run_path(str(FILE))["consequence"]
    for process in PROCESSES:
        for code in (0, 1):
            ends = process.death is Death.ENDS_GRAPH or (process.death is Death.FAILURE_ENDS_GRAPH and code == 1)
            assert bool(consequence(process, Exited(code))) is ends


class Exited:
    def __init__(self, returncode: int) -> None:
        self.returncode = returncode


def test_publishers_of_images_get_the_profile(described: tuple[Any, Any]) -> None:
    _, entities = described
    nodes = [e for e in entities if type(e).__name__ == "Node"]
    for node, process in zip(nodes, PROCESSES, strict=True):
        variables = {"".join(part.text for part in name) for name, _ in node.additional_env or ()}
        assert variables == ({profile_variable()} if process.publishes_images else set())
    assert Path(share_dir(), "fastdds", "shm8.xml").is_file()
