# SPDX-License-Identifier: Apache-2.0
"""`imagewam evaluate --real` on the simulated cell as if it were a robot, with an operator who types."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.task import Future
from sensor_msgs.msg import Image

from imagewam_ros.action import RunPolicy
from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.evaluation.real import read_picture, write_picture
from imagewam_ros.msg import ExecutorStatus
from imagewam_ros.nodes import messages, qos, topics
from imagewam_ros.nodes.graph_calls import STEPS

pytestmark = pytest.mark.slow
STARTS_S = 120
INSTRUCTION = "lift the tray with both hands"
APART = """
import sys
from pathlib import Path
from imagewam_ros.evaluation.real import Book, RealConfig
from imagewam_ros.nodes.real_trials import RealTrials
from imagewam_ros.nodes.spin import run

out = Path(sys.argv[1])
config = RealConfig(("tiny",), "lift", out, reference=out.with_name("reference.png"), namespace="elsewhere")
sys.exit(run(lambda: RealTrials(Book(config), sys.stdin)))
"""
"""The session with its policy's process in a namespace of its own, so that the pretended one answers."""


class Terminal:
    """A Python program with typed input."""

    def __init__(self, log: Path, *words: str) -> None:
        self.log = log
        with log.open("wb") as out:
            command = [sys.executable, *words]
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
            return self.process.wait(90)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(5)


@pytest.fixture
def terminal(domain: int, tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    started: list[Terminal] = []

    def start(*words: str, program: tuple[str, str] = ("-m", "imagewam_ros")) -> Terminal:
        started.append(Terminal(tmp_path / f"terminal_{len(started)}.log", *program, *words))
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
    assert session.process.wait(90) == 0, said()
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


class Pretended:
    """A graph whose policy ends its run when that is cancelled, unless it hangs.

    It hears late that the executor is active, so it refuses to run at first, or for good.
    """

    def __init__(self, probe, hangs: bool, sees: bool = True, refuses: bool = False) -> None:
        self.states = {"executor": State.PRIMARY_STATE_INACTIVE, "policy": State.PRIMARY_STATE_UNCONFIGURED}
        self.hangs, self.silent, self._ended, node = hangs, False, Future(), probe.node
        beside = ReentrantCallbackGroup()  # a silent one stops no other
        for name in self.states:
            node.create_service(GetState, f"{name}/get_state", partial(self._tell, name), callback_group=beside)
            node.create_service(ChangeState, f"{name}/change_state", partial(self._change, name))
        self._asked, self.overlays = 0, probe.collect(Image, topics.START_OVERLAY, qos.IMAGES)
        judges = {"goal_callback": self._judge, "cancel_callback": self._cancel}
        self._runs = ActionServer(node, RunPolicy, topics.RUN, self._run, **judges)
        camera = load_embodiment("sim_cell").cameras[0]
        picture = messages.from_image(np.zeros((camera.height, camera.width, 3), np.uint8), 1, camera.frame)
        images = node.create_publisher(Image, camera.topic, qos.IMAGES)
        self._refuses = refuses
        if sees:
            node.create_timer(0.1, lambda: images.publish(picture))

    @property
    def moves(self) -> bool:
        return self.states["executor"] == State.PRIMARY_STATE_ACTIVE

    async def _tell(self, name: str, request: object, response: GetState.Response) -> GetState.Response:
        if self.silent:
            await Future()
        response.current_state.id = self.states[name]
        return response

    def _change(self, name: str, request: ChangeState.Request, response: ChangeState.Response) -> ChangeState.Response:
        self.states[name] = next(after for step, after in STEPS.values() if step == request.transition.id)
        response.success = True
        return response

    def _judge(self, goal: object) -> GoalResponse:
        self._asked += 1
        return GoalResponse.ACCEPT if self._asked > 1 and not self._refuses else GoalResponse.REJECT

    def _cancel(self, goal: object) -> CancelResponse:
        if not self.hangs:
            self._ended.set_result(None)
        return CancelResponse.ACCEPT

    async def _run(self, goal) -> RunPolicy.Result:
        await self._ended
        goal.canceled()
        return RunPolicy.Result(reason="cancelled", chunks=3)


@pytest.fixture
def begun(terminal, probe, tmp_path: Path) -> Callable[[bool], tuple[Pretended, Terminal]]:
    def start(hangs: bool) -> tuple[Pretended, Terminal]:
        write_picture(tmp_path / "reference.png", np.zeros((8, 8, 3), np.uint8))
        graph, session = Pretended(probe, hangs), terminal(str(tmp_path / "session"), program=("-c", APART))
        assert probe.until(lambda: graph.overlays and "Enter begins" in session.text(), STARTS_S), session.text()
        session.type("")
        return graph, session

    return start


@pytest.fixture
def running(begun, probe) -> Callable[[bool], tuple[Pretended, Terminal]]:
    def start(hangs: bool) -> tuple[Pretended, Terminal]:
        graph, session = begun(hangs)
        assert probe.until(lambda: "running; Enter stops" in session.text(), STARTS_S), session.text()
        assert graph.moves
        return graph, session

    return start


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_no_executor_active(running, number: signal.Signals) -> None:
    graph, session = running(hangs=True)
    session.end(number)
    assert not graph.moves, session.text()


def test_a_signal_deactivates_where_the_session_waits_for_an_answer(running) -> None:
    graph, session = running(hangs=True)
    graph.silent = True
    session.end()
    assert not graph.moves, session.text()


def test_enter_stops_the_arms_of_a_policy_that_hangs(running, probe) -> None:
    graph, session = running(hangs=True)
    session.type("")
    assert probe.until(lambda: not graph.moves), session.text()
    assert session.process.wait(90) == 2
    assert "nothing from the policy, which was told to stop, for 20 s" in session.text()


@pytest.mark.parametrize("typed", ["q", None])
def test_quitting_ends_a_run_without_a_verdict(running, typed: str | None, tmp_path: Path) -> None:
    graph, session = running(hangs=False)
    if typed is None:
        session.process.stdin.close()
    else:
        session.type(typed)
    assert session.process.wait(90) == 0, session.text()
    assert not graph.moves and "ended after" not in session.text()
    assert not (tmp_path / "session" / "trials.jsonl").exists()


@pytest.mark.parametrize(
    ("graph", "says"),
    [
        ({"sees": False}, "error: no picture from head_camera/color/image_raw; is the camera's driver running?"),
        ({"refuses": True}, "error: the policy refused to run 'lift"),
    ],
)
def test_what_is_missing_ends_the_session(terminal, probe, tmp_path: Path, graph: dict[str, bool], says: str) -> None:
    write_picture(tmp_path / "reference.png", np.zeros((8, 8, 3), np.uint8))
    pretended = Pretended(probe, hangs=False, **graph)
    session = terminal(str(tmp_path / "session"), program=("-c", APART))
    seen = [True] if "sees" in graph else pretended.overlays
    assert probe.until(lambda: seen and "Enter begins" in session.text(), STARTS_S), session.text()
    session.type("")
    assert session.process.wait(90) == 2, session.text()
    assert says in session.text() and not pretended.moves, session.text()


def test_a_disk_that_fails_ends_the_session(begun, tmp_path: Path) -> None:
    out = tmp_path / "session"
    out.mkdir()
    (out / "starts").write_text("no folder")
    graph, session = begun(hangs=False)
    assert session.process.wait(90) == 2
    assert "error: " in session.text() and str(out / "starts") in session.text()
    assert not graph.moves
