# SPDX-License-Identifier: Apache-2.0
"""Arms that may not be where they were sent, after a fault or while a controller is silent.

They get no command that they might jump to: once they rest nothing is sent. Before that, arms of which
one strayed give way: they go to where they are measured, so that none presses on against what blocks it.
"""

from imagewam_ros.control.watchdog import Watchdog
from imagewam_ros.core.schema import Floats

LAST_WORDS = 20
"""Ticks for which arms that rest are still told where; a last command may get lost."""


class Doubt:
    """Of one activation. `measured` (joints,) is where the arms were measured last.

    open: where the arms are is not known. giving_way: they go to where they are measured.
    silent: nothing must be sent.
    """

    def __init__(self, watchdog: Watchdog) -> None:
        self.measured: Floats | None = None
        self.open = self.giving_way = self.silent = False
        self._watchdog = watchdog
        self._stray: Floats | None = None
        self._resting_ticks = 0

    def stray(self) -> None:
        """An arm does not follow. A measurement so far off that nothing explains it is not given way to."""
        if self.measured is not None and self._watchdog.believable(self.measured) and not self.silent:
            self._stray = self.measured

    @property
    def moves(self) -> bool:
        """Whether arms give way or will."""
        return self.giving_way or self._stray is not None

    def stay(self) -> None:
        """Give way no more."""
        self._stray, self.giving_way = None, False

    def way(self) -> "Floats | None":
        """Where to go (joints,) once the arms rest, told once; None where they stay or are measured nowhere near."""
        stray, self._stray = self._stray, None
        if stray is None or self.measured is None:
            return None
        return self.measured if self._watchdog.near(self.measured, stray) else None

    def close(self) -> None:
        """The arms are where they were sent."""
        self.open = self.silent = False

    def settle(self, at_rest: bool) -> None:
        """A command was made, and the arms have been sent to rest or not."""
        self._resting_ticks = self._resting_ticks + 1 if self.open and at_rest and not self.moves else 0
        self.silent |= self._resting_ticks > LAST_WORDS

    def objection(self, steady_ns: int, names: tuple[str, ...]) -> str:
        """Why a command might make an arm jump or reaches no controller, or nothing."""
        if not self.open:
            return ""
        if alarm := self._watchdog.check(steady_ns):
            return f"{alarm.reason}; bring it back first"
        apart = self._watchdog.apart(self.measured, names) if self.measured is not None else ""
        return f"{apart}; deactivate, reset and activate the executor to begin where the arms are" if apart else ""
