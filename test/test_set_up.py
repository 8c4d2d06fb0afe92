# SPDX-License-Identifier: Apache-2.0
"""The parts of tools/set_up.py that need no network."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "tools" / "set_up.py"


@pytest.fixture(scope="module")
def set_up() -> ModuleType:
    spec = importlib.util.spec_from_file_location("set_up", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_missing_is_named_in_a_line_to_run(tmp_path: Path) -> None:
    words = [sys.executable, str(SCRIPT), "--check"]
    done = subprocess.run(words, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 2
    assert "system packages are missing; run this line, then the same command again:" in done.stderr
    assert "\n  sudo apt-get install -y --no-install-recommends build-essential" in done.stderr


def test_another_distribution_than_the_environment_holds_is_refused(
    set_up: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(set_up, "STAMPS", tmp_path)
    (tmp_path / "packages").write_text("kilted of another day")
    with pytest.raises(set_up.SetUpError, match="holds other ROS 2 wheels than jazzy; run: make clean-venv"):
        set_up.python_packages("jazzy")


def test_a_library_is_found_or_not(set_up: ModuleType) -> None:
    assert set_up.loads("libc.so.6")
    assert not set_up.loads("libnothing.so.9")


def test_files_are_linked_one_by_one_and_stale_links_go(set_up: ModuleType, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "robots").mkdir(parents=True)
    (source / "robots" / "a.yaml").write_text("a")
    (source / "__pycache__").mkdir()
    (source / "__pycache__" / "x.pyc").touch()
    target.symlink_to(source)
    set_up.mirror(source, target)
    assert not target.is_symlink()
    assert [p.name for p in target.rglob("*") if p.is_symlink()] == ["a.yaml"]
    (source / "robots" / "a.yaml").rename(source / "b.yaml")
    set_up.mirror(source, target)
    assert [p.name for p in target.rglob("*") if p.is_symlink()] == ["b.yaml"]
    assert (source / "b.yaml").read_text() == "a"


def test_a_digest_sees_names_and_contents(set_up: ModuleType, tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_text("1")
    b.write_text("1")
    assert set_up.digest([a]) != set_up.digest([b])
    before = set_up.digest([a])
    a.write_text("2")
    assert set_up.digest([a]) != before


def test_another_ros_does_not_leak_in(set_up: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/opt/ros/jazzy/lib/python3.12/site-packages")
    monkeypatch.setenv("AMENT_PREFIX_PATH", "/opt/ros/jazzy")
    clean = set_up.clean_environment()
    assert not {"PYTHONPATH", "AMENT_PREFIX_PATH"} & set(clean)
    assert clean["PATH"] == os.environ["PATH"]


def test_the_launcher_runs_from_anywhere_and_drops_a_sourced_ros(set_up: ModuleType, tmp_path: Path) -> None:
    launcher = tmp_path / "imagewam"
    launcher.write_text(set_up.LAUNCHER.format(python=sys.executable, foreign=" ".join(set_up.FOREIGN)))
    launcher.chmod(0o755)
    (tmp_path / "imagewam_ros").mkdir()
    (tmp_path / "imagewam_ros" / "cli.py").write_text("raise SystemExit('the wrong one')")
    sourced = {**os.environ, "AMENT_PREFIX_PATH": "/opt/ros/jazzy", "PYTHONPATH": "/opt/ros/jazzy/lib"}
    sourced.pop("_ROS_WHEELS_BOOTSTRAP_COMPLETE", None)
    done = subprocess.run([launcher, "--help"], cwd=tmp_path, env=sourced, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: imagewam")
