# SPDX-License-Identifier: Apache-2.0
"""Small real processes stand for the nodes: polite, stubborn, dying."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from imagewam_ros.core.errors import GraphError
from imagewam_ros.core.paths import share_dir
from imagewam_ros.graph import Death, Process, running, settings
from imagewam_ros.middleware import profile_variable
from imagewam_ros.supervisor import Exit, Supervisor, command, environment

POLITE = "import signal, sys\nprint('ready', flush=True)\nsignal.sigwait([signal.SIGINT, signal.SIGTERM])\nprint('bye')"
BLOCK = "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])\n"
STUBBORN = BLOCK + "import time\nprint('ready', flush=True)\ntime.sleep(60)"
PARENT = (
    "import subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    "print('ready', child.pid, flush=True)\ntime.sleep(60)"
)
VALUES = settings({})
PATIENCE_S = 10.0

Make = Callable[..., Process]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def process(name: str, code: str, death: Death = Death.ENDS_GRAPH) -> Process:
        script = tmp_path / name
        script.write_text(code if code.startswith(BLOCK) else BLOCK * ("sigwait" in code) + code)
        return Process(name, str(script), death)

    return process


class Heard:
    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def __call__(self, name: str, line: str) -> None:
        self.lines.append((name, line))


def until(supervisor: Supervisor, happened: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < end
        supervisor.poll()


def first_exit(supervisor: Supervisor) -> Exit:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        for ended in supervisor.poll():
            return ended
    raise AssertionError(f"still alive: {supervisor.alive}")


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def wait_gone(pid: int) -> bool:
    end = time.monotonic() + PATIENCE_S
    while not gone(pid) and time.monotonic() < end:
        time.sleep(0.01)
    return gone(pid)


def test_lines_carry_their_process_and_stop_is_polite(make: Make) -> None:
    heard = Heard()
    with Supervisor([make("a", POLITE), make("b", POLITE)], VALUES, heard) as supervisor:
        until(supervisor, lambda: len(heard.lines) == 2)
        pids = supervisor.alive
    assert sorted(heard.lines) == [("a", "bye"), ("a", "ready"), ("b", "bye"), ("b", "ready")]
    assert supervisor.killed == []
    assert all(gone(pid) for pid in pids.values())


def test_a_stubborn_process_is_killed_within_three_seconds(make: Make) -> None:
    heard = Heard()
    with Supervisor([make("a", STUBBORN)], VALUES, heard) as supervisor:
        until(supervisor, lambda: bool(heard.lines))
        start = time.monotonic()
    assert time.monotonic() - start < 3.0
    assert supervisor.killed == ["a"]
    assert supervisor.alive == {}


def test_a_robot_that_brakes_slowly_is_not_killed_while_it_does(make: Make, tmp_path: Path) -> None:
    robot = tmp_path / "slow.yaml"
    text = (share_dir() / "config" / "robots" / "sim_cell.yaml").read_text()
    robot.write_text(text.replace("acceleration: 12,", "acceleration: 0.8,"))
    slow = POLITE.replace("print('bye')", "import time\ntime.sleep(3.5)\nprint('at rest')")
    heard = Heard()
    with Supervisor([make("a", slow)], settings({"robot": str(robot)}), heard) as supervisor:
        until(supervisor, lambda: bool(heard.lines))
    assert supervisor.killed == []
    assert ("a", "at rest") in heard.lines


def test_the_one_that_deactivates_the_others_ends_first(make: Make) -> None:
    heard = Heard()
    graph = [make("executor", POLITE), replace(make("bringup", POLITE), deactivates=True), make("sim", POLITE)]
    with Supervisor(graph, VALUES, heard) as supervisor:
        until(supervisor, lambda: len(heard.lines) == 3)
    assert heard.lines[3] == ("bringup", "bye")
    assert len(heard.lines) == 6


def test_what_a_process_started_ends_with_it(make: Make) -> None:
    heard = Heard()
    with Supervisor([make("a", PARENT)], VALUES, heard) as supervisor:
        until(supervisor, lambda: bool(heard.lines))
    assert wait_gone(int(heard.lines[0][1].split()[1]))


def test_nothing_outlives_a_killed_supervisor(make: Make) -> None:
    process = make("a", PARENT)
    code = (
        "from imagewam_ros.supervisor import Supervisor; from imagewam_ros.graph import *\n"
        f"with Supervisor([Process('a', {process.executable!r}, Death.ENDS_GRAPH)], settings({{}}), print) as s:\n"
        "    print(s.alive['a'], flush=True)\n    while True: s.poll()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        assert not gone(pid)
        parent.kill()
        assert wait_gone(pid)


@pytest.mark.parametrize(
    ("death", "code", "ends", "text"),
    [
        (Death.ENDS_GRAPH, 0, True, "a ended (exit code 0), which ends the graph"),
        (
            Death.ARMS_HOLD,
            3,
            False,
            "a ended (exit code 3), which leaves the others alive; the executor holds the arms",
        ),
        (Death.FAILURE_ENDS_GRAPH, 0, False, "exit code 0"),
        (Death.FAILURE_ENDS_GRAPH, 2, True, "exit code 2"),
    ],
)
def test_a_death_means_what_the_graph_says(make: Make, death: Death, code: int, ends: bool, text: str) -> None:
    with Supervisor([make("a", f"raise SystemExit({code})", death)], VALUES, Heard()) as supervisor:
        ended = first_exit(supervisor)
    assert ended.ends_graph is ends
    assert text in str(ended)


def test_a_signal_is_named(make: Make) -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    with Supervisor([make("a", code)], VALUES, Heard()) as supervisor:
        assert "a ended (SIGSEGV)" in str(first_exit(supervisor))


def up(*processes: Process) -> "subprocess.Popen[str]":
    listed = ", ".join(f"Process({p.name!r}, {p.executable!r}, {p.death})" for p in processes)
    imports = (
        "import sys; from imagewam_ros.graph import Death, Process, settings; from imagewam_ros.up import supervise"
    )
    code = f"{imports}\nsys.exit(supervise([{listed}], settings({{}})))"
    words = [sys.executable, "-u", "-c", code]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def lines_until(process: "subprocess.Popen[str]", *wanted: str) -> list[str]:
    assert process.stdout
    lines: list[str] = []
    while not all(any(text in line for line in lines) for text in wanted):
        line = process.stdout.readline()
        assert line, lines
        lines.append(line)
    return lines


def test_up_ends_with_zero_after_ctrl_c(make: Make) -> None:
    with up(make("a", POLITE), make("b", POLITE)) as process:
        lines_until(process, "[a] ready", "[b] ready")
        process.send_signal(signal.SIGINT)
        lines_until(process, "[a] bye", "[b] bye")
        assert process.wait(3) == 0


def test_up_goes_on_without_a_policy_and_says_so(make: Make) -> None:
    policy = make("policy", "raise SystemExit(1)", Death.ARMS_HOLD)
    with up(policy, make("executor", POLITE)) as process:
        lines_until(process, "the executor holds the arms", "[executor] ready")
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(3) == 1


def test_up_ends_when_the_executor_does(make: Make) -> None:
    with up(make("executor", "raise SystemExit(0)"), make("sim", POLITE)) as process:
        lines_until(process, "executor ended (exit code 0), which ends the graph")
        assert process.wait(3) == 1


def test_a_missing_executable_is_an_error_before_anything_starts(make: Make, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    first = make("a", f"open({str(touched)!r}, 'w')")
    supervisor = Supervisor([first, Process("b", "no_node", Death.ENDS_GRAPH)], VALUES, Heard())
    with pytest.raises(GraphError, match=r"no executable 'no_node' in .*; install the package again"), supervisor:
        pass
    assert not touched.exists()


def test_the_command_line_says_all_to_ros(make: Make) -> None:
    values = settings({"namespace": "/cell/", "log_level": "warn"})
    process = Process(
        "n", str(make("a", POLITE).executable), Death.ENDS_GRAPH, {"list": ("x", "y"), "text": "1"}, (("o", "t"),)
    )
    words = command(process, values)[2:]
    assert words[:5] == ["--ros-args", "--log-level", "warn", "--enclave", "/cell/n"]
    assert words[5:9] == ["-r", "__node:=n", "-r", "__ns:=/cell"]
    assert words[9:] == ["-r", "o:=t", "-p", "use_sim_time:=false", "-p", 'list:=["x", "y"]', "-p", 'text:="1"']


def test_programs_of_other_packages_run_by_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    values = settings({"rviz": "true"})
    rviz = next(process for process in running(values) if process.name == "rviz")
    with pytest.raises(GraphError, match=rf"no executable 'rviz2' in {tmp_path}/lib/rviz2 or"):
        command(rviz, values)
    program = tmp_path / "lib" / "rviz2" / "rviz2"
    program.parent.mkdir(parents=True)
    program.touch()
    said = command(rviz, values)
    assert said[:2] == [str(program), "-d"]
    assert said[3:6] == ["--ros-args", "--log-level", "info"]
    assert said[8:] == ["-r", "__node:=rviz", "-p", "use_sim_time:=false"]


RANGE, ONLY, PROFILE = "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY", profile_variable()
OURS = str(share_dir() / "fastdds" / "local.xml")


@pytest.mark.parametrize(
    ("site", "reach", "plain", "images"),
    [
        ({}, "LOCALHOST", "local", "local_shm8"),
        ({RANGE: "LOCALHOST", ONLY: "0"}, "LOCALHOST", "local", "local_shm8"),
        ({ONLY: ""}, "LOCALHOST", "local", "local_shm8"),
        ({"ROS_DISTRO": "humble"}, "LOCALHOST", None, "shm8"),
        ({ONLY: "1"}, None, None, "shm8"),
        ({RANGE: "SUBNET"}, "SUBNET", None, "shm8"),
        ({PROFILE: "/mine.xml"}, "LOCALHOST", "mine", "mine"),
        ({PROFILE: OURS}, "LOCALHOST", "local", "local_shm8"),
    ],
    ids=str,
)
def test_loopback_is_the_default_and_the_site_may_differ(
    site: dict[str, str], reach: str | None, plain: str | None, images: str
) -> None:
    for publishes, expected in ((False, plain), (True, images)):
        env = environment(Process("n", "x", Death.ENDS_GRAPH, publishes_images=publishes), site)
        assert env.get(RANGE) == reach
        assert (Path(env[PROFILE]).stem if PROFILE in env else None) == expected
        assert PROFILE in site or PROFILE not in env or Path(env[PROFILE]).is_file()


def test_a_sites_parameters_come_after_the_graphs_own(make: Make, tmp_path: Path) -> None:
    said = command(make("node", "pass"), VALUES, tmp_path / "site.yaml")
    assert said[-2:] == ["--params-file", str(tmp_path / "site.yaml")]
    assert "--params-file" not in command(make("node", "pass"), VALUES)


def test_a_sites_parameters_are_handed_over_in_full_names_and_left_nowhere(make: Make, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("executor:\n  ros__parameters:\n    output: trajectory\n")
    heard = Heard()
    code = "import sys\nprint(sys.argv[-1], open(sys.argv[-1]).read().count('/cell/executor:'), flush=True)"
    with Supervisor([make("a", code)], settings({"parameters": str(file), "namespace": "cell"}), heard) as supervisor:
        first_exit(supervisor)
    written, count = heard.lines[0][1].split()
    assert count == "1"
    assert not Path(written).parent.exists()


def test_a_file_of_parameters_for_nobody_starts_nothing(make: Make, tmp_path: Path) -> None:
    file, touched = tmp_path / "mine.yaml", tmp_path / "touched"
    file.write_text("exekutor:\n  ros__parameters:\n    output: trajectory\n")
    first = make("a", f"open({str(touched)!r}, 'w')")
    supervisor = Supervisor([first], settings({"parameters": str(file)}), Heard())
    with pytest.raises(GraphError, match="unknown node 'exekutor'; did you mean 'executor'"), supervisor:
        pass
    assert not touched.exists()
