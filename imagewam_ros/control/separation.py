# SPDX-License-Identifier: Apache-2.0
"""Which motions keep the links of the robot apart: the guard's rule on distances.

Each pair of links is held to its own distance before: one pair that is near hides no other, and what
takes a pair apart is allowed. Neighbours, as in a wrist, that are near however the arms stand are left
out: what keeps them apart is the bounds of the joints between them.
"""

import numpy as np

from imagewam_ros.core.schema import Floats
from imagewam_ros.kinematics.clearance import Clearance

SLOWEST = 0.1
"""Least share of the planned speed on the way to the stop distance."""

NEIGHBOURS_M = 0.05
"""Links that never get farther apart than this are neighbours; in UR, FR3 and PiPER arms they reach 0.02 to 0.043."""

CLOSER_M = 5e-6
"""Less is no approach: distances of hulls are exact to about 2e-6 m."""


class Separation:
    """Bounds of distance, m, for the pairs of `clearance`; `poses` (poses, joints) show how far they come apart."""

    def __init__(self, clearance: Clearance, poses: Floats, stop_m: float, slow_m: float) -> None:
        self._clearance, self._stop_m, self._slow_m = clearance, stop_m, slow_m
        neighbours_m = max(stop_m, NEIGHBOURS_M)
        farthest = np.max([clearance.distances(pose, max(slow_m, neighbours_m)) for pose in poses], axis=0)
        self._stops_m = np.where(farthest >= neighbours_m, stop_m, -np.inf)
        self._slows_m = np.where(farthest >= slow_m, slow_m, self._stops_m)

    @property
    def unwatched(self) -> tuple[tuple[str, str], ...]:
        """Pairs of links that are neighbours."""
        return tuple(self._clearance.pairs[index] for index in np.flatnonzero(np.isinf(self._stops_m)))

    def distances(self, poses: Floats) -> Floats:
        """(poses, pairs) distances in m of (poses, joints), infinite where no bound speaks of them."""
        return np.array([self._clearance.distances(pose, self._slows_m) for pose in poses])

    def allowed(self, distances: Floats) -> int:
        """Index of the last pose before the first that is not allowed, of (poses, pairs); the first is where we are.

        A pair may be nearer than the stop distance only while it has been from the start, and no nearer than there.
        """
        been_apart = np.maximum.accumulate(distances[:-1]) >= self._stop_m
        least = np.where(been_apart, self._stop_m, distances[0] - CLOSER_M)
        bad = np.flatnonzero((distances[1:] < least).any(axis=1))
        return int(bad[0]) if bad.size else len(distances) - 1

    def shares(self, distances: Floats) -> Floats:
        """(poses - 1,) share of the speed on the way to each pose, 1 where no links approach below slow_m."""
        before, after = distances[:-1], distances[1:]
        if self._slow_m <= self._stop_m:
            return np.ones(len(after))
        room = (after - self._stop_m) / (self._slow_m - self._stop_m)
        share = np.where(after < before - CLOSER_M, np.clip(room, SLOWEST, 1.0), 1.0)
        shares: Floats = share.min(axis=1, initial=1.0)
        return shares

    def veto(self, rest: Floats, before: Floats) -> str:
        """Why the arms must not come to rest at `rest` instead of `before`, each (joints,); empty when they may."""
        near = self._clearance.distances(rest, self._stops_m)
        if np.isinf(near).all():
            return ""
        closer = near < self._clearance.distances(before, self._stops_m) - CLOSER_M
        if not closer.any():
            return ""
        index = int(np.where(closer, near, np.inf).argmin())
        first, second = self._clearance.pairs[index]
        asked = f"(stop distance {self._stop_m * 1e3:.0f} mm)"
        return f"{first} would stop {near[index] * 1e3:.0f} mm from {second} {asked}"
