# SPDX-License-Identifier: Apache-2.0
"""`imagewam evaluate --real` on the simulated cell as if it were a robot, with an operator who types."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from sensor_msgs.msg import Image

from imagewam_ros.evaluation.real import read_picture
from imagewam_ros.msg import ExecutorStatus
from imagewam_ros.nodes import qos, topics

pytestmark = pytest.mark.slow
STARTS_S = 120
INSTRUCTION = "lift the tray with both hands"


class Terminal:
    """A command with typed input."""

    def __init__(self, log: Path, *words: str) -> None:
        self.log = log
        with log.open("wb") as out:
            command = [sys.executable, "-m", "imagewam_ros", *words]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT)

    def type(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()

    def text(self) -> str:
        return self.log.read_text()

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(5)


@pytest.fixture
def terminal(domain: int, tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    started: list[Terminal] = []

    def start(*words: str) -> Terminal:
        started.append(Terminal(tmp_path / f"terminal_{len(started)}.log", *words))
        return started[-1]

    yield start
    for one in reversed(started):
        one.end()


def test_an_operator_judges_two_policies_blind(terminal, probe, checkpoint: Path, tmp_path: Path) -> None:
    statuses = probe.collect(ExecutorStatus, topics.STATUS, qos.STATUS)
    overlays = probe.collect(Image, topics.START_OVERLAY, qos.IMAGES)
    cell = terminal("up", "sim:=mujoco", "policy:=none", "speed:=0.25", "use_sim_time:=true")
    assert probe.until(lambda: statuses and statuses[-1].state != ExecutorStatus.INACTIVE, STARTS_S), cell.text()
    out = tmp_path / "session"
    words = ["evaluate", "--real", "--policy", "tiny", "--against", str(checkpoint), "--instruction", INSTRUCTION]
    words += ["--episodes", "1", "--timeout", "1", "--use-sim-time", "--out", str(out), "--json"]
    session = terminal(*words)
    said, resets = session.text, 0

    def told(condition: Callable[[], bool]) -> bool:
        """Also resets what a busy machine's silences made fault."""
        nonlocal resets
        if said().count("Enter resets it") > resets:
            resets += 1
            session.type("")
        return condition()

    for number, verdict in ((1, "y"), (2, "n")):
        assert probe.until(lambda n=number: f"trial {n} of 2" in said(), STARTS_S), said()
        assert probe.until(lambda: statuses[-1].state == ExecutorStatus.INACTIVE), "the arms hold while people are near"
        session.type("")
        assert probe.until(lambda n=number: told(lambda: said().count("ended after") == n), STARTS_S), said()
        if number == 1:
            session.type("perhaps")
            assert probe.until(lambda: "'perhaps' means nothing" in said()), said()
        session.type(verdict)
    assert session.process.wait(60) == 0, said()
    assert overlays, "the second start was compared with the first"
    line = json.loads(said().splitlines()[-1])
    assert line["mode"] == "real" and line["paired"]["both"] == 0 and line["paired"]["neither"] == 0
    trials = [json.loads(text) for text in (out / "trials.jsonl").read_text().splitlines()]
    assert [trial["label"] for trial in trials] == ["success", "failure"]
    assert sorted(trial["policy"] for trial in trials) == [0, 1] and all(trial["chunks"] for trial in trials)
    assert all(trial["ended"] == "ran for 1 s" for trial in trials), trials
    assert trials[0]["difference"] == 0 and trials[1]["difference"] > 0
    assert np.array_equal(read_picture(out / "reference.png"), read_picture(out / "starts" / "0.png"))
    assert (out / "starts" / "1_overlay.png").exists() and "95 % interval" in (out / "report.html").read_text()
    names = ("tiny", str(checkpoint), checkpoint.name)
    before = said().split("A: ")[0]
    assert not any(name in before for name in names), "nothing tells the operator which policy runs"


def test_without_a_graph_it_says_so(terminal, tmp_path: Path) -> None:
    words = ["evaluate", "--real", "--policy", "tiny", "--instruction", INSTRUCTION, "--out", str(tmp_path / "none")]
    session = terminal(*words)
    assert session.process.wait(90) == 2
    assert "no service executor/get_state; is the graph up, with policy:=none?" in session.text()
