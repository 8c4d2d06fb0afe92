# SPDX-License-Identifier: Apache-2.0
"""The executor's own grid of nominal times: nominal = epoch + tick * period."""

from typing import NamedTuple

EARLY_SHARE = 4
"""A call may come a quarter of a period before its nominal time and still makes its tick."""


class Advance(NamedTuple):
    """What a call asks for: periods to move on by, and by how much the grid must be laid anew first, ns.

    left_out_ns is late time that is not made up: the grid follows the clock, the motion does not.
    """

    periods: int
    jump_ns: int = 0
    left_out_ns: int = 0


class Grid:
    """Ticks since `epoch_ns`. Late by more than late_limit_s, or early by a period, is a jump of time.

    A late call makes up for catch_up_s at most, and for at least two periods.
    """

    def __init__(self, epoch_ns: int, period_ns: int, late_limit_s: float, catch_up_s: float) -> None:
        self.tick = 0
        self._epoch_ns, self._period_ns, self._moved_ns = epoch_ns, period_ns, epoch_ns
        self._most = max(int(late_limit_s * 1e9 / period_ns), 2)
        self._catch_up = max(int(catch_up_s * 1e9 / period_ns), 2)

    @property
    def nominal_ns(self) -> int:
        """Nominal time of the present tick."""
        return self._epoch_ns + self.tick * self._period_ns

    def due(self, now_ns: int, elapsed_ns: "int | None" = None) -> Advance:
        """What a call at `now_ns` asks for; nothing moves yet.

        elapsed_ns is the steady time since the call that moved the grid last: where the clock went on by a period more,
        it was set, and that is a jump of time, too.
        """
        periods = (now_ns - self.nominal_ns + self._period_ns // EARLY_SHARE) // self._period_ns
        was_set = elapsed_ns is not None and now_ns - self._moved_ns - elapsed_ns > self._period_ns
        if not -1 <= periods <= self._most or (periods > 1 and was_set):
            return Advance(1, now_ns - self.nominal_ns - self._period_ns)
        made_up = min(max(periods, 0), self._catch_up)
        return Advance(made_up, 0, (max(periods, 0) - made_up) * self._period_ns)

    def move(self, advance: Advance, now_ns: int) -> None:
        """Move to the tick that `due` found at `now_ns`."""
        self._epoch_ns += advance.jump_ns + advance.left_out_ns
        self.tick += advance.periods
        self._moved_ns = now_ns
