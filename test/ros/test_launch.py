# SPDX-License-Identifier: Apache-2.0
"""The launch file under launch itself. It runs where launch_pytest is installed, as on a ROS 2 machine."""

import os
import sys
from pathlib import Path

import pytest

launch_pytest = pytest.importorskip("launch_pytest", reason="comes with ROS 2, not with its wheels")
if pytest.version_tuple >= (8, 4):
    pytest.skip("launch_pytest knows pytest below 8.4 alone", allow_module_level=True)

from launch import LaunchDescription  # noqa: E402
from launch.actions import IncludeLaunchDescription  # noqa: E402
from launch_pytest.actions import ReadyToTest  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from imagewam_ros.core.paths import share_dir  # noqa: E402
from imagewam_ros.nodes import topics  # noqa: E402

FILE = str(share_dir() / "launch" / "dual_arm.launch.py")


@launch_pytest.fixture
def cell(domain, monkeypatch):
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)  # scripts take the first python3
    chosen = [("sim", "mujoco"), ("policy", "none"), ("doctor", "true"), ("record", "true")]
    chosen += [("speed", "0.2"), ("use_sim_time", "true")]  # a busy machine would not pass the doctor in real time
    return LaunchDescription([IncludeLaunchDescription(FILE, launch_arguments=chosen), ReadyToTest()])


@pytest.mark.launch(fixture=cell)
def test_every_node_becomes_active_the_executor_last(cell, launch_context, probe) -> None:
    assert probe.until(lambda: probe.state("executor") == "active", 90)
    assert [probe.state(name) for name in ("sim", "recorder", "doctor")] == ["active"] * 3
    answer = probe.call(Trigger, topics.HOLD, Trigger.Request())
    assert answer.success, answer.message
