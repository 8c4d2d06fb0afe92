# SPDX-License-Identifier: Apache-2.0
"""Deadlines of the steady clock and instants of a simulated one, without a node."""

import threading
import time
from collections.abc import Iterator

import pytest

pytest.importorskip("rclpy")

from rclpy.clock import ROSClock
from rclpy.time import Time

from imagewam_ros.nodes.pacing import ClockGate, SteadyPacer

MS = 1_000_000


@pytest.fixture
def clock() -> ROSClock:
    made = ROSClock()
    made._set_ros_time_is_active(True)
    set_to(made, 1000)
    return made


@pytest.fixture
def gate(clock: ROSClock) -> Iterator[ClockGate]:
    made = ClockGate(clock)
    yield made
    made.close()


def set_to(clock: ROSClock, nanoseconds: int) -> None:
    clock.set_ros_time_override(Time(nanoseconds=nanoseconds, clock_type=clock.clock_type))


def test_turns_never_come_early_and_keep_to_one_grid() -> None:
    start = time.monotonic_ns()
    pacer = SteadyPacer(4 * MS, slack_ns=10**12)
    for turn in range(1, 11):
        assert pacer.wait() >= 0
        assert time.monotonic_ns() >= start + turn * 4 * MS


def test_a_short_delay_is_made_up_for() -> None:
    pacer = SteadyPacer(5 * MS, slack_ns=10**12)
    time.sleep(0.03)
    late = [pacer.wait() for _ in range(5)]
    assert all(one > 4 * MS for one in late), "five deadlines passed meanwhile"
    assert late[0] >= 25 * MS


def test_after_a_long_delay_whole_periods_are_left_out() -> None:
    pacer = SteadyPacer(20 * MS, slack_ns=20 * MS)
    time.sleep(0.13)
    before = time.monotonic_ns()
    assert pacer.wait() >= 110 * MS
    following = pacer.wait()
    assert time.monotonic_ns() - following > before, "the missed turns are not played one after another"


def test_an_instant_that_is_past_is_there_at_once(clock: ROSClock, gate: ClockGate) -> None:
    assert gate.wait_until(1000, 0.0, lambda: False)
    assert gate.wait_until(999, 0.0, lambda: False)


def test_a_clock_that_stands_still_ends_with_patience(gate: ClockGate) -> None:
    start = time.monotonic()
    assert not gate.wait_until(1001, 0.05, lambda: True)
    assert time.monotonic() - start >= 0.05


def test_nobody_waits_who_is_told_to_end(gate: ClockGate) -> None:
    answers = iter([True, False])
    start = time.monotonic()
    assert not gate.wait_until(1001, 60.0, lambda: next(answers))
    assert time.monotonic() - start < 30.0


def test_the_clock_wakes_those_who_wait_when_it_moves(clock: ROSClock, gate: ClockGate) -> None:
    looked = threading.Event()

    def go_on() -> bool:
        looked.set()
        return True

    found: list[bool] = []
    waiting = threading.Thread(target=lambda: found.append(gate.wait_until(5000, 20.0, go_on)))
    waiting.start()
    assert looked.wait(5)
    set_to(clock, 500)
    set_to(clock, 4999)
    assert not found
    set_to(clock, 5000)
    waiting.join(10)
    assert found == [True]
