# SPDX-License-Identifier: Apache-2.0
"""The shortest jerk-limited stop of each joint, in closed form.

A stop has three phases: jerk against the motion until the braking acceleration is reached,
constant acceleration, jerk back to zero acceleration. From every state there is exactly one.
It knows nothing of position bounds; the limiter compares its ends with them.
"""

from typing import NamedTuple

import numpy as np

from imagewam_ros.core.embodiment import Limits
from imagewam_ros.core.schema import Floats

STOP_SHARE = 0.7
"""Share of the limits that soft stops use, where nothing else is asked for."""


class Motion(NamedTuple):
    """Position, velocity and acceleration of all joints at one instant, each (joints,)."""

    position: Floats
    velocity: Floats
    acceleration: Floats


class Stop(NamedTuple):
    """A planned stop from `start`: signed jerk of phase one and the ends of the three phases, s."""

    start: Motion
    jerk: Floats
    first_s: Floats
    second_s: Floats
    third_s: Floats

    @property
    def duration_s(self) -> float:
        """Time until the last joint rests, s."""
        return float((self.first_s + self.second_s + self.third_s).max(initial=0.0))


def plan_stop(start: Motion, acceleration: Floats, jerk: Floats) -> Stop:
    """Plan the shortest stop from `start` within `acceleration` and `jerk`, each (joints,).

    A joint that already brakes harder than `acceleration` keeps its present acceleration.
    """
    _, v, a = start
    # The joint moves on in this direction if its acceleration is brought to zero at once.
    sign = np.where(v + a * np.abs(a) / (2 * jerk) >= 0, 1.0, -1.0)
    w, b = sign * v, sign * a
    free = np.sqrt(np.maximum(jerk * w + b * b / 2, 0.0))  # peak braking without a bound on it
    peak = np.maximum(np.minimum(free, acceleration), -b)
    left = np.where(free > peak, np.maximum(w + (b * b - 2 * peak * peak) / (2 * jerk), 0.0), 0.0)
    first = np.maximum(b + peak, 0.0) / jerk
    return Stop(start, -sign * jerk, first, left / np.where(left > 0, peak, 1.0), peak / jerk)


def longest_stop_s(limits: Limits, share: float) -> float:
    """Longest time in s that a stop can take with `share` of the limits: from full speed, still accelerating."""
    start = Motion(np.zeros(limits.velocity.size), limits.velocity, limits.acceleration)
    return plan_stop(start, limits.acceleration * share, limits.jerk * share).duration_s


def stop_at(stop: Stop, elapsed_s: float) -> Motion:
    """State `elapsed_s`, at least 0, after the stop began; exactly at rest once a joint has stopped."""
    rest = elapsed_s - stop.first_s
    last = rest - stop.second_s
    motion = advance(stop.start, stop.jerk, np.minimum(elapsed_s, stop.first_s))
    motion = advance(motion, 0.0, np.maximum(np.minimum(rest, stop.second_s), 0.0))
    p, v, a = advance(motion, -stop.jerk, np.maximum(np.minimum(last, stop.third_s), 0.0))
    moving = last < stop.third_s
    return Motion(p, np.where(moving, v, 0.0), np.where(moving, a, 0.0))


def stop_end(stop: Stop) -> Floats:
    """Where each joint comes to rest."""
    p, v, a = advance(stop.start, stop.jerk, stop.first_s)
    p = p + stop.second_s * (v + stop.second_s * a / 2)
    v = v + stop.second_s * a
    end: Floats = p + stop.third_s * (v + stop.third_s * (a / 2 - stop.third_s * stop.jerk / 6))
    return end


def advance(motion: Motion, jerk: "Floats | float", time_s: "Floats | float") -> Motion:
    """State after constant `jerk` for `time_s`."""
    p, v, a = motion
    return Motion(
        p + time_s * (v + time_s * (a / 2 + time_s * jerk / 6)), v + time_s * (a + time_s * jerk / 2), a + time_s * jerk
    )


def stop_extent(stop: Stop) -> tuple[Floats, Floats]:
    """Lowest and highest position of each joint on its way to rest, including the start.

    Velocity changes sign at most once, and only while the acceleration of the start lasts:
    then the extreme lies inside phase one.
    """
    p, v, a = stop.start
    end = stop_end(stop)
    low, high = np.minimum(p, end), np.maximum(p, end)
    turns = v * stop.jerk > 0  # moves against the direction in which it will finally brake
    if turns.any():
        magnitude = np.abs(stop.jerk)
        root = np.sqrt(np.maximum(a * a - 2 * magnitude * np.abs(v), 0.0))
        turn = advance(stop.start, stop.jerk, np.where(turns, (np.abs(a) - root) / magnitude, 0.0)).position
        low, high = np.minimum(low, turn), np.maximum(high, turn)
    return low, high
