# SPDX-License-Identifier: Apache-2.0
"""A site's file of parameters in full names: what reaches which node, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from imagewam_ros.core.errors import ConfigError, GraphError
from imagewam_ros.core.paths import share_dir
from imagewam_ros.graph import PROCESSES
from imagewam_ros.site_parameters import site_parameters, write_site_parameters

CAP = "ros__parameters: {guard.speed_cap: 0.25}"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return tmp_path / "mine.yaml"


def read(mine: Path, text: str, namespace: str) -> dict[str, dict[str, Any]]:
    mine.write_text(text)
    return {name: values for name, values in site_parameters(str(mine), namespace).items() if values}


@pytest.mark.parametrize("namespace", ["", "/", "cell", "/cell/", "/hall/cell"])
@pytest.mark.parametrize(
    "key",
    ["executor", "/**/executor", "'**/executor'", "{home}/executor", "/**", "{home}/*", "/**/exec"],
)
def test_who_is_meant(mine: Path, namespace: str, key: str) -> None:
    home = "/" + namespace.strip("/") if namespace.strip("/") else ""
    text = f"{key.format(home=home)}: {{{CAP}}}\n"
    if key == "/**/exec":
        with pytest.raises(GraphError, match="the cell has no such node; "):
            read(mine, text, namespace)
        return
    found = read(mine, text, namespace)
    assert found[f"{home}/executor"] == {"guard.speed_cap": 0.25}
    assert len(found) == (1 if "executor" in key else len({process.name for process in PROCESSES}))


def test_nested_names_are_full_names_as_in_ros(mine: Path) -> None:
    assert set(read(mine, f"cell: {{executor: {{{CAP}}}}}\n", "cell")) == {"/cell/executor"}
    with pytest.raises(GraphError, match="'cell/executor', and the cell has no such node; write executor, or its full"):
        read(mine, f"cell: {{executor: {{{CAP}}}}}\n", "hall")


def test_a_name_in_full_outranks_a_wildcard_wherever_it_stands(mine: Path) -> None:
    exact, wild = "executor: {ros__parameters: {guard: {speed_cap: 0.1}}}\n", f"/**/executor: {{{CAP}}}\n"
    for text in (exact + wild, wild + exact):
        assert read(mine, text, "cell") == {"/cell/executor": {"guard.speed_cap": 0.1}}


def test_a_node_that_does_not_run_this_time_may_be_named(mine: Path) -> None:
    assert set(read(mine, f"recorder: {{{CAP}}}\n", "")) == {"/recorder"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"exekutor: {{{CAP}}}", "parameters of 'exekutor'.*unknown node 'exekutor'; did you mean 'executor'"),
        (f"/executor: {{{CAP}}}", "'/executor'.*write executor, or its full name /cell/executor"),
        (f"/cel/executor: {{{CAP}}}", "'/cel/executor'.*write executor, or its full name /cell/executor"),
        (f"/other/**: {{{CAP}}}", "'/other/\\*\\*'.*unknown node"),
    ],
)
def test_a_name_that_reaches_nobody_is_refused(mine: Path, text: str, said: str) -> None:
    with pytest.raises(GraphError, match=said):
        read(mine, text, "cell")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("executor: {output: trajectory}", "executor/output holds 'trajectory'; write the node's name, below it ros__"),
        ("executor: {ros__parameters: 3}", "executor/ros__parameters holds 3; write the node's name"),
        ("- executor", "holds \\['executor'\\]; write"),
        (f"executor: {{{CAP}}}\nexecutor: {{{CAP}}}", "not valid YAML: executor twice"),
        ("executor: [", "not valid YAML"),
    ],
)
def test_a_file_of_something_else_is_refused(mine: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read(mine, text, "")


def test_a_missing_file_is_said() -> None:
    with pytest.raises(GraphError, match=r"no file of parameters at absent.yaml; check the path, or copy config/"):
        site_parameters("absent.yaml", "")


def test_numbers_are_numbers_as_in_ros(mine: Path) -> None:
    found = read(mine, "executor: {ros__parameters: {a: 1e-3, b: .inf, c: '1e-3', d: 2, e: [0.5, 1.0]}}\n", "")
    assert found["/executor"] == {"a": 0.001, "b": float("inf"), "c": "1e-3", "d": 2, "e": [0.5, 1.0]}


@pytest.mark.parametrize("path", ["", str(share_dir() / "config" / "parameters.yaml")])
def test_nothing_is_set_by_no_file_and_by_the_one_that_ships(path: str, tmp_path: Path) -> None:
    written = yaml.safe_load(write_site_parameters(path, "cell", tmp_path).read_text())
    assert written == {f"/cell/{process.name}": {"ros__parameters": {}} for process in PROCESSES}


def test_what_is_written_is_what_was_read(mine: Path, tmp_path: Path) -> None:
    mine.write_text(f"/**: {{ros__parameters: {{use_sim_time: true}}}}\nexecutor: {{{CAP}}}\n")
    written = yaml.safe_load(write_site_parameters(str(mine), "cell", tmp_path).read_text())
    wanted = {"use_sim_time": True, "guard.speed_cap": 0.25}
    assert written["/cell/executor"]["ros__parameters"] == wanted
    assert written["/cell/policy"]["ros__parameters"] == {"use_sim_time": True}
