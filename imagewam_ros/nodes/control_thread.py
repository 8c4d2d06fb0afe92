# SPDX-License-Identifier: Apache-2.0
"""The one thread that owns the executor: it alone calls it, once per control period.

Everything else asks it through a queue that is served before each tick, so no lock can hold a
tick up. Deadlines are absolute, in the clock of the observations' stamps, real or simulated.
"""

import os
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from functools import partial
from queue import SimpleQueue
from typing import Protocol, TypeVar

from rclpy.clock import Clock

from imagewam_ros.control.braking import longest_stop_s
from imagewam_ros.control.executor import Executor, State, Step
from imagewam_ros.core.errors import ConfigError, GraphError, ImageWamError
from imagewam_ros.core.schema import JointState
from imagewam_ros.nodes.pacing import ClockGate, SteadyPacer

T = TypeVar("T")

SWITCH_S = 0.0005
"""How long another Python thread may keep the interpreter when a tick is due (Python's default is 5 ms)."""
STANDSTILL_S, STANDSTILL_SHARE = 3.0, 1.5
"""A stop may take so long, or this multiple of the longest that the limits allow for, before it is made harder."""
EMPTY_PERIODS = 100
READS, TOGETHER_NS = 5, 200_000
"""Two clocks are read anew, a few times, while so much passes in between."""
FROZEN_S = 0.5
"""Without a tick for this long the clock is said to stand still."""


class Listener(Protocol):
    """Takes what the thread produces; called on it."""

    def on_step(self, step: Step, now_ns: int, late_ns: int) -> None:
        """One command, and how late it is in the clock's time."""
        ...

    def on_trouble(self, reason: str) -> None:
        """Ticks stay away because the clock stands still, or something failed that should not."""
        ...

    def on_end(self, reason: str) -> None:
        """No tick comes any more: what was sent last stays."""
        ...


class ControlThread:
    """Ticks while active. simulated says that `clock` follows /clock; scale is its usual speed."""

    def __init__(self, executor: Executor, clock: Clock, listener: Listener, *, simulated: bool, scale: float) -> None:
        self._heard: deque[tuple[tuple[str, ...], JointState]] = deque(maxlen=64)
        self._measured_ns = 0
        self._ticked_ns: int | None = None
        self._executor, self._clock, self._listener = executor, clock, listener
        self._simulated, self._scale = simulated, scale
        self._gate = ClockGate(clock) if simulated else None
        self._requests: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="control")
        self._stopping = threading.Event()
        self._ended: Future[None] | None = None

    def hear(self, arms: tuple[str, ...], joint_state: JointState) -> None:
        """The drivers of `arms` reported; joint_state is that of both arms, as old as the older."""
        self._heard.append((arms, joint_state))

    def hear_controllers(self, arms: list[str]) -> None:
        """The controllers of `arms` are there."""
        for arm in arms:
            self.tell(partial(self._executor.note_controller, arm, self._steady_ns()))

    def hear_controller(self, arm: str, errors: Mapping[str, float]) -> None:
        """The controller of an arm told its state: distances in rad from what it aims at."""
        self.tell(partial(self._executor.note_controller, arm, self._steady_ns(), errors))

    def prepare(self, fifo_priority: int, cpu: int) -> None:
        """Give the thread real-time priority and a CPU of its own. Raises ConfigError when the system refuses."""
        sys.setswitchinterval(SWITCH_S)
        self._pool.submit(_prefer, fifo_priority, cpu).result()

    def measure_empty_loop(self) -> list[float]:
        """Lateness in s of a loop that does nothing, on this thread: what the machine itself allows."""
        return self._pool.submit(_empty_loop, self._executor.embodiment.period_ns).result()

    def start(self, joint_state: JointState) -> None:
        """Activate the executor where the arms are and tick from now on. Raises what activation raises."""
        self._stopping.clear()
        self._heard.clear()
        self._requests = SimpleQueue()  # what an activation before this one was asked too late
        self._pool.submit(lambda: self._executor.activate(self._clock.now().nanoseconds, joint_state)).result()
        self._ended = self._pool.submit(self._run)
        self._ended.add_done_callback(self._report)

    def ask(self, request: Callable[[], T], timeout_s: float = 1.0, *, keep: bool = False) -> T:
        """Run `request` between two ticks, or at once when nothing ticks, and return what it returns.

        Raises what it raises, and GraphError when no tick comes; then it is not run later either, unless `keep`
        says so, as it must of a stop.
        """
        if not self._ticking:
            return request()
        answer: Future[T] = Future()
        self._requests.put(lambda: _answer(answer, request))
        try:
            return answer.result(timeout_s)
        except Late:
            if not keep:
                answer.cancel()
            raise GraphError(
                f"the control thread did not answer within {timeout_s} s; does /clock stand still?"
            ) from None

    def tell(self, request: Callable[[], None]) -> None:
        """Run `request` before the next tick without waiting, or at once when nothing ticks."""
        if self._ticking:
            self._requests.put(request)
        else:
            request()

    def stop(self) -> None:
        """Brake softly, then as hard as the limits allow, and return once the arms rest.

        Raises GraphError when even that takes too long, and what ended the thread.
        """
        if self._ended is None:
            return
        self._stopping.set()
        soft_s, hard_s = self._patience_s(self._executor.config.stop_share), self._patience_s(1.0)
        self.tell(lambda: self._executor.deactivate(self._clock.now().nanoseconds))
        try:
            if not self._rested(soft_s):
                reason = f"the arms did not come to rest within {soft_s:.1f} s"
                self.tell(lambda: self._executor.fault(reason, "failure"))
                if not self._rested(hard_s):
                    raise GraphError(f"the arms did not come to rest within {soft_s + hard_s:.1f} s")
        finally:
            if self._ended.done():
                self._ended = None

    def _patience_s(self, share: float) -> float:
        """How long to wait for a stop with `share` of the limits, in steady time."""
        longest_s = longest_stop_s(self._executor.embodiment.limits, share) / self._scale
        return max(STANDSTILL_S, STANDSTILL_SHARE * longest_s)

    def _rested(self, patience_s: float) -> bool:
        """Whether the ticks end, because the arms rest, within `patience_s`. Raises what ended them otherwise."""
        assert self._ended is not None
        try:
            self._ended.result(patience_s)
        except Late:
            return False
        return True

    def close(self) -> None:
        """End the thread. Raises what `stop` raises, after that."""
        try:
            self.stop()
        finally:
            self._pool.shutdown(wait=False)
            if self._gate is not None:
                self._gate.close()

    @property
    def _ticking(self) -> bool:
        return self._ended is not None and not self._ended.done()

    def _run(self) -> None:
        period_s = self._executor.embodiment.period_ns / 1e9
        ticked_s, self._ticked_ns = time.monotonic(), None
        while True:
            due_ns = self._executor.next_ns
            reached = self._wait(due_ns, period_s)
            self._serve()
            if self._executor.state is State.INACTIVE:
                return
            # A stop must end even when the clock does: then the arms brake in nominal time.
            if self._tick(due_ns, reached):
                ticked_s = time.monotonic()
            elif time.monotonic() - ticked_s > FROZEN_S:
                self._listener.on_trouble(
                    f"/clock has not moved for {time.monotonic() - ticked_s:.1f} s; is it published?"
                )

    def _tick(self, due_ns: int, reached: bool) -> bool:
        """Make and send the command for now, if one is due. What fails once faults; a failure in a fault is the end."""
        faulted = self._executor.state is State.FAULTED
        clock_ns, steady_ns = self._read()
        now_ns = clock_ns if reached else due_ns
        # Simulated time hurries and lingers as it likes.
        elapsed_ns = None if self._simulated or self._ticked_ns is None else steady_ns - self._ticked_ns
        try:
            arms, joint_state = self._news()
            step = self._executor.step(now_ns, joint_state, self._steady_ns(), arms, elapsed_ns)
            if step.periods:
                self._ticked_ns = steady_ns
                self._listener.on_step(step, now_ns, now_ns - due_ns)
        except Exception as error:
            self._fault(error)
            if faulted:
                raise
            return True
        return step.periods > 0

    def _read(self) -> tuple[int, int]:
        """The clock and the steady clock at one moment, ns."""
        for _ in range(READS):
            before_ns = time.monotonic_ns()
            now_ns, after_ns = int(self._clock.now().nanoseconds), time.monotonic_ns()
            if after_ns - before_ns < TOGETHER_NS:
                break
        return now_ns, after_ns

    def _fault(self, error: Exception) -> None:
        """Brake for an error that nobody expected: a thread that ended would leave the arms at their last command."""
        reason = f"{type(error).__name__}: {error}"
        self._executor.fault(f"the control thread failed: {reason}", "failure")
        self._listener.on_trouble(f"{reason}\n{''.join(traceback.format_exception(error))}")

    def _wait(self, due_ns: int, period_s: float) -> bool:
        """Wait for `due_ns`; False when the clock does not get there while a stop is asked for."""
        if self._gate is None:
            remaining_s = (due_ns - self._clock.now().nanoseconds) / 1e9
            # A clock that was set back must not keep the arms waiting: at most two periods.
            time.sleep(min(max(remaining_s, 0.0), 2 * period_s))
            return True
        patient = self._gate.wait_until(
            due_ns, FROZEN_S, lambda: not self._stopping.is_set() and self._requests.empty()
        )
        if patient or not self._stopping.is_set():
            return True
        time.sleep(period_s / self._scale)
        return False

    def _report(self, ended: "Future[None]") -> None:
        if (error := ended.exception()) is not None:
            self._listener.on_end(f"the control thread ended: {type(error).__name__}: {error}")

    def _news(self) -> tuple[set[str], JointState | None]:
        """Arms heard since the last tick, and the newest state if both arms are newer in it."""
        arms: set[str] = set()
        newest: JointState | None = None
        while self._heard:
            sides, newest = self._heard.popleft()
            arms.update(sides)
        if newest is None or newest.stamp_ns == self._measured_ns:
            return arms, None
        self._measured_ns = newest.stamp_ns
        return arms, newest

    def _steady_ns(self) -> int:
        """The watchdogs' clock: steady time, as fast as simulated time usually is."""
        return round(time.monotonic_ns() * self._scale)

    def _serve(self) -> None:
        for _ in range(self._requests.qsize()):  # what comes meanwhile must not keep the tick waiting
            try:
                self._requests.get_nowait()()
            except Exception as error:  # noqa: BLE001
                self._fault(error)


def _answer(answer: "Future[T]", request: Callable[[], T]) -> None:
    if not answer.set_running_or_notify_cancel():
        return
    try:
        answer.set_result(request())
    except ImageWamError as error:
        answer.set_exception(error)
    except Exception as error:
        answer.set_exception(GraphError(f"the request failed: {type(error).__name__}: {error}"))
        raise


def _empty_loop(period_ns: int) -> list[float]:
    pacer = SteadyPacer(period_ns, slack_ns=0)
    return [pacer.wait() / 1e9 for _ in range(EMPTY_PERIODS)]


def _prefer(fifo_priority: int, cpu: int) -> None:
    try:
        if cpu >= 0:
            os.sched_setaffinity(0, {cpu})
        if fifo_priority > 0:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(fifo_priority))
    except OSError as error:
        raise ConfigError(
            f"cannot set fifo_priority {fifo_priority} and cpu {cpu}: {error.strerror}; allow it "
            "(ulimit -r, or CAP_SYS_NICE), choose a CPU that exists, or leave both parameters away"
        ) from None
