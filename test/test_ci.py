# SPDX-License-Identifier: Apache-2.0
"""The files of continuous integration name what exists; they are not run here."""

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / ".github" / "workflows" / "ros.yml"
JOBS: dict[str, Any] = yaml.safe_load(FILE.read_text())["jobs"]
LINES = [line for job in JOBS.values() for step in job["steps"] for line in step.get("run", "").splitlines()]


def test_it_says_that_it_was_not_run() -> None:
    assert "NOT RUN YET" in FILE.read_text()


def test_every_distribution_has_its_container_and_python() -> None:
    container = JOBS["container"]
    assert [entry["distro"] for entry in container["strategy"]["matrix"]["include"]] == ["humble", "jazzy", "kilted"]
    assert container["container"] == "ros:${{ matrix.distro }}-ros-base"
    assert JOBS["rooms"]["strategy"]["matrix"]["python"][:3] == ["3.10", "3.11", "3.12"]


def test_targets_of_make_exist() -> None:
    asked = {word for line in LINES for word in re.findall(r"^make ([a-z-]+)", line)}
    assert asked == {"lint", "test", "test-rooms"}
    assert asked <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_files_that_are_named_exist() -> None:
    named = {path for line in LINES for path in re.findall(r"src/imagewam_ros/([\w./-]+)", line)}
    named |= {f"launch/{name}" for line in LINES for name in re.findall(r"([\w.]+\.launch\.py)", line)}
    assert len(named) == 3
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_markers_that_are_left_out_are_declared() -> None:
    declared = (ROOT / "pyproject.toml").read_text()
    (line,) = (line for line in LINES if "-m pytest" in line)
    for mark in re.findall(r"not (\w+)", line):
        assert f'"{mark}: ' in declared


@pytest.fixture(scope="module")
def rooms() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "tools" / "test_rooms.py"))


def test_rooms_are_tested_without_torch_and_with_all_else(rooms: dict[str, Any]) -> None:
    names = {re.split(r"[<>=~!;]", wanted)[0] for wanted in rooms["requirements"]()}
    assert {"numpy", "PyYAML", "ruckig", "pin", "mcap", "pytest"} <= names
    assert not names & set(rooms["TORCH"])


def test_tests_of_rooms_exist(rooms: dict[str, Any]) -> None:
    assert [path for path in rooms["TESTS"] if not (ROOT / path).exists()] == []
