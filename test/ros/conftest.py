# SPDX-License-Identifier: Apache-2.0
"""Graph tests with plain pytest: real processes in a ROS domain of their own, on loopback only."""

import contextlib
import ctypes
import fcntl
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2's Python packages")
pytest.importorskip("imagewam_ros.msg", reason="needs the generated interfaces")

import numpy as np
import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from sensor_msgs.msg import JointState

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.schema import ActionChunk, Command, Floats
from imagewam_ros.msg import ActionChunk as ActionChunkMsg
from imagewam_ros.msg import ExecutorCommand, ExecutorStatus
from imagewam_ros.nodes import messages, qos, topics

ROOT = Path(__file__).resolve().parents[2]
TRANSITIONS = {
    "configure": Transition.TRANSITION_CONFIGURE,
    "activate": Transition.TRANSITION_ACTIVATE,
    "deactivate": Transition.TRANSITION_DEACTIVATE,
    "cleanup": Transition.TRANSITION_CLEANUP,
}
REACHED = {"configure": "inactive", "activate": "active", "deactivate": "inactive", "cleanup": "unconfigured"}
"""State after each transition."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.ros)


@pytest.fixture
def domain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A ROS domain that no other test on this machine holds; the kernel frees the lock on exit."""
    numbers = list(range(1, 102))  # 0 to 101 keep the DDS ports below the ephemeral range
    random.shuffle(numbers)
    for number in numbers:
        lock = (Path(tempfile.gettempdir()) / f"imagewam_ros_domain_{number}.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError:
            lock.close()
    else:
        pytest.fail("no free ROS domain")
    settings = {
        "ROS_DOMAIN_ID": str(number),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_LOCALHOST_ONLY": "1" if os.environ.get("ROS_DISTRO") == "humble" else "0",
        "ROS_LOG_DIR": str(tmp_path / "log"),
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    yield number
    lock.close()


def pytest_terminal_summary(terminalreporter: "pytest.TerminalReporter") -> None:
    """Print what the tests of faults measured, one row each."""
    rows = [value for r in terminalreporter.getreports("passed") for key, value in r.user_properties if key == "fault"]
    if rows:
        terminalreporter.section("faults on the running graph")
        terminalreporter.write_line(f"{'fault':<42}{'to standstill':>14}   reason; recorder")
        for fault, seconds, reason, recorded in rows:
            terminalreporter.write_line(f"{fault:<42}{seconds:>12.2f} s   {reason}; {recorded}")


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Process:
    """One spawned node and its log."""

    def __init__(self, command: list[str], log: Path) -> None:
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=_die_with_parent
            )

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(5)

    def stop(self, first: signal.Signals = signal.SIGINT, timeout: float = 8.0) -> int | None:
        for number, seconds in ((first, timeout), (signal.SIGTERM, 2.0), (signal.SIGKILL, 2.0)):
            if self.process.poll() is not None:
                break
            self.process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)
        return self.process.returncode


Spawn = Callable[..., Process]


@pytest.fixture
def spawn(domain: int, tmp_path: Path) -> Iterator[Spawn]:
    """Start `imagewam_ros.nodes.NAME` with parameters and further ROS arguments; ends what is left."""
    running: list[Process] = []

    def start(module: str, *ros_args: str, **parameters: object) -> Process:
        code = f"from {module} import main; from imagewam_ros.nodes.spin import leave; leave(main())"
        command = [sys.executable, "-c", code, "--ros-args"]
        for name, value in parameters.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            command += ["-p", f"{name.replace('__', '.')}:={text}"]
        process = Process([*command, *ros_args], tmp_path / f"{len(running)}_{module.split('.')[-1]}.log")
        running.append(process)
        return process

    yield start
    for process in reversed(running):
        process.stop()


class Probe:
    """A node in this process whose callbacks run in a thread."""

    def __init__(self, domain: int) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node("probe", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.thread = threading.Thread(target=self._spin, daemon=True)
        self.thread.start()

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            self.executor.spin()

    def until(self, condition: Callable[[], object], timeout: float = 15.0) -> bool:
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if condition():
                return True
            time.sleep(0.005)
        return bool(condition())

    def call(self, kind: type, name: str, request: object, timeout: float = 20.0):
        future = self._ask(kind, name, request, timeout)
        assert future.done(), f"no answer from {name}"
        return future.result()

    def _ask(self, kind: type, name: str, request: object, timeout: float):
        client = self.node.create_client(kind, name)
        assert client.wait_for_service(timeout_sec=timeout), f"no service {name}"
        future = client.call_async(request)
        self.until(future.done, timeout)
        self.node.destroy_client(client)
        return future

    def change(self, node: str, *transitions: str, timeout: float = 30.0) -> bool:
        """Drive a lifecycle node through `transitions`; False at the first that fails.

        rmw_fastrtps drops an answer when the client's reader is not matched 0.1 s after the request came, which a
        busy machine exceeds for a new client; then the node's state tells.
        """
        for name in transitions:
            request = ChangeState.Request(transition=Transition(id=TRANSITIONS[name]))
            answer = self._ask(ChangeState, f"/{node}/change_state", request, timeout)
            if not (answer.result().success if answer.done() else self.state(node) == REACHED[name]):
                return False
        return True

    def state(self, node: str) -> str:
        """State of a lifecycle node, asked for again where the answer is lost (see `change`)."""
        for _ in range(6):
            answer = self._ask(GetState, f"/{node}/get_state", GetState.Request(), 5.0)
            if answer.done():
                return str(answer.result().current_state.label)
        raise AssertionError(f"no answer from {node}/get_state")

    def collect(self, kind: type, topic: str, qos: object = 10) -> list:
        """Subscribe and return the list that fills."""
        received: list = []
        self.node.create_subscription(kind, topic, received.append, qos)
        return received

    def close(self) -> None:
        self.executor.shutdown(timeout_sec=2)
        rclpy.try_shutdown(context=self.context)
        self.thread.join(5)


@pytest.fixture
def probe(domain: int) -> Iterator[Probe]:
    probe = Probe(domain)
    yield probe
    probe.close()


@pytest.fixture
def ros(domain: int) -> Iterator[None]:
    """rclpy in this process, for nodes that a test builds itself."""
    rclpy.init(domain_id=domain)
    yield
    rclpy.try_shutdown()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random small policy for the simulated cell: the real network and files, hardly any motion."""
    from small_checkpoint import small_checkpoint  # torch may be missing where no test asks for this

    return small_checkpoint(tmp_path_factory.mktemp("checkpoint") / "small")


ROBOT = load_embodiment("sim_cell")
PERIOD_NS = 50_000_000
LATE_LIMIT_S = 0.5
"""Test machines are busy: only a real jump of time shall count as one."""


class Cell:
    """A simulated cell with its executor, as a test drives and watches them."""

    def __init__(self, spawn, probe, speed: float, simulated: bool, remap: str = "", **executor: object) -> None:
        """`remap` holds from:=to pairs of the simulator's topics, apart by spaces."""
        self.probe = probe
        moved = dict(pair.split(":=") for pair in remap.split())
        self.statuses: list[ExecutorStatus] = probe.collect(ExecutorStatus, topics.STATUS, qos.STATUS)
        joint_topic = moved.get(topics.JOINT_STATES, topics.JOINT_STATES)
        self.joints: list[JointState] = probe.collect(JointState, joint_topic, qos.COMMAND_LOG)
        self.logged: list[ExecutorCommand] = probe.collect(ExecutorCommand, topics.COMMAND, qos.COMMAND_LOG)
        self.chunks = probe.node.create_publisher(ActionChunkMsg, topics.CHUNK, qos.CHUNKS)
        output = str(executor.get("output", "forward"))
        more = [word for pair in remap.split() for word in ("-r", pair)]
        self.sim = spawn("imagewam_ros.nodes.sim_node", *more, use_sim_time=simulated, speed=speed, controller=output)
        executor |= {"use_sim_time": simulated, "real_time_factor": speed, "control__late_limit_s": LATE_LIMIT_S}
        executor = {"control__joint_state_timeout_s": 1.0, "guarded": False} | executor
        self.executor = spawn("imagewam_ros.nodes.executor_node", **executor)
        assert probe.change("sim", "configure"), self.sim.text()
        assert probe.change("executor", "configure"), self.executor.text()
        assert probe.change("sim", "activate"), self.sim.text()
        assert probe.until(lambda: len(self.joints) > 20 and self.chunks.get_subscription_count())
        self.sequence = 0

    def activate(self) -> None:
        """Activate the executor; one that keeps refusing is configured anew, as the bringup node does."""

        def active() -> bool:
            return self.probe.change("executor", "activate")

        if not self.probe.until(active, 8.0):
            assert self.probe.change("executor", "cleanup", "configure"), self.executor.text()
            assert self.probe.until(active), self.executor.text()

    @property
    def position(self) -> Floats:
        return messages.to_joint_state(self.joints[-1], ROBOT.joint_names).position

    @property
    def now_ns(self) -> int:
        return messages.stamp_ns(self.joints[-1].header.stamp)

    @property
    def commands(self) -> list[Command]:
        return [messages.to_command(message) for message in list(self.logged)]

    def chunk(self, target: Floats, rows: int = 16) -> ActionChunk:
        """From here to `target` on a straight line with a smooth profile."""
        self.sequence += 1
        share = np.linspace(1 / rows, 1, rows)[:, None]
        smooth = share**3 * (10 - 15 * share + 6 * share**2)
        positions = self.position + smooth * (target - self.position)
        return ActionChunk(
            self.now_ns, PERIOD_NS, ROBOT.joint_names, positions, sequence=self.sequence, contract_hash="cafe"
        )

    def send(self, chunk: ActionChunk) -> None:
        self.chunks.publish(messages.from_chunk(chunk))

    def lean(self, angle_rad: float) -> Floats:
        """Both arms turned at the waist."""
        target = np.array(self.position)
        target[[0, 7]] += angle_rad
        return target

    def wait(self, condition: Callable[[ExecutorStatus], object], timeout: float = 15.0) -> ExecutorStatus:
        assert self.probe.until(lambda: self.statuses and condition(self.statuses[-1]), timeout), (
            [f"{s.state}: {s.reason}; {s.refusal}" for s in self.statuses[-3:]],
            self.executor.text(),
        )
        return self.statuses[-1]

    def start_moving(self) -> None:
        """Send both arms off and return while they move fast."""
        self.send(self.chunk(self.lean(0.8)))
        assert self.probe.until(lambda: self.logged and np.abs(self.logged[-1].velocity).max() > 0.5), (
            self.executor.text()
        )

    def wait_at_rest(self) -> None:
        """Return when the commands are at rest."""

        def resting() -> bool:
            last = self.logged[-1]
            return np.abs(last.velocity).max() < 1e-9 and np.abs(last.acceleration).max() < 1e-9

        assert self.probe.until(resting), self.executor.text()

    def check_limits(self) -> None:
        """Velocity and acceleration of what was sent, from positions over tick times period alone."""
        commands = self.commands
        ticks = np.array([command.tick for command in commands])
        assert (np.diff(ticks) > 0).all()
        whole = np.split(np.array([c.position for c in commands]), np.flatnonzero(np.diff(ticks) != 1) + 1)
        period_s = commands[0].period_ns / 1e9
        for run in whole:
            if len(run) > 3:
                velocity = np.diff(run, axis=0) / period_s
                acceleration = np.diff(velocity, axis=0) / period_s
                assert (np.abs(velocity) <= ROBOT.limits.velocity * 1.001).all()
                assert (np.abs(acceleration) <= ROBOT.limits.acceleration * 1.01 + 1e-6).all()


@pytest.fixture
def cell(spawn, probe) -> Callable[..., Cell]:
    def start(speed: float = 1.0, simulated: bool = True, **executor: object) -> Cell:
        return Cell(spawn, probe, speed, simulated, **executor)

    return start
