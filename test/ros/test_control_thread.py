# SPDX-License-Identifier: Apache-2.0
"""What the control thread says when it cannot tick: the clock stands still, a listener blocks, or one fails."""

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from rclpy.clock import ClockType, ROSClock
from rclpy.time import Time

from imagewam_ros.control.executor import Executor, Step
from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import GraphError
from imagewam_ros.core.schema import JointState
from imagewam_ros.nodes.control_thread import STANDSTILL_S, ControlThread

ROBOT = load_embodiment("sim_cell")
NOW_NS = 100_000_000_000


class Ear:
    """Listens; `gate` holds every step up while it is closed, `error` is raised in it."""

    def __init__(self) -> None:
        self.steps, self.troubles = 0, list[str]()
        self.gate, self.error = threading.Event(), ""
        self.gate.set()

    def on_step(self, step: Step, now_ns: int, late_ns: int) -> None:
        self.steps += 1
        self.gate.wait(20)
        if self.error:
            raise RuntimeError(self.error)

    def on_trouble(self, reason: str) -> None:
        self.troubles.append(reason)


def soon(condition: Callable[[], object]) -> bool:
    end = time.monotonic() + 15
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
def thread(clock: ROSClock, ear: Ear) -> Iterator[ControlThread]:
    made = ControlThread(Executor(ROBOT), clock, ear, simulated=True, scale=1.0)
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
    with pytest.raises(GraphError, match=f"the arms did not come to rest within {STANDSTILL_S} s"):
        thread.stop()


def test_an_error_on_the_thread_is_told(thread: ControlThread, clock: ROSClock, ear: Ear) -> None:
    ear.error = "cable cut"
    move(clock, 0.006)
    assert soon(lambda: ear.troubles)
    assert ear.troubles[-1] == "the control thread ended: RuntimeError: cable cut"
    ear.error = ""
    assert thread.ask(lambda: 42) == 42, "nothing ticks, so requests run at once"
    with pytest.raises(RuntimeError, match="cable cut"):
        thread.stop()
