# SPDX-License-Identifier: Apache-2.0
"""Graph tests with plain pytest: real processes in a ROS domain of their own, on loopback only."""

import contextlib
import ctypes
import dataclasses
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
from rclpy.client import Client
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState

from imagewam_ros.control.executor import ExecutorConfig
from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.schema import ActionChunk, Command, Floats, Source
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

    def stop(self, first: signal.Signals = signal.SIGINT, timeout: float = 30.0) -> int | None:
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
    for process in running:  # all at once, so that none waits for another's end
        if process.process.poll() is None:
            process.process.send_signal(signal.SIGINT)
    for process in running:
        process.stop()


PATIENCE_S = 60.0
"""Until something that must come is missing: only a failure waits so long."""

LOST_S = 5.0
"""Without an answer for so long a request is sent again.

rmw_fastrtps drops an answer when the client's reader is not matched 0.1 s after the request came, which a busy machine
exceeds for a new client; a client that is kept loses none. It may also miss a match for good, which a new client mends.
"""

MATCHED_S = 0.5
"""A new client waits so long before a request that must not be sent twice."""

KEPT = 1000
"""Messages that wait for a busy machine's probe."""


class Probe:
    """A node in this process whose callbacks run in a thread."""

    def __init__(self, domain: int) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node("probe", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self._clients: dict[str, Client] = {}
        self._closing = threading.Event()
        self.thread = threading.Thread(target=self._spin, daemon=True)
        self.thread.start()

    def _spin(self) -> None:
        while not self._closing.is_set():
            self.executor.spin_once(timeout_sec=0.05)

    def until(self, condition: Callable[[], object], timeout: float = PATIENCE_S) -> bool:
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if condition():
                return True
            time.sleep(0.005)
        return bool(condition())

    def call(self, kind: type, name: str, request: object, *, once: bool = False):
        """Answer of a service; what is lost is asked again, unless the request must be heard `once`."""
        end = time.monotonic() + PATIENCE_S
        while True:
            future = self._ask(kind, name, request, MATCHED_S if once else 0.0)
            if self.until(future.done, PATIENCE_S if once else LOST_S):
                return future.result()
            assert time.monotonic() < end, f"no answer from {name}"
            del self._clients[name]

    def _ask(self, kind: type, name: str, request: object, settle_s: float = 0.0):
        known = name in self._clients
        if not known:
            self._clients[name] = self.node.create_client(kind, name)
        assert self.until(self._clients[name].service_is_ready), f"no service {name}"
        if not known:
            time.sleep(settle_s)
        return self._clients[name].call_async(request)

    def change(self, node: str, *transitions: str) -> bool:
        """Drive a lifecycle node through `transitions`; False at the first that fails."""
        return all(self._changed(node, name) for name in transitions)

    def _changed(self, node: str, transition: str) -> bool:
        """Ask until an answer comes; where it is lost the state tells, once the node has time again."""
        service, answers = f"/{node}/change_state", []
        request, end = ChangeState.Request(transition=Transition(id=TRANSITIONS[transition])), time.monotonic() + 120
        while time.monotonic() < end:
            answers.append(self._ask(ChangeState, service, request))
            if self.until(lambda: any(answer.done() for answer in answers), LOST_S):
                if any(answer.done() and answer.result().success for answer in answers):
                    return True
                return len(answers) > 1 and self.state(node) == REACHED[transition]
            if self.state(node) == REACHED[transition]:
                return True
            del self._clients[service]
        return False

    def state(self, node: str) -> str:
        """State of a lifecycle node."""
        return str(self.call(GetState, f"/{node}/get_state", GetState.Request()).current_state.label)

    def meet(self, node: str) -> None:
        """Return once `node` knows every subscription and publisher that was made here so far.

        DDS tells of endpoints in order: who can answer a new client has heard of all before it.
        """
        self._clients.pop(f"/{node}/get_state", None)
        self.state(node)

    def collect(self, kind: type, topic: str, profile: "QoSProfile | int" = 10, kept: int = KEPT) -> list:
        """Subscribe and return the list that fills.

        A busy machine reads late: `kept` messages wait, however short the profile's queue. Where the present counts
        they must be few.
        """
        received: list = []
        patient = QoSProfile(depth=kept)
        if not isinstance(profile, int):
            patient.reliability, patient.durability = profile.reliability, profile.durability
        self.node.create_subscription(kind, topic, received.append, patient)
        return received

    def close(self) -> None:
        self._closing.set()  # first: an executor that is shut down under a spinning thread breaks it
        self.thread.join(5)
        self.executor.shutdown(timeout_sec=2)
        rclpy.try_shutdown(context=self.context)


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
PATIENT = {"late_limit_s": 0.5, "stale_after_s": 3.0, "future_tolerance_s": 0.5}
"""Test machines are busy: only a real jump of time, and what is really old, shall count as one."""


class Cell:
    """A simulated cell with its executor, as a test drives and watches them."""

    def __init__(self, spawn, probe, speed: float, simulated: bool, remap: str = "", **executor: object) -> None:
        """`remap` holds from:=to pairs of the simulator's topics, apart by spaces."""
        self.probe = probe
        moved = dict(pair.split(":=") for pair in remap.split())
        self.statuses: list[ExecutorStatus] = probe.collect(ExecutorStatus, topics.STATUS, qos.STATUS)
        joint_topic = moved.get(topics.JOINT_STATES, topics.JOINT_STATES)
        self.joints: list[JointState] = probe.collect(JointState, joint_topic, qos.COMMAND_LOG, kept=5)
        self.logged: list[ExecutorCommand] = probe.collect(ExecutorCommand, topics.COMMAND, qos.COMMAND_LOG)
        self.chunks = probe.node.create_publisher(ActionChunkMsg, topics.CHUNK, qos.CHUNKS)
        output = str(executor.get("output", "forward"))
        more = [word for pair in remap.split() for word in ("-r", pair)]
        self.sim = spawn("imagewam_ros.nodes.sim_node", *more, use_sim_time=simulated, speed=speed, controller=output)
        self.control = ExecutorConfig(**PATIENT)
        patient = {f"control__{name}": value for name, value in PATIENT.items()}
        patient |= {"control__joint_state_timeout_s": 1.5, "guarded": False}
        executor = patient | {"use_sim_time": simulated, "real_time_factor": speed} | executor
        self.executor = spawn("imagewam_ros.nodes.executor_node", **executor)
        assert probe.change("sim", "configure"), self.sim.text()
        assert probe.change("executor", "configure"), self.executor.text()
        assert probe.change("sim", "activate"), self.sim.text()
        assert probe.until(lambda: len(self.joints) > 20 and self.chunks.get_subscription_count())
        self.sequence, self._since, self._sent = 0, 0, 0

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
        self.look_from_here()
        self._sent = len(self.logged)
        self.chunks.publish(messages.from_chunk(chunk))

    def lean(self, angle_rad: float) -> Floats:
        """Both arms turned at the waist."""
        target = np.array(self.position)
        target[[0, 7]] += angle_rad
        return target

    def look_from_here(self) -> None:
        """What was told before this is of no interest to `wait`."""
        self._since = len(self.statuses)

    def wait(self, condition: Callable[[ExecutorStatus], object]) -> ExecutorStatus:
        """First status from the last chunk, or the last one waited for, that meets `condition`; more may follow it."""
        assert self._told(condition, PATIENCE_S), self._said()
        return self.statuses[self._since]

    def _told(self, condition: Callable[[ExecutorStatus], object], timeout: float) -> bool:
        found: list[int] = []

        def told() -> bool:
            found[:] = [i for i in range(self._since, len(self.statuses)) if condition(self.statuses[i])][:1]
            return bool(found)

        if not self.probe.until(told, timeout):
            return False
        self._since = found[0]
        return True

    def _said(self) -> tuple[list[str], str]:
        return [f"{s.state}: {s.reason}; {s.refusal}" for s in self.statuses[self._since :][-9:]], self.executor.text()

    def drive(self, target: Floats, rows: int = 16, source: Source = Source.POLICY, later_ns: int = 0) -> None:
        """Send chunks to `target` until one runs: those that a busy machine delivers after their last row do not."""

        def runs() -> bool:
            chunk = self.chunk(target, rows)
            self.send(dataclasses.replace(chunk, source=source, stamp_ns=chunk.stamp_ns + later_ns))
            return self._told(lambda s: s.state == ExecutorStatus.ACTIVE and s.sequence == self.sequence, LOST_S)

        assert self.probe.until(runs), self._said()

    def refuse(self, text: str, spoil: Callable[[ActionChunk], ActionChunk] = lambda chunk: chunk) -> ExecutorStatus:
        """Send what `spoil` makes of good chunks until one is refused with `text`, and not for being late."""

        def refused() -> bool:
            before = self.statuses[-1].refused
            self.send(spoil(self.chunk(self.lean(0.2))))
            return self._told(lambda s: s.refused > before and text in s.refusal, LOST_S)

        assert self.probe.until(refused), self._said()
        return self.statuses[self._since]

    def wait_for_speed(self, rad_s: float) -> None:
        """Return once a command since the last chunk was faster; the arms usually are still."""
        assert self.probe.until(lambda: any(np.abs(m.velocity).max() > rad_s for m in self.logged[self._sent :])), (
            self.executor.text()
        )

    def start_moving(self) -> None:
        """Send both arms off and return while they move fast."""
        self.drive(self.lean(0.8))
        self.wait_for_speed(0.5)

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
