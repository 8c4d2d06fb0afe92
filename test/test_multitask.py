# SPDX-License-Identifier: Apache-2.0
"""The whole recipe of the policy for three tasks, with numbers that teach nothing: every step fits the next."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from imagewam_ros.model.checkpoint import load_checkpoint

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_recipe_runs_from_recording_to_report(tmp_path: Path) -> None:
    small = ("--demonstrations", "2", "--stay", "1", "--steps", "2", "--autoencoder-steps", "2", "--episodes", "1")
    small = (*small, "--hold-back-steps", "1")
    words = [sys.executable, str(ROOT / "tools" / "multitask.py"), "--out", str(tmp_path), "--threads", "1", *small]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=ROOT)
    assert done.returncode == 1, done.stderr  # a policy that learned nothing fails its tasks
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert (report["episodes"], report["steps"]) == (16, 2) and len(report["chunk_error_of"]) >= 1
    load_checkpoint(tmp_path / "run" / "checkpoint")
    for task in ("tray_lift", "hand_over", "block_lift"):
        rows = json.loads((tmp_path / f"evaluation_{task}" / "report.json").read_text())
        assert task in json.dumps(rows) and "wrong_instruction" in json.dumps(rows)
