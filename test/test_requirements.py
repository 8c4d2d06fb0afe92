# SPDX-License-Identifier: Apache-2.0
"""What the code imports is what the package asks for, on both routes."""

import ast
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / "requirements"
DISTRIBUTIONS = {
    "PIL": "pillow",
    "backports": "backports.zstd",
    "cv2": "opencv-python-headless",
    "pinocchio": "pin",
    "yaml": "pyyaml",
}
"""Where the name to install is not the name to import."""
NEWER_STDLIB = {"compression"}
SIMULATORS = {"libero"}
"""Installed by their own instructions, in environments of their own."""


def names(path: Path) -> set[str]:
    lines = [line.split("#")[0].strip() for line in path.read_text().splitlines()]
    return {re.split(r"[\[<>=~!; ]", line)[0].lower() for line in lines if line}


def depends() -> set[str]:
    root = ElementTree.parse(ROOT / "package.xml").getroot()
    return {element.text or "" for element in root if element.tag.endswith("depend")}


def third_parties() -> dict[str, Path]:
    """Top-level names imported anywhere in the package, each with one place."""
    found = {}
    for path in sorted((ROOT / "imagewam_ros").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found.update({module.split(".")[0]: path for module in modules})
    return {
        name: path
        for name, path in found.items()
        if name not in sys.stdlib_module_names | NEWER_STDLIB | SIMULATORS | {"imagewam_ros"}
    }


def test_every_import_is_asked_for_and_what_runs_is_imported() -> None:
    found = third_parties()
    asked = depends().union(*(names(path) for path in REQUIREMENTS.glob("*.txt") if path.name != "dev.txt"))
    assert not {name: str(path) for name, path in found.items() if not {name, DISTRIBUTIONS.get(name, name)} & asked}
    assert names(REQUIREMENTS / "runtime.txt") <= {DISTRIBUTIONS.get(name, name) for name in found}


@pytest.mark.parametrize("distro", ["kilted", "jazzy"])
def test_wheels_are_pinned_to_one_release_for_running_and_building(distro: str) -> None:
    def pins(name: str) -> dict[str, str]:
        lines = (REQUIREMENTS / name).read_text().splitlines()
        return {
            re.sub(r"\[.*", "", a): b for a, _, b in (line.partition("==") for line in lines) if a.startswith("ros-")
        }

    run, build = pins(f"ros-{distro}.txt"), pins(f"ros-{distro}-build.txt")
    assert run["ros-rclpy"] == build["ros-rclpy"]
    assert run["ros-common-interfaces"] == build["ros-std-msgs"] == build["ros-sensor-msgs"]


def test_torchvision_is_never_asked_for() -> None:
    assert not any("torchvision" in names(path) for path in REQUIREMENTS.glob("*.txt"))
