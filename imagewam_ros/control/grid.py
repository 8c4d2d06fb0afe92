# SPDX-License-Identifier: Apache-2.0
"""The executor's own grid of nominal times: nominal = epoch + tick * period."""

from typing import NamedTuple

EARLY_SHARE = 4
"""A call may come a quarter of a period before its nominal time and still makes its tick."""


class Advance(NamedTuple):
    """By how many periods the grid may move, and by how much it must be laid anew first, ns."""

    periods: int
    jump_ns: int = 0


class Grid:
    """Ticks since `epoch_ns`. Late by more than late_limit_s, or early by a period, is a jump of time."""

    def __init__(self, epoch_ns: int, period_ns: int, late_limit_s: float) -> None:
        self.tick = 0
        self._epoch_ns, self._period_ns = epoch_ns, period_ns
        self._most = max(int(late_limit_s * 1e9 / period_ns), 2)

    @property
    def nominal_ns(self) -> int:
        """Nominal time of the present tick."""
        return self._epoch_ns + self.tick * self._period_ns

    def due(self, now_ns: int) -> Advance:
        """What a call at `now_ns` asks for; nothing moves yet."""
        periods = (now_ns - self.nominal_ns + self._period_ns // EARLY_SHARE) // self._period_ns
        if -1 <= periods <= self._most:
            return Advance(max(periods, 0))
        return Advance(1, now_ns - self.nominal_ns - self._period_ns)

    def move(self, advance: Advance) -> None:
        """Move to the tick that `due` found."""
        self._epoch_ns += advance.jump_ns
        self.tick += advance.periods
