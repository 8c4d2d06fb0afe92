# SPDX-License-Identifier: Apache-2.0
"""One arm's part of the reference: its timeline of rows and the curve through them."""

import numpy as np

from imagewam_ros.control.braking import Motion
from imagewam_ros.control.curve import Curve, braking_curve, fit
from imagewam_ros.control.timeline import MergeConfig, Rows, Timeline, place
from imagewam_ros.core.schema import ActionChunk, Floats


class Track:
    """Reference of one arm. Every change of the curve begins in the curve's present state."""

    def __init__(self, acceleration: Floats, jerk: Floats, merge: MergeConfig, smoothing_hz: float) -> None:
        """`acceleration` and `jerk` (joints,) bound the stops after the last row."""
        self._acceleration, self._jerk, self._smoothing_hz = acceleration, jerk, smoothing_hz
        self._empty = Timeline.empty(acceleration.size, merge)
        self._timeline = self._empty
        self.curve: Curve
        self.rest(np.zeros(acceleration.size), 0)

    @property
    def last_row_ns(self) -> int:
        """Time of the last row; a track without rows has had its last."""
        return self.curve.last_row_ns

    def rest(self, position: Floats, now_ns: int) -> None:
        """Forget all rows and rest at `position`."""
        zero = np.zeros(position.size)
        self.stop_from(Motion(np.array(position), zero, zero), now_ns)

    def stop(self, now_ns: int) -> None:
        """Forget all rows and brake softly from the present state."""
        self.stop_from(self.curve.at(now_ns), now_ns)

    def stop_from(self, start: Motion, now_ns: int) -> None:
        """Forget all rows and brake softly from `start`."""
        self._timeline = self._empty
        self.curve = braking_curve(start, now_ns, self._acceleration, self._jerk)

    def shift(self, by_ns: int) -> None:
        """Move the curve in time, because the clock was moved."""
        knots = tuple(knot + by_ns for knot in self.curve.knots_ns)
        self.curve = Curve(knots, self.curve.coefficients, self.curve.stop)

    def take(self, chunk: ActionChunk, positions: Floats, start_ns: int, now_ns: int, fresh: bool) -> Rows:
        """Merge a chunk's `positions` (rows, joints of this arm) and refit the curve from `start_ns`.

        `fresh` drops the rows that another commander left. Returns the chunk's own rows.
        """
        rows = place(chunk, positions)
        horizon_end_ns = chunk.due_ns(self._empty.config.execute_horizon)
        timeline = (self._empty if fresh else self._timeline).merge(rows, horizon_end_ns, now_ns)
        start = self.curve.at(start_ns)
        merged = timeline.rows
        self.curve = fit(
            start, start_ns, merged.times_ns, merged.positions, self._smoothing_hz, self._acceleration, self._jerk
        )
        self._timeline = timeline
        return rows
