# SPDX-License-Identifier: Apache-2.0
"""Where the travel that a policy predicted has gone, per arm.

Travel is the summed absolute motion of an arm's joints, rad, its gripper left out. A chunk
predicts the travel of its rows over the time in which it is the newest; what a later chunk
replaces, or what lies behind its arrival, is lost at the seam.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from imagewam_ros.control.timeline import Rows
from imagewam_ros.core.schema import Floats


@dataclass(frozen=True)
class Travel:
    """Totals of one arm since activation.

    predicted: travel of all rows of all chunks, scaled to the time that each chunk added.
    executed: travel of the sent commands. lost: predicted minus executed, where positive.
    gripper_predicted and gripper_lost count closings and openings that chunks predicted, and
    those of them that were never reached: replaced, or the arm was stopped, before they were due.
    """

    predicted: float = 0.0
    executed: float = 0.0
    gripper_predicted: int = 0
    gripper_lost: int = 0

    @property
    def lost(self) -> float:
        """Predicted travel that was not executed, rad."""
        return max(self.predicted - self.executed, 0.0)

    @property
    def ratio(self) -> float:
        """Executed over predicted; 1 where nothing was predicted."""
        return self.executed / self.predicted if self.predicted > 0 else 1.0


@dataclass
class Ledger:
    """Book of one arm. A gripper that crosses gripper_middle, rad or m, makes an event."""

    gripper_middle: float
    _travel: Travel = field(default_factory=Travel)
    _last: Floats | None = None
    _covered_ns: int | None = None
    _events: tuple[int, ...] = ()

    @property
    def travel(self) -> Travel:
        """Totals so far."""
        return self._travel

    def chunk(self, rows: Rows, now_ns: int) -> None:
        """A chunk was accepted: `rows` (n, joints of the arm, gripper last) with their times."""
        motion = np.abs(np.diff(rows.positions[:, :-1], axis=0)).sum()
        first, last = int(rows.times_ns[0]), int(rows.times_ns[-1])
        begin = first if self._covered_ns is None else max(first, min(self._covered_ns, last))
        share = (last - begin) / (last - first) if last > first else 0.0
        self._covered_ns = last
        known, fresh = list(self._events), 0
        events, near_ns = self._gripper_events(rows), 2 * (rows.times_ns[1] - rows.times_ns[0])
        for event in events:
            twin = next((due for due in known if abs(event - due) <= near_ns), None)
            if twin is not None:
                known.remove(twin)
            else:
                fresh += event > now_ns
        t = self._travel
        predicted, gripper_predicted = t.predicted + float(motion) * share, t.gripper_predicted + fresh
        self._travel = replace(t, predicted=predicted, gripper_predicted=gripper_predicted)
        self._lose(known, now_ns)
        self._events = tuple(event for event in events if event > now_ns)

    def stopped(self, now_ns: int) -> None:
        """The arm forgot its rows: what they predicted for later will not be."""
        self._lose(self._events, now_ns)
        self._events, self._covered_ns = (), None

    def sent(self, position: Floats) -> None:
        """A command was sent: (joints of the arm, gripper last)."""
        if self._last is not None:
            moved = float(np.abs(position[:-1] - self._last[:-1]).sum())
            self._travel = replace(self._travel, executed=self._travel.executed + moved)
        self._last = position

    def _lose(self, events: Iterable[int], now_ns: int) -> None:
        lost = self._travel.gripper_lost + sum(due > now_ns for due in events)
        self._travel = replace(self._travel, gripper_lost=lost)

    def _gripper_events(self, rows: Rows) -> tuple[int, ...]:
        """Times at which the gripper crosses the middle of its range."""
        level = rows.positions[:, -1] > self.gripper_middle
        return tuple(int(t) for t in rows.times_ns[1:][level[1:] != level[:-1]])
