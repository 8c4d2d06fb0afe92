# SPDX-License-Identifier: Apache-2.0
"""The demo around small stand-in processes; test/ros plays it on the real graph."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from imagewam_ros.cli import INTERRUPTED, main
from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.demo import DIED, play, processes, report
from imagewam_ros.demo_record import EpisodeRecord
from imagewam_ros.graph import Death, Process, running, settings

VALUES = settings({})
WAIT = "import signal\nprint('[ERROR] hungry', flush=True)\nsignal.pause()\n"


@pytest.fixture
def make(tmp_path: Path) -> Callable[[str, str], Process]:
    def process(name: str, code: str) -> Process:
        script = tmp_path / f"{name}.py"
        script.write_text(code)
        return Process(name, str(script), Death.FAILURE_ENDS_GRAPH if name == "demo" else Death.ENDS_GRAPH)

    return process


@pytest.fixture
def cell_record(make_record: Callable[..., EpisodeRecord]) -> EpisodeRecord:
    """An episode of the simulated cell, standing still."""
    robot = load_embodiment("sim_cell")
    record = make_record(ticks=50)
    rest = np.tile((robot.limits.lower + robot.limits.upper) / 2, (50, 1))
    sent = record.sent._replace(position=rest, velocity=0 * rest, acceleration=0 * rest)
    measured = record.measured._replace(position=rest)
    return replace(record, joint_names=robot.joint_names, sent=sent, measured=measured)


def test_the_demo_plays_the_graph_of_up_and_no_death_is_survived() -> None:
    graph = processes(VALUES, 2, 20.0, Path("out"))
    assert [p.executable for p in graph] == [*(p.executable for p in running(VALUES)), "demo_node"]
    assert {p.name for p in graph if p.death is not Death.ENDS_GRAPH} == {"bringup", "demo"}


def test_the_end_of_the_demo_node_ends_the_others(make: Callable[[str, str], Process], tmp_path: Path) -> None:
    graph = (make("sim", WAIT), make("demo", "print('played')"))
    assert play(graph, VALUES, tmp_path) == 0
    assert (tmp_path / "demo.log").read_text() == "played\n"


def test_a_death_is_told_with_last_words_and_complaints(
    make: Callable[[str, str], Process], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "import time\nwhile '[ERROR]' not in open({log!r}).read(): time.sleep(0.01)\nprint('I fall')\nexit(5)"
    (tmp_path / "sim.log").touch()
    graph = (make("sim", WAIT), make("policy", code.format(log=str(tmp_path / "sim.log"))), make("demo", WAIT))
    assert play(graph, VALUES, tmp_path) == DIED
    told = capsys.readouterr().err
    assert f"policy ended (exit code 5), which ends the graph; its last lines, all in {tmp_path}/policy.log" in told
    assert "  [policy] I fall" in told
    assert "  [sim] [ERROR] hungry" in told


def test_ctrl_c_ends_everything_within_three_seconds(make: Callable[[str, str], Process], tmp_path: Path) -> None:
    listed = ", ".join(
        f"Process({p.name!r}, {p.executable!r}, {p.death})" for p in (make("sim", WAIT), make("demo", WAIT))
    )
    code = (
        "import sys; from pathlib import Path; from imagewam_ros.demo import play\n"
        "from imagewam_ros.graph import Death, Process, settings\n"
        f"sys.exit(play(({listed}), settings({{}}), Path({str(tmp_path)!r})))"
    )
    words = [sys.executable, "-c", code]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stdout
        assert "hungry" in demo.stdout.readline()
        start = time.monotonic()
        demo.send_signal(signal.SIGINT)
        assert demo.wait(5) == INTERRUPTED
        assert time.monotonic() - start < 3.0
        assert demo.stderr
        assert "stopped by SIGINT" in demo.stderr.read()


def test_the_report_judges_the_recorded_commands(
    cell_record: EpisodeRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cell_record.save(tmp_path / "episode_1.npz")
    assert report(tmp_path, "sim_cell", machine_line=True) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    keys = "episodes successes rtf executor_hz camera_hz limit_violations camera_to_chunk_ms inference_ms"
    assert list(line) == keys.split()
    assert (line["episodes"], line["successes"], line["limit_violations"]) == (1, 1, 0)
    stored = json.loads((tmp_path / "demo.json").read_text())
    assert {key: stored[key] for key in line} == line
    assert len(stored["rows"]) == 1
    assert (tmp_path / "joints.png").is_file()


def test_a_command_beyond_a_limit_is_counted_and_fails_the_demo(cell_record: EpisodeRecord, tmp_path: Path) -> None:
    position = cell_record.sent.position.copy()
    position[25:, 0] += 0.5
    wild = replace(cell_record, sent=cell_record.sent._replace(position=position))
    wild.save(tmp_path / "episode_1.npz")
    assert report(tmp_path, "sim_cell", machine_line=False) == 1
    assert json.loads((tmp_path / "demo.json").read_text())["limit_violations"] > 0


def test_a_failed_episode_fails_the_demo(cell_record: EpisodeRecord, tmp_path: Path) -> None:
    cell_record.save(tmp_path / "episode_1.npz")
    replace(cell_record, success=False).save(tmp_path / "episode_2.npz")
    assert report(tmp_path, "sim_cell", machine_line=False) == 1
    assert json.loads((tmp_path / "demo.json").read_text())["successes"] == 1


@pytest.mark.parametrize("words", [["--episodes", "0"], ["--episode-s", "-1"]])
def test_nothing_to_play_is_refused(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", *words, "--out", str(tmp_path / "out")]) == 2
    assert "must be positive; try --episodes 5" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert os.environ.get("ROS_LOG_DIR") is None
