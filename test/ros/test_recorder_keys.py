# SPDX-License-Identifier: Apache-2.0
"""`imagewam record --live`: the recorder beside a running graph, by keys on a real terminal."""

import os
import pty
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.data.episode import find_episodes, read_provenance
from imagewam_ros.msg import ExecutorCommand

ROBOT = load_embodiment("sim_cell")


@pytest.mark.slow
def test_keys_record_and_label(domain: int, probe: Any, tmp_path: Path) -> None:
    from sensor_msgs.msg import Image, JointState

    publishers = [probe.node.create_publisher(Image, f"/cell/{camera.topic}", 5) for camera in ROBOT.cameras]
    joints = probe.node.create_publisher(JointState, "/cell/joint_states", 5)
    publishers += [joints, probe.node.create_publisher(ExecutorCommand, "/cell/executor/command", 5)]
    terminal, end = pty.openpty()
    out = (tmp_path / "out.txt").open("w")
    words = ["record", "--live", "--instruction", "wave", "--out", str(tmp_path / "episodes")]
    words += ["--namespace", "cell", "--set", "period_s:=0.1", "recording.free_mb:=0"]
    process = subprocess.Popen([sys.executable, "-m", "imagewam_ros", *words], stdin=end, stdout=out, stderr=out)
    try:
        said = (tmp_path / "out.txt").read_text
        assert probe.until(lambda: "s start, e stop" in said()), said()
        assert probe.until(lambda: all(publisher.get_subscription_count() for publisher in publishers))
        os.write(terminal, b"x")
        assert probe.until(lambda: "'x' means nothing" in said())
        os.write(terminal, b"s")
        assert probe.until(lambda: "start: " in said()), said()
        for _ in range(20):
            joints.publish(JointState(name=["a"], position=[0.0]))
            time.sleep(0.01)
        os.write(terminal, b"y")
        assert probe.until(lambda: "success: " in said())
        os.write(terminal, b"q")
        assert process.wait(60) == 0, said()
    finally:
        process.kill()
        process.wait()
    (episode,) = find_episodes(tmp_path / "episodes")
    about = read_provenance(episode)
    assert (about.label, about.instruction, about.period_ns) == ("success", "wave", 100_000_000)
    assert about.joint_topic == "/cell/joint_states"
