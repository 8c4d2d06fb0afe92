# SPDX-License-Identifier: Apache-2.0
"""What a joint trajectory controller is told: a short trajectory that starts in the past and ends at rest.

JTC interpolates from the measured state to the first point that lies in the future (Humble has no
interpolate_from_desired_state under that name), so the first point is one that was sent before and
lies in the past. It plays every trajectory to its end whether we live or not, so the last point is
at rest where the arms can stop. All points carry position, velocity and acceleration: then JTC joins
them by quintics on every distribution and the stream is continuous up to acceleration.
"""

from typing import NamedTuple

import numpy as np

from imagewam_ros.control.braking import Motion, plan_stop, stop_at, stop_end
from imagewam_ros.core.embodiment import Limits
from imagewam_ros.core.schema import Command, Floats

POINTS = 12
"""Points from the present sample to rest."""


class Horizon(NamedTuple):
    """stamp_ns of all arms' messages, offsets_ns (points,) from it; the rest is (points, joints)."""

    stamp_ns: int
    offsets_ns: tuple[int, ...]
    position: Floats
    velocity: Floats
    acceleration: Floats


def rolling_horizon(before: Command, present: Command, limits: Limits, share: float = 0.7) -> Horizon:
    """Return the trajectory to publish with `present`; `before` is the command that was sent before it.

    The way to rest uses `share` of the limits where that ends inside the position bounds, else all
    of them, which always does.
    """
    start = Motion(present.position, present.velocity, present.acceleration)
    soft = plan_stop(start, limits.acceleration * share, limits.jerk * share)
    end = stop_end(soft)
    if ((end < limits.lower) | (end > limits.upper)).any():
        soft = plan_stop(start, limits.acceleration, limits.jerk)
    duration_s = max(soft.duration_s, present.period_ns * 1e-9)
    times_s = np.linspace(0.0, duration_s, POINTS)
    way = [stop_at(soft, float(t)) for t in times_s[:-1]]
    zero = np.zeros(end.size)
    way.append(Motion(stop_end(soft), zero, zero))
    gap_ns = present.nominal_ns - before.nominal_ns
    points = [Motion(before.position, before.velocity, before.acceleration), *way]
    offsets_ns = (0, *(gap_ns + round(t * 1e9) for t in times_s))
    return Horizon(before.nominal_ns, offsets_ns, *(np.stack(part) for part in zip(*points, strict=True)))
