# SPDX-License-Identifier: Apache-2.0
"""A site's file of parameters reaches the nodes, outranks the graph's own, and is refused where it is wrong."""

from pathlib import Path

import yaml
from rcl_interfaces.srv import GetParameters
from rclpy.parameter import parameter_value_to_python

ROOT = Path(__file__).resolve().parents[2]


def values(probe, *names: str) -> list:
    answer = probe.call(GetParameters, "/executor/get_parameters", GetParameters.Request(names=names))
    return [parameter_value_to_python(value) for value in answer.values]


def test_the_file_that_is_shipped_sets_nothing(spawn, probe) -> None:
    executor = spawn(
        "imagewam_ros.nodes.executor_node",
        "-r", "__node:=executor", "--params-file", str(ROOT / "config" / "parameters.yaml"), guarded=False,
    )  # fmt: skip
    assert probe.change("executor", "configure"), executor.text()
    assert values(probe, "output", "guarded") == ["forward", False]


def test_what_its_comments_show_is_known_and_outranks_the_graph(spawn, probe, tmp_path) -> None:
    lines = (ROOT / "config" / "parameters.yaml").read_text().splitlines()
    shown = [line[2:] for line in lines if line.startswith("# ") and not line[2:3].isupper() and ":" in line]
    wanted = yaml.safe_load("\n".join(line for line in shown if "parameters:=" not in line))
    wanted["executor"]["ros__parameters"] |= {"grippers": "percent", "guarded": False}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(wanted))
    executor = spawn(
        "imagewam_ros.nodes.executor_node", "-r", "__node:=executor", "--params-file", str(file), guarded=True
    )
    assert probe.change("executor", "configure"), executor.text()
    assert values(probe, "output", "grippers", "guarded", "control.rule") == [
        "trajectory",
        "percent",
        False,
        "ensemble",
    ]


def test_a_misspelt_parameter_names_the_nearest(spawn, probe, tmp_path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("executor:\n  ros__parameters:\n    guard.sped_cap: 0.5\n")
    executor = spawn("imagewam_ros.nodes.executor_node", "-r", "__node:=executor", "--params-file", str(file))
    assert not probe.change("executor", "configure")
    assert "unknown parameter 'guard.sped_cap'; did you mean 'guard.speed_cap'?" in executor.text()
