# SPDX-License-Identifier: Apache-2.0
"""One arm's part of the reference: its timeline of rows and the curve through them."""

from dataclasses import replace

import numpy as np

from imagewam_ros.control.braking import Motion
from imagewam_ros.control.curve import Curve, braking_curve, fit
from imagewam_ros.control.timeline import FINEST_NS, MergeConfig, Rows, Timeline, place
from imagewam_ros.core.schema import ActionChunk, Floats, Source

WINDOW = 48
"""Most rows that one curve runs through; longer chunks are taken up piece by piece."""


class Track:
    """Reference of one arm. Every change of the curve begins in the curve's present state.

    A human's chunks are never merged with older ones, whatever the rule: the newest counts.
    """

    def __init__(self, acceleration: Floats, jerk: Floats, merge: MergeConfig, smoothing_hz: float) -> None:
        """`acceleration` and `jerk` (joints,) bound the stops after the last row."""
        self._acceleration, self._jerk, self._smoothing_hz = acceleration, jerk, smoothing_hz
        self._merge, self._newest_only = merge, replace(merge, rule="latest", execute_horizon=0, latency_skip_s=0.0)
        self._timeline = Timeline.empty(acceleration.size)
        self._spacing_ns = FINEST_NS
        self._refit_ns: int | None = None
        self.curve: Curve
        self.rest(np.zeros(acceleration.size), 0)

    @property
    def last_row_ns(self) -> int:
        """Time at which the curve passes the last row; without rows, the time at which the stop began."""
        times = self._timeline.rows.times_ns
        return max(int(times[-1]), self.curve.last_row_ns) if times.size else self.curve.last_row_ns

    def rest(self, position: Floats, now_ns: int) -> None:
        """Forget all rows and rest at `position`."""
        zero = np.zeros(position.size)
        self.stop_from(Motion(np.array(position), zero, zero), now_ns)

    def stop(self, now_ns: int) -> None:
        """Forget all rows and brake softly from the present state."""
        self.stop_from(self.curve.at(now_ns), now_ns)

    def stop_from(self, start: Motion, now_ns: int) -> None:
        """Forget all rows and brake softly from `start`."""
        self._timeline, self._refit_ns = Timeline.empty(start.position.size), None
        self.curve = braking_curve(start, now_ns, self._acceleration, self._jerk)

    def shift(self, by_ns: int) -> None:
        """Move the curve in time, because the clock was moved or ticks were left out."""
        self.curve = replace(self.curve, knots_ns=tuple(knot + by_ns for knot in self.curve.knots_ns))

    def merge(self, chunk: ActionChunk, positions: Floats, now_ns: int, fresh: bool) -> Rows:
        """Merge a chunk's `positions` (rows, joints of this arm); `fit` must follow.

        `fresh` drops the rows that another commander left. Returns the chunk's own rows.
        """
        rows = place(chunk, positions)
        config = self._newest_only if chunk.source >= Source.TELEOP else self._merge
        spacing_ns = max(chunk.period_ns, FINEST_NS)
        fresh = fresh or spacing_ns != self._spacing_ns
        timeline = Timeline.empty(positions.shape[1]) if fresh else self._timeline
        horizon_end_ns = chunk.due_ns(min(config.execute_horizon, chunk.rows - 1))
        self._timeline = timeline.merge(rows, config, horizon_end_ns, now_ns)
        self._spacing_ns = spacing_ns
        return rows

    def ahead(self, start_ns: int) -> Rows:
        """Merged rows after `start_ns`, at most `WINDOW`."""
        rows = self._timeline.rows.after(start_ns)
        return Rows(rows.times_ns[:WINDOW], rows.positions[:WINDOW])

    def fit(self, start_ns: int, rows: Rows) -> None:
        """Refit the curve from `start_ns` through `rows`, which are `ahead` or what a guard made of them."""
        more = self._timeline.rows.after(start_ns).times_ns.size > WINDOW
        self._refit_ns = int(rows.times_ns[WINDOW // 2]) if more else None
        self.curve = fit(
            self.curve.at(start_ns),
            start_ns,
            rows.times_ns,
            rows.positions,
            self._spacing_ns,
            self._smoothing_hz,
            self._acceleration,
            self._jerk,
        )

    def wants_refit(self, now_ns: int) -> bool:
        """True when there are rows behind the window and half of it is done."""
        return self._refit_ns is not None and now_ns >= self._refit_ns
