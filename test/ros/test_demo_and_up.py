# SPDX-License-Identifier: Apache-2.0
"""`imagewam demo` and `imagewam up` as a person runs them, on the policy that ships with the package."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imagewam_ros.core.paths import find_checkpoint
from imagewam_ros.msg import ExecutorStatus, SimStatus
from imagewam_ros.nodes import qos, topics

pytestmark = pytest.mark.slow
STARTS_S = 120
ENDS_S = 15.0
LEAST_SPEED = "0.25"
"""Real time needs two free cores; a busy machine shall not fail a test of what the programs do."""


@pytest.fixture(scope="module", autouse=True)
def policy() -> Path:
    return find_checkpoint("tiny")


class Command:
    def __init__(self, log: Path, *words: str) -> None:
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "imagewam_ros", *words], stdout=out, stderr=subprocess.STDOUT
            )

    def text(self) -> str:
        return self.log.read_text()

    def nodes(self) -> dict[str, int]:
        """Process ids of the nodes that this command started and that still run."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                words = (folder / "cmdline").read_text().split("\0")
                if parent == self.process.pid and "--ros-args" in words:
                    found[Path(words[1]).name] = int(folder.name)
        return found


@pytest.fixture
def imagewam(domain: int, tmp_path: Path) -> Iterator[Callable[..., Command]]:
    started: list[Command] = []

    def start(*words: str) -> Command:
        started.append(Command(tmp_path / f"imagewam_{len(started)}.log", *words))
        return started[-1]

    yield start
    for command in started:
        command.process.terminate()
        command.process.wait(60)


def test_the_demo_plays_an_episode_and_reports_it(imagewam, tmp_path) -> None:
    out = tmp_path / "demo"
    words = ("--episodes", "1", "--speed", LEAST_SPEED, "--episode-s", "4", "--out", str(out), "--json")
    demo = imagewam("demo", *words)
    code = demo.process.wait(600)
    summary = json.loads(demo.text().splitlines()[-1])
    assert code == int(summary["successes"] != 1), demo.text()
    assert summary["limit_violations"] == 0
    assert summary["rtf"] == pytest.approx(0.25, rel=0.2)
    assert summary["camera_hz"] > 10
    for name in ("demo.mp4", "joints.png", "demo.json", "log/executor.log"):
        assert (out / name).stat().st_size > 0, name


@pytest.mark.parametrize("victim", [None, "policy_node"])
def test_ctrl_c_and_any_death_end_the_demo_and_all_of_it(imagewam, tmp_path, victim) -> None:
    demo = imagewam("demo", "--episodes", "1", "--speed", LEAST_SPEED, "--out", str(tmp_path / "demo"))
    end = time.monotonic() + STARTS_S
    while "episode 1/1" not in demo.text():
        assert demo.process.poll() is None and time.monotonic() < end, demo.text()
        time.sleep(0.05)
    nodes = demo.nodes()
    assert len(nodes) == 5
    start = time.monotonic()
    if victim:
        os.kill(nodes[victim], signal.SIGKILL)
    else:
        demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(60) == (3 if victim else 130), demo.text()
    assert time.monotonic() - start < ENDS_S
    assert not [pid for pid in nodes.values() if Path(f"/proc/{pid}").exists()]
    assert ("policy ended (SIGKILL)" if victim else "stopped by SIGINT") in demo.text()


def test_up_outlives_its_policy_with_the_arms_held_but_not_its_executor(imagewam, probe) -> None:
    up = imagewam("up", "--speed", LEAST_SPEED, "--use-sim-time", "true", "instruction:=lift the tray with both hands")
    statuses = probe.collect(ExecutorStatus, topics.STATUS, qos.STATUS)
    assert probe.until(lambda: statuses and statuses[-1].accepted > 0, STARTS_S), up.text()
    nodes = up.nodes()
    assert set(nodes) == {"sim_node", "policy_node", "executor_node", "bringup_node"}
    os.kill(nodes["policy_node"], signal.SIGKILL)
    assert probe.until(lambda: statuses[-1].state == ExecutorStatus.HOLDING), up.text()
    assert "no new chunk" in statuses[-1].reason
    assert up.process.poll() is None
    os.kill(nodes["executor_node"], signal.SIGKILL)
    assert up.process.wait(60) == 1
    assert "leaves the others alive" in up.text()
    assert "executor ended (SIGKILL), which ends the graph" in up.text()
    assert not [pid for pid in nodes.values() if Path(f"/proc/{pid}").exists()]


def test_up_without_autostart_stops_at_inactive(imagewam, probe) -> None:
    up = imagewam("up", "autostart:=false")
    scene = probe.collect(SimStatus, topics.SIM_STATUS, qos.STATUS)
    assert probe.until(lambda: "sim, policy, executor: inactive" in up.text(), STARTS_S), up.text()
    assert {name: probe.state(name) for name in ("sim", "policy", "executor")} == dict.fromkeys(
        ("sim", "policy", "executor"), "inactive"
    )
    assert not [status for status in scene if status.episode_time_s > 0]
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(60) == 0, up.text()


def test_a_checkpoint_that_is_not_there_ends_up_with_the_reason(imagewam) -> None:
    up = imagewam("up", "policy:=tinny")
    assert up.process.wait(STARTS_S) == 1
    assert "unknown checkpoint 'tinny'; did you mean 'tiny'?" in up.text()
