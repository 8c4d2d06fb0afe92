# SPDX-License-Identifier: Apache-2.0
"""The reference: one curve with continuous position, velocity and acceleration.

Between its knots the curve is the minimum-jerk smoothing spline: among all curves that start
in the present state it minimises the integral of the squared jerk plus the weighted squared
distance to the rows. Smoothing acts as a low-pass 1 / (1 + (w / w_c)^6) on the rows, so motion
well below the cut-off passes unchanged and noise of single rows does not become jerk.
After the last row the curve brakes to rest.
"""

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from imagewam_ros.control.braking import Motion, Stop, plan_stop, stop_at, stop_end
from imagewam_ros.core.schema import Floats

NEAREST_KNOT = 0.2
"""Rows nearer to the start than this share of the row spacing are passed over: a knot that near
would leave the system of equations badly conditioned, and the row is already behind the arm."""

# Bernstein coefficients of the jerk over one segment of unit length, from the deviations of
# position, velocity and acceleration at its end from motion with constant acceleration.
JERK = np.array([[60.0, -24.0, 3.0], [-120.0, 60.0, -9.0], [60.0, -36.0, 9.0]])
# Integral of products of the three quadratic Bernstein polynomials over [0, 1].
GRAM = np.array([[6.0, 3.0, 1.0], [3.0, 4.0, 3.0], [1.0, 3.0, 6.0]]) / 30
ENERGY = JERK.T @ GRAM @ JERK


@dataclass(frozen=True)
class Curve:
    """Quintic pieces followed by a stop.

    knots_ns (pieces + 1,) in ascending order; coefficients (pieces, 6, joints) in powers of the
    seconds since the piece began; before the first knot the curve stands in its first state.
    """

    knots_ns: tuple[int, ...]
    coefficients: Floats
    stop: Stop

    def at(self, time_ns: int) -> Motion:
        """State at `time_ns`."""
        last = len(self.knots_ns) - 1
        time_ns = max(time_ns, self.knots_ns[0])
        if time_ns >= self.knots_ns[last]:
            if time_ns >= self.rest_ns:
                return self._rest
            return stop_at(self.stop, (time_ns - self.knots_ns[last]) * 1e-9)
        piece = max(bisect_right(self.knots_ns, time_ns) - 1, 0)
        s = (time_ns - self.knots_ns[piece]) * 1e-9
        s2, s3, s4 = s * s, s**3, s**4
        powers = np.array(
            (
                (1.0, s, s2, s3, s4, s4 * s),
                (0.0, 1.0, 2 * s, 3 * s2, 4 * s3, 5 * s4),
                (0.0, 0.0, 2.0, 6 * s, 12 * s2, 20 * s3),
            )
        )
        p, v, a = powers @ self.coefficients[piece]
        return Motion(p, v, a)

    @property
    def last_row_ns(self) -> int:
        """Time of the last row; the stop begins there."""
        return self.knots_ns[-1]

    @cached_property
    def _rest(self) -> Motion:
        zero = np.zeros(self.stop.jerk.size)
        return Motion(stop_end(self.stop), zero, zero)

    @cached_property
    def rest_ns(self) -> int:
        """Time from which every joint rests."""
        return self.knots_ns[-1] + int(np.ceil(self.stop.duration_s * 1e9))


def braking_curve(start: Motion, start_ns: int, acceleration: Floats, jerk: Floats) -> Curve:
    """Curve that brakes to rest from `start`."""
    return Curve((start_ns,), np.zeros((0, 6, start.position.size)), plan_stop(start, acceleration, jerk))


def fit(
    start: Motion,
    start_ns: int,
    times_ns: "np.ndarray[tuple[int], np.dtype[np.int64]]",
    rows: Floats,
    spacing_ns: int,
    cutoff_hz: float,
    acceleration: Floats,
    jerk: Floats,
) -> Curve:
    """Fit the curve from `start` through rows (n, joints) due at ascending times_ns (n,).

    `spacing_ns` is the usual distance of rows. `cutoff_hz` is the smoothing; rows that come more
    slowly than about twice as often are met almost exactly. `acceleration` and `jerk` (joints,)
    bound the stop after the last row. Rows due at or before `start_ns` are passed over.
    """
    unit_ns = float(spacing_ns)
    keep = times_ns - start_ns >= NEAREST_KNOT * unit_ns
    times_ns, rows = times_ns[keep], rows[keep]
    if not times_ns.size:
        return braking_curve(start, start_ns, acceleration, jerk)
    knots = np.concatenate([[start_ns], times_ns])
    spans = np.diff(knots) / unit_ns  # (n,) lengths of the pieces in row spacings
    unit_s = unit_ns * 1e-9
    scale = np.array([1.0, unit_s, unit_s * unit_s])
    first = np.stack(start) * scale[:, None]  # (3, joints) in row spacings
    states = _solve(first, spans, rows, (2 * np.pi * cutoff_hz * unit_s) ** 6)
    states /= scale[:, None]
    coefficients = _coefficients(states, spans * unit_s)
    stop = plan_stop(Motion(*states[-1]), acceleration, jerk)
    return Curve(tuple(int(t) for t in knots), coefficients, stop)


def _solve(first: Floats, spans: Floats, rows: Floats, weight: float) -> Floats:
    """Minimise jerk and distance to the rows. Returns states (n + 1, 3, joints), first included."""
    n = spans.size
    blocks = _segment_energies(spans)  # (n, 6, 6) over the states at both ends of a segment
    system = np.zeros((3 * n + 3, 3 * n + 3))
    for i in range(n):
        system[3 * i : 3 * i + 6, 3 * i : 3 * i + 6] += blocks[i]
    weights = weight * np.minimum(spans, 1.0)
    at_rows = np.arange(3, 3 * n + 3, 3)
    system[at_rows, at_rows] += weights
    right = -system[3:, :3] @ first
    right[at_rows - 3] += weights[:, None] * rows
    solution = np.linalg.solve(system[3:, 3:], right)
    return np.concatenate([first[None], solution.reshape(n, 3, -1)])


def _segment_energies(spans: Floats) -> Floats:
    """Integral of the squared jerk over each segment as a quadratic form of both end states."""
    n = spans.size
    deviation = np.zeros((n, 3, 6))  # of the end state from constant acceleration, times span powers
    h, h2 = spans, spans * spans
    deviation[:, 0, 0], deviation[:, 0, 1], deviation[:, 0, 2], deviation[:, 0, 3] = -1, -h, -h2 / 2, 1
    deviation[:, 1, 1], deviation[:, 1, 2], deviation[:, 1, 4] = -h, -h2, h
    deviation[:, 2, 2], deviation[:, 2, 5] = -h2, h2
    energies: Floats = np.swapaxes(deviation, 1, 2) @ ENERGY @ deviation / (h2 * h2 * h)[:, None, None]
    return energies


def _coefficients(states: Floats, spans_s: Floats) -> Floats:
    """Quintic pieces (n, 6, joints) between states (n + 1, 3, joints)."""
    h = spans_s[:, None]
    p0, v0, a0 = states[:-1, 0], states[:-1, 1], states[:-1, 2]
    p1, v1, a1 = states[1:, 0], states[1:, 1], states[1:, 2]
    dp = p1 - p0 - h * (v0 + h * a0 / 2)
    dv = (v1 - v0 - h * a0) * h
    da = (a1 - a0) * h * h
    c3 = (10 * dp - 4 * dv + da / 2) / h**3
    c4 = (-15 * dp + 7 * dv - da) / h**4
    c5 = (6 * dp - 3 * dv + da / 2) / h**5
    return np.stack([p0, v0, a0 / 2, c3, c4, c5], axis=1)
