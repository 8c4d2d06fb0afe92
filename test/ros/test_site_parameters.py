# SPDX-License-Identifier: Apache-2.0
"""A site's file of parameters reaches the nodes in any namespace, outranks the graph's own, is refused where wrong."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from rcl_interfaces.srv import GetParameters
from rclpy.parameter import parameter_value_to_python

from imagewam_ros.graph import running, settings
from imagewam_ros.site_parameters import write_site_parameters
from imagewam_ros.supervisor import Supervisor

ROOT = Path(__file__).resolve().parents[2]


def values(probe, *names: str, node: str = "executor") -> list:
    answer = probe.call(GetParameters, f"/{node}/get_parameters", GetParameters.Request(names=names))
    return [parameter_value_to_python(value) for value in answer.values]


def executor(spawn, site: Path, **parameters: object):
    words = ("-r", "__node:=executor", "--params-file", str(site))
    return spawn("imagewam_ros.nodes.executor_node", *words, **parameters)


def test_the_file_that_is_shipped_sets_nothing(spawn, probe, tmp_path) -> None:
    site = write_site_parameters(str(ROOT / "config" / "parameters.yaml"), "", tmp_path)
    node = executor(spawn, site, guarded=False)
    assert probe.change("executor", "configure"), node.text()
    assert values(probe, "output", "guarded") == ["forward", False]


def test_what_its_comments_show_is_known_and_outranks_the_graph(spawn, probe, tmp_path) -> None:
    lines = (ROOT / "config" / "parameters.yaml").read_text().splitlines()
    shown = [line[2:] for line in lines if line.startswith("# ") and not line[2:3].isupper() and ":" in line]
    wanted = yaml.safe_load("\n".join(line for line in shown if "parameters:=" not in line))
    wanted["executor"]["ros__parameters"] |= {"grippers": "percent", "guarded": False}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(wanted))
    node = executor(spawn, write_site_parameters(str(file), "", tmp_path), guarded=True)
    assert probe.change("executor", "configure"), node.text()
    assert values(probe, "output", "grippers", "guarded", "control.rule") == [
        "trajectory",
        "percent",
        False,
        "ensemble",
    ]


@pytest.mark.parametrize("key", ["executor", "/cell/executor", "/**/executor", "/cell/*"])
def test_a_speed_cap_holds_in_a_namespace_too(probe, tmp_path, key) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"{key}: {{ros__parameters: {{guard: {{speed_cap: 0.12}}, guarded: false}}}}\n")
    chosen = settings({"namespace": "cell", "parameters": str(file), "policy": "none"})
    heard: list[str] = []
    processes = [process for process in running(chosen) if process.name == "executor"]
    with Supervisor(processes, chosen, lambda _, line: heard.append(line)) as supervisor:
        assert probe.change("cell/executor", "configure"), heard
        assert values(probe, "guard.speed_cap", node="cell/executor") == [0.12]
        supervisor.poll()


@pytest.mark.usefixtures("domain")
def test_a_node_that_the_cell_lacks_is_refused_before_anything_starts(tmp_path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("/executor:\n  ros__parameters:\n    guard.speed_cap: 0.12\n")
    command = [sys.executable, "-m", "imagewam_ros", "up", "namespace:=cell", f"parameters:={file}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "sets parameters of '/executor', and the cell has no such node; write executor, or its" in done.stderr
    assert "started" not in done.stdout


def test_a_misspelt_parameter_names_the_nearest(spawn, probe, tmp_path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("executor:\n  ros__parameters:\n    guard.sped_cap: 0.5\n")
    node = executor(spawn, write_site_parameters(str(file), "", tmp_path))
    assert not probe.change("executor", "configure")
    assert "unknown parameter 'guard.sped_cap'; did you mean 'guard.speed_cap'?" in node.text()
