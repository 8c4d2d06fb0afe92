# SPDX-License-Identifier: Apache-2.0
"""Absolute deadlines: a late turn does not delay the next, and lateness is reported."""

import threading
import time
from collections.abc import Callable

from rclpy.clock import Clock, JumpThreshold
from rclpy.duration import Duration

WAKE_S = 0.2
"""Longest wait without a look at whether to go on."""


class SteadyPacer:
    """Deadlines of the steady clock, one per period."""

    def __init__(self, period_ns: int, slack_ns: int) -> None:
        """After `slack_ns` of delay whole periods are left out instead of made up for."""
        self.period_ns, self._slack_ns = period_ns, slack_ns
        self._deadline_ns = time.monotonic_ns()

    def wait(self) -> int:
        """Sleep until the next deadline and return by how many ns it was missed."""
        self._deadline_ns += self.period_ns
        remaining = self._deadline_ns - time.monotonic_ns()
        if remaining > 0:
            time.sleep(remaining / 1e9)
        late = time.monotonic_ns() - self._deadline_ns
        if late > self._slack_ns:
            self._deadline_ns += late - late % self.period_ns
        return late


class ClockGate:
    """Wait for an instant of a ROS clock that may be simulated, stand still, or jump."""

    def __init__(self, clock: Clock) -> None:
        """Watch `clock`; something else must spin its node."""
        self._clock, self._moved = clock, threading.Condition()
        step = Duration(nanoseconds=1)
        threshold = JumpThreshold(min_forward=step, min_backward=Duration(nanoseconds=-1), on_clock_change=True)
        self._jumps = clock.create_jump_callback(threshold, post_callback=self._on_jump)

    def close(self) -> None:
        """Stop watching."""
        self._jumps.unregister()

    def wait_until(self, deadline_ns: int, patience_s: float, go_on: Callable[[], bool]) -> bool:
        """Return True at `deadline_ns` of the clock, False after `patience_s` or once `go_on` is False."""
        end_s = time.monotonic() + patience_s
        with self._moved:
            while self._clock.now().nanoseconds < deadline_ns:
                remaining_s = end_s - time.monotonic()
                if remaining_s <= 0 or not go_on():
                    return False
                self._moved.wait(min(WAKE_S, remaining_s))
        return True

    def _on_jump(self, jump: object) -> None:
        with self._moved:
            self._moved.notify_all()
