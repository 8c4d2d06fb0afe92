# SPDX-License-Identifier: Apache-2.0
"""What the control thread does when it cannot tick: the clock stands still, a listener blocks, or something fails."""

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest
from rclpy.clock import ClockType, ROSClock
from rclpy.time import Time

from imagewam_ros.control.executor import Executor, State, Step
from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import GraphError
from imagewam_ros.core.schema import ActionChunk, JointState
from imagewam_ros.nodes.control_thread import STANDSTILL_S, ControlThread

ROBOT = load_embodiment("sim_cell")
NOW_NS = 100_000_000_000


class Ear:
    """Listens; `gate` holds every step up while it is closed, `error` is raised in it."""

    def __init__(self) -> None:
        self.steps, self.troubles, self.ends = 0, list[str](), list[str]()
        self.gate, self.error = threading.Event(), ""
        self.gate.set()

    def on_step(self, step: Step, now_ns: int, late_ns: int) -> None:
        self.steps += 1
        self.gate.wait(20)
        if self.error:
            raise RuntimeError(self.error)

    def on_trouble(self, reason: str) -> None:
        self.troubles.append(reason)

    def on_end(self, reason: str) -> None:
        self.ends.append(reason)


def soon(condition: Callable[[], object]) -> bool:
    end = time.monotonic() + 60
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return bool(condition())


@pytest.fixture
def clock(ros) -> ROSClock:
    """Simulated time that moves only when a test moves it."""
    clock = ROSClock()
    clock._set_ros_time_is_active(True)
    clock.set_ros_time_override(Time(nanoseconds=NOW_NS, clock_type=ClockType.ROS_TIME))
    return clock


@pytest.fixture
def ear() -> Ear:
    return Ear()


@pytest.fixture
def executor() -> Executor:
    return Executor(ROBOT)


@pytest.fixture
def thread(executor: Executor, clock: ROSClock, ear: Ear) -> Iterator[ControlThread]:
    made = ControlThread(executor, clock, ear, simulated=True, scale=1.0)
    still = np.zeros(len(ROBOT.joint_names))
    made.start(JointState(NOW_NS, ROBOT.joint_names, (ROBOT.limits.lower + ROBOT.limits.upper) / 2, still))
    yield made
    ear.gate.set()
    made.close()


def move(clock: ROSClock, seconds: float) -> None:
    clock.set_ros_time_override(Time(nanoseconds=NOW_NS + round(seconds * 1e9), clock_type=ClockType.ROS_TIME))


def test_a_clock_that_stands_still_is_told_and_requests_are_answered(thread: ControlThread, ear: Ear) -> None:
    assert soon(lambda: ear.troubles)
    assert ear.troubles[0].startswith("/clock has not moved for ")
    assert ear.troubles[0].endswith(" s; is it published?")
    assert thread.ask(lambda: 42) == 42
    assert not ear.steps


def test_a_blocked_tick_is_told_to_whoever_asks_and_to_whoever_stops(
    thread: ControlThread, clock: ROSClock, ear: Ear
) -> None:
    ear.gate.clear()
    move(clock, 0.006)
    assert soon(lambda: ear.steps)
    text = "the control thread did not answer within 0.2 s; does /clock stand still"
    with pytest.raises(GraphError, match=text):
        thread.ask(lambda: 42, timeout_s=0.2)
    with pytest.raises(GraphError, match=f"the arms did not come to rest within {2 * STANDSTILL_S} s"):
        thread.stop()


def test_what_came_too_late_is_not_done_but_for_a_stop(thread: ControlThread, clock: ROSClock, ear: Ear) -> None:
    done = list[str]()
    ear.gate.clear()
    move(clock, 0.006)
    assert soon(lambda: ear.steps)
    for name, keep in (("resume", False), ("hold", True)):
        with pytest.raises(GraphError, match="did not answer"):
            thread.ask(partial(done.append, name), timeout_s=0.1, keep=keep)
    ear.gate.set()
    assert soon(lambda: done)
    assert thread.ask(lambda: 42) == 42 and done == ["hold"]


def test_requests_without_end_keep_no_tick_waiting(thread: ControlThread, clock: ROSClock, ear: Ear) -> None:
    ticked = threading.Event()

    def again() -> None:
        if not ticked.is_set():
            thread.tell(again)

    thread.tell(again)
    for tick in range(1, 4):
        move(clock, 0.005 * tick + 0.001)
        assert soon(lambda n=tick: ear.steps == n)
    ticked.set()


def test_what_one_activation_left_unanswered_is_no_matter_of_the_next(
    thread: ControlThread, executor: Executor, clock: ROSClock, ear: Ear
) -> None:
    ear.error = "cable cut"
    move(clock, 0.006)
    assert soon(lambda: executor.state is State.FAULTED)
    ear.gate.clear()
    move(clock, 0.011)
    assert soon(lambda: ear.steps == 2)
    late = list[int]()
    thread.tell(lambda: late.append(1))
    ear.gate.set()
    assert soon(lambda: ear.ends)
    with pytest.raises(RuntimeError, match="cable cut"):
        thread.stop()
    ear.error = ""
    executor.reset_fault()
    thread.start(JointState(NOW_NS, ROBOT.joint_names, executor.reference().position, np.zeros(14)))
    assert thread.ask(lambda: 42) == 42 and not late


def test_an_error_that_lasts_ends_the_thread_and_is_told(thread: ControlThread, clock: ROSClock, ear: Ear) -> None:
    ear.error = "cable cut"
    for tick in (1, 2):
        move(clock, 0.005 * tick + 0.001)
        assert soon(lambda n=tick: ear.steps == n)
    assert soon(lambda: ear.ends == ["the control thread ended: RuntimeError: cable cut"])
    ear.error = ""
    assert thread.ask(lambda: 42) == 42, "nothing ticks, so requests run at once"
    with pytest.raises(RuntimeError, match="cable cut"):
        thread.stop()


def fail() -> None:
    raise OverflowError("far too much")


@pytest.mark.parametrize("who", ["listener", "told", "asked"])
def test_one_error_brakes_the_arms_and_the_ticks_go_on(
    thread: ControlThread, executor: Executor, clock: ROSClock, ear: Ear, who: str
) -> None:
    if who == "listener":
        ear.error = "cable cut"
    elif who == "told":
        thread.tell(fail)
    else:
        with pytest.raises(GraphError, match="the request failed: OverflowError: far too much"):
            thread.ask(fail)
    move(clock, 0.006)
    assert soon(lambda: ear.steps == 1)
    assert soon(lambda: executor.state is State.FAULTED)
    text = "RuntimeError: cable cut" if who == "listener" else "OverflowError: far too much"
    assert executor.status.reason == f"the control thread failed: {text}"
    assert any(trouble.startswith(text) and "Traceback" in trouble for trouble in ear.troubles)
    ear.error = ""
    move(clock, 0.011)
    assert soon(lambda: ear.steps == 2)
    assert not ear.ends


def test_a_machines_clock_that_is_set_forward_is_a_jump(executor: Executor, clock: ROSClock, ear: Ear) -> None:
    thread = ControlThread(executor, clock, ear, simulated=False, scale=1.0)
    still = np.zeros(len(ROBOT.joint_names))
    thread.start(JointState(NOW_NS, ROBOT.joint_names, (ROBOT.limits.lower + ROBOT.limits.upper) / 2, still))
    try:
        for number in range(1, 200):  # a busy machine may take as long as the clock pretends
            steps = ear.steps
            move(clock, 0.1 * number)
            assert soon(lambda before=steps: ear.steps > before)
            if executor.status.time_jumps:
                break
        assert executor.status.reason.startswith("time jumped by +0.")
    finally:
        thread.close()


def test_a_stop_that_takes_long_is_waited_for(executor: Executor, clock: ROSClock, ear: Ear) -> None:
    thread = ControlThread(executor, clock, ear, simulated=True, scale=0.05)
    middle = (ROBOT.limits.lower + ROBOT.limits.upper) / 2
    thread.start(JointState(NOW_NS, ROBOT.joint_names, middle, np.zeros(middle.size)))
    rows = middle + np.where(ROBOT.gripper_mask, 0.0, 0.8) * np.linspace(0, 1, 16)[:, None] ** 2
    chunk = ActionChunk(NOW_NS, 50_000_000, ROBOT.joint_names, rows)
    assert thread.ask(lambda: executor.accept(chunk, NOW_NS)).accepted
    for tick in range(1, 101):
        move(clock, 0.005 * tick + 0.001)
        assert soon(lambda n=tick: ear.steps >= n)
    assert not executor.at_rest
    began_s = time.monotonic()
    thread.stop()
    assert time.monotonic() - began_s > STANDSTILL_S, "else this shows nothing"
    assert executor.state is State.INACTIVE and executor.open_fault == ""
    thread.close()
