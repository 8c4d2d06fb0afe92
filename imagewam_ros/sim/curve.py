# SPDX-License-Identifier: Apache-2.0
"""Joint targets as smooth functions of time: a cubic spline through rows, and minimum-jerk blends.

Source of the blend: Flash and Hogan 1985, 10 s^3 - 15 s^4 + 6 s^5.
"""

import numpy as np
from numpy.typing import ArrayLike

from imagewam_ros.core.schema import Floats, frozen


def minimum_jerk(fraction: ArrayLike) -> Floats:
    """Map elapsed fraction to travelled fraction, both 0 to 1, at rest at both ends."""
    s = np.clip(np.asarray(fraction, dtype=np.float64), 0.0, 1.0)
    blend: Floats = s * s * s * (10 + s * (6 * s - 15))
    return blend


class Curve:
    """The C2 cubic spline through rows (n, joints), row i at start_ns + i * period_ns, at rest at both ends.

    It stays at the first row before the start and at the last row after the end.
    """

    def __init__(self, start_ns: int, period_ns: int, rows: Floats) -> None:
        self.start_ns, self.period_ns = start_ns, period_ns
        self.rows = frozen(rows, 2)
        self._slopes = _slopes(self.rows)

    @property
    def end_ns(self) -> int:
        """Time of the last row."""
        return self.start_ns + (len(self.rows) - 1) * self.period_ns

    def at(self, time_ns: int) -> Floats:
        """(joints,) rad and m."""
        if time_ns <= self.start_ns:
            return np.array(self.rows[0])
        if time_ns >= self.end_ns:
            return np.array(self.rows[-1])
        index, rest = divmod(time_ns - self.start_ns, self.period_ns)
        s = rest / self.period_ns
        p0, p1, m0, m1 = self.rows[index], self.rows[index + 1], self._slopes[index], self._slopes[index + 1]
        value: Floats = p0 + s * (m0 + s * (3 * (p1 - p0) - 2 * m0 - m1 + s * (2 * (p0 - p1) + m0 + m1)))
        return value


def _slopes(rows: Floats) -> Floats:
    """Slopes per period that make the second derivative continuous, zero at both ends.

    Solves m[i-1] + 4 m[i] + m[i+1] = 3 (rows[i+1] - rows[i-1]) by elimination from both ends.
    """
    slopes = np.zeros_like(rows)
    pivots = np.ones(len(rows))
    for i in range(1, len(rows) - 1):
        pivots[i] = 4.0 if i == 1 else 4.0 - 1.0 / pivots[i - 1]
        slopes[i] = 3.0 * (rows[i + 1] - rows[i - 1]) - slopes[i - 1] / pivots[i - 1]
    for i in range(len(rows) - 2, 0, -1):
        slopes[i] = (slopes[i] - slopes[i + 1]) / pivots[i]
    return slopes
