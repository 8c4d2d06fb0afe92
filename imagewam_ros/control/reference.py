# SPDX-License-Identifier: Apache-2.0
"""The reference of both arms: their tracks side by side, as one motion of all joints."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from imagewam_ros.control.braking import Motion
from imagewam_ros.control.timeline import MergeConfig, Rows
from imagewam_ros.control.track import Track
from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.schema import ActionChunk, Floats

if TYPE_CHECKING:  # pinocchio is loaded only where a guard is wanted
    from imagewam_ros.control.guard import Guard


class Reference:
    """Where both arms should be, at any time. `stop_share` of the limits brakes soft stops."""

    def __init__(
        self, robot: Embodiment, merge: MergeConfig, smoothing_hz: float, stop_share: float, guard: "Guard | None"
    ) -> None:
        self.sides = tuple(arm.side for arm in robot.arms)
        self._guard = guard
        self._parts = {side: robot.arm_slice(side) for side in self.sides}
        acceleration, jerk = robot.limits.acceleration * stop_share, robot.limits.jerk * stop_share
        self._tracks = {
            side: Track(acceleration[part], jerk[part], merge, smoothing_hz) for side, part in self._parts.items()
        }

    def at(self, time_ns: int) -> Motion:
        """State of all joints at `time_ns`."""
        parts = [track.curve.at(time_ns) for track in self._tracks.values()]
        return Motion(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    @property
    def last_row_ns(self) -> int:
        """Time of the last row of either arm."""
        return max(track.last_row_ns for track in self._tracks.values())

    def wants_refit(self, now_ns: int) -> bool:
        """True when an arm has rows behind its window."""
        return any(track.wants_refit(now_ns) for track in self._tracks.values())

    def merge(
        self, chunk: ActionChunk, positions: Floats, sides: Iterable[str], fresh: set[str], now_ns: int
    ) -> dict[str, Rows]:
        """Merge the chunk's clamped `positions` for `sides`; `fit` must follow.

        `fresh` are the sides whose rows from another commander are dropped. Returns the chunk's rows.
        """
        names = {side: self._tracks[side] for side in sides}
        columns = self._columns(chunk, positions)
        return {side: track.merge(chunk, columns[side], now_ns, side in fresh) for side, track in names.items()}

    def fit(self, now_ns: int) -> None:
        """Refit the curves of arms that have rows, from their present state."""
        rows = {side: track.ahead(now_ns) for side, track in self._tracks.items()}
        if self._guard is not None:
            rows = self._guard.shape(self.at(now_ns).position, now_ns, rows)
        for side, part in rows.items():
            if part.times_ns.size:
                self._tracks[side].fit(now_ns, part)

    def rest(self, position: Floats, now_ns: int) -> None:
        """Forget all rows and rest at `position` (joints,)."""
        for side, part in self._parts.items():
            self._tracks[side].rest(position[part], now_ns)

    def stop(self, sides: Iterable[str], now_ns: int) -> None:
        """Let `sides` brake softly from their present state."""
        for side in sides:
            self._tracks[side].stop(now_ns)

    def stop_from(self, state: Motion, now_ns: int) -> None:
        """Let all joints brake softly from `state`."""
        for side, part in self._parts.items():
            self._tracks[side].stop_from(Motion(*(values[part] for values in state)), now_ns)

    def shift(self, by_ns: int) -> None:
        """Move the curves in time, because the clock was moved or ticks were left out."""
        if by_ns:
            for track in self._tracks.values():
                track.shift(by_ns)

    def _columns(self, chunk: ActionChunk, positions: Floats) -> dict[str, Floats]:
        """Each arm's part of the chunk's positions; a chunk names both arms or one."""
        if positions.shape[1] == sum(part.stop - part.start for part in self._parts.values()):
            return {side: positions[:, part] for side, part in self._parts.items()}
        return dict.fromkeys(self.sides, positions)
