# SPDX-License-Identifier: Apache-2.0
"""The import rules of ARCHITECTURE.md, read from the source and tried with modules blocked."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "imagewam_ros"

MAY_IMPORT = {
    "core": set(),
    "model": {"core"},
    "kinematics": {"core"},
    "cameras": {"core"},
    "doctor_checks": {"core"},
    "remote": {"core"},
    "benchmarks": {"core"},
    "data": {"core"},
    "control": {"core", "kinematics"},
    "teleop": {"core", "kinematics"},
    "sim": {"core", "kinematics"},
    "policy": {"core", "model", "kinematics"},
}
"""What each room may import of ours, itself aside; rooms that are not listed wire the others together."""

TORCH_FREE = ("core", "cameras", "remote", "benchmarks", "control", "teleop", "data", "kinematics")
GENERATED = {"msg", "srv", "action"}


def modules(room: str) -> list[Path]:
    folder = PACKAGE / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [p for p in [folder.with_suffix(".py")] if p.exists()]


@cache
def imported(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def our_room(name: str) -> str | None:
    parts = name.split(".")
    return parts[1] if parts[0] == "imagewam_ros" and len(parts) > 1 else None


def existing(rooms: object) -> list[str]:
    return [room for room in rooms if modules(room)]  # type: ignore[attr-defined]


@pytest.mark.parametrize("room", existing(MAY_IMPORT))
def test_room_imports_only_what_it_may(room: str) -> None:
    allowed = MAY_IMPORT[room] | {room}
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in modules(room)
        for name in imported(path)
        if our_room(name) is not None and our_room(name) not in allowed
    ]
    assert not wrong, wrong


def test_only_nodes_import_ros() -> None:
    ros = {"rclpy", "launch", "launch_ros", "message_filters", "cv_bridge", "rosidl_runtime_py", "tf2_ros"}
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in PACKAGE.rglob("*.py")
        if "nodes" not in path.relative_to(PACKAGE).parts
        for name in imported(path)
        if name.split(".")[0] in ros or our_room(name) in GENERATED
    ]
    assert not wrong, wrong


def test_nothing_unpickles() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in PACKAGE.rglob("*.py")
        for name in imported(path)
        if name.split(".")[0] in {"pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
        and name != "pickle.UnpicklingError"  # the exception of torch's refusal
    ]
    assert not wrong, wrong


def test_no_room_bears_the_name_of_generated_code() -> None:
    assert not [name for name in GENERATED if (PACKAGE / name).exists()]


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def import_without(blocked: tuple[str, ...], names: list[str]) -> None:
    code = f"import sys, importlib\nfor n in {blocked}: sys.modules[n] = None\n"
    code += f"for n in {names}: importlib.import_module(n)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_rooms_import_with_torch_and_ros_blocked() -> None:
    import_without(("torch", "rclpy"), [dotted(path) for room in existing(TORCH_FREE) for path in modules(room)])


def test_processes_of_the_arms_never_load_torch() -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2's Python packages")
    names = [f"imagewam_ros.nodes.{name}_node" for name in ("executor", "bringup", "sim")]
    import_without(("torch",), names)


def test_every_source_file_names_its_licence() -> None:
    folders = ("imagewam_ros", "test", "launch", "scripts", "tools", "benchmarks")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert not [str(p.relative_to(ROOT)) for p in files if "SPDX-License-Identifier" not in p.read_text()[:200]]
