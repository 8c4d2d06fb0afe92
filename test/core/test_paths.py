# SPDX-License-Identifier: Apache-2.0
"""The package finds its files wherever it is run from."""

import subprocess
import sys
from pathlib import Path

import pytest

from imagewam_ros.core.errors import CheckpointError, unknown_name
from imagewam_ros.core.paths import find_checkpoint, share_dir


def test_share_dir_holds_robots() -> None:
    assert (share_dir() / "config" / "robots" / "sim_cell.yaml").is_file()


def test_share_dir_does_not_depend_on_the_working_folder(tmp_path: Path) -> None:
    code = "from imagewam_ros.core.paths import share_dir; print(share_dir())"
    root = Path(__file__).resolve().parents[2]
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(root)}, capture_output=True, text=True
    )
    assert out.stdout.strip() == str(share_dir()), out.stderr


def test_unknown_name_lists_what_exists() -> None:
    assert unknown_name("robot", "zzz", ["b", "a"]) == "unknown robot 'zzz'; known: a, b"
    assert unknown_name("robot", "x", []) == "unknown robot 'x'; known: none"


def test_checkpoint_by_path_or_refused(tmp_path: Path) -> None:
    assert find_checkpoint(str(tmp_path)) == tmp_path
    with pytest.raises(CheckpointError, match="unknown checkpoint 'no_such_policy'"):
        find_checkpoint("no_such_policy")
    with pytest.raises(CheckpointError, match="no checkpoint directory /absent/place; check the path"):
        find_checkpoint("/absent/place")
