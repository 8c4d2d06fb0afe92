# SPDX-License-Identifier: Apache-2.0
"""Judge a command log by the robot's limits, without knowing how it was made.

It imports nothing of this room and believes only positions, tick numbers and the period: the
elapsed time between two commands is the difference of their ticks times the period. Velocity,
acceleration and jerk are divided differences of positions. For a motion that keeps a bound on its
k-th derivative, k! times the k-th divided difference is a weighted mean of that derivative, so it
keeps the bound as well, over equal and over skipped ticks; what exceeds is a true violation.

The velocity and acceleration that each command states are compared with the limits, and with the
positions and with each other by the errors that the trapezoid rule can make below the jerk limit.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from imagewam_ros.core.embodiment import Limits
from imagewam_ros.core.schema import Command, Floats

ROUNDING = 16 * np.finfo(np.float64).eps
"""Relative error of a position and of the sums in a divided difference."""

TOLERANCE = 1e-6
"""Stated tolerance, relative to each limit."""


class Violation(NamedTuple):
    """`quantity` of `joint` (index) was `value` at `tick`; `limit` was allowed."""

    tick: int
    joint: int
    quantity: str
    value: float
    limit: float


class Log(NamedTuple):
    """A command log: ticks (n,), and position, velocity, acceleration (n, joints)."""

    period_ns: int
    ticks: NDArray[np.int64]
    position: Floats
    velocity: Floats
    acceleration: Floats


def check(commands: Sequence[Command], limits: Limits, tolerance: float = TOLERANCE) -> list[Violation]:
    """Return every violation in `commands`, in order of sending; a command sent twice counts once."""
    if not commands:
        return []
    return check_log(gather(commands), limits, tolerance)


def gather(commands: Sequence[Command]) -> Log:
    """Put commands into one log, leaving out repetitions of a tick with the same content."""
    kept = [
        c
        for c, before in zip(commands, (None, *commands), strict=False)
        if before is None or c.tick != before.tick or not np.array_equal(c.position, before.position)
    ]
    stacked = (np.stack([getattr(c, part) for c in kept]) for part in ("position", "velocity", "acceleration"))
    return Log(kept[0].period_ns, np.array([c.tick for c in kept], dtype=np.int64), *stacked)


def check_log(log: Log, limits: Limits, tolerance: float = TOLERANCE) -> list[Violation]:
    """Return every violation in `log`."""
    period_s, found = log.period_ns * 1e-9, []
    steps = np.diff(log.ticks)
    if (steps <= 0).any():
        bad = int(np.flatnonzero(steps <= 0)[0]) + 1
        return [Violation(int(log.ticks[bad]), -1, "tick order", float(log.ticks[bad]), float(log.ticks[bad - 1] + 1))]
    if not np.isfinite(log.position).all():
        row, joint = (int(x) for x in np.argwhere(~np.isfinite(log.position))[0])
        return [Violation(int(log.ticks[row]), joint, "position", float(log.position[row, joint]), 0.0)]

    def compare(quantity: str, rows: NDArray[np.int64], values: Floats, limit: Floats, slack: "Floats | float") -> None:
        allowed = np.broadcast_to(limit * (1 + tolerance) + slack, values.shape)
        for row, joint in np.argwhere(~(values <= allowed)):
            where = int(rows[row]), int(joint)
            found.append(Violation(where[0], where[1], quantity, float(values[row, joint]), float(allowed[row, joint])))

    rounding = ROUNDING * np.maximum(np.abs(limits.lower), np.abs(limits.upper))
    span = limits.upper - limits.lower
    compare("below lower", log.ticks, limits.lower - log.position, 0 * span, tolerance * span)
    compare("above upper", log.ticks, log.position - limits.upper, 0 * span, tolerance * span)
    compare("stated velocity", log.ticks, np.abs(log.velocity), limits.velocity, 0.0)
    compare("stated acceleration", log.ticks, np.abs(log.acceleration), limits.acceleration, 0.0)

    times, difference, factor = log.ticks * period_s, log.position, 1.0
    for order, (quantity, limit) in enumerate(
        (("velocity", limits.velocity), ("acceleration", limits.acceleration), ("jerk", limits.jerk)), start=1
    ):
        if log.ticks.size <= order:
            break
        width = (times[order:] - times[:-order])[:, None]
        difference, factor = np.diff(difference, axis=0) / width, factor * order
        shortest = np.min(np.diff(times)[None, :])
        slack = 2**order * rounding / shortest**order
        compare(quantity, log.ticks[order:], np.abs(difference) * factor, limit, slack)

    dt = (steps * period_s)[:, None]
    mean_v = (log.velocity[1:] + log.velocity[:-1]) / 2
    mean_a = (log.acceleration[1:] + log.acceleration[:-1]) / 2
    jerk, later = limits.jerk, log.ticks[1:]
    moved = np.abs(np.diff(log.position, axis=0) - dt * mean_v)
    compare("position against stated velocity", later, moved, jerk * dt**3 / 12, 4 * rounding)
    gained = np.abs(np.diff(log.velocity, axis=0) - dt * mean_a)
    compare("velocity against stated acceleration", later, gained, jerk * dt**2 / 4, ROUNDING * limits.velocity)
    compare("stated jerk", later, np.abs(np.diff(log.acceleration, axis=0)), jerk * dt, ROUNDING * limits.acceleration)
    return sorted(found)
