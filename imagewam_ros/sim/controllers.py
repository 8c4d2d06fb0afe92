# SPDX-License-Identifier: Apache-2.0
"""The two position controllers of ros2_control, as they behave on a robot. Time is an argument.

Both keep commanding when nobody sends any more: the forward controller its last values, the
trajectory controller its trajectory to the end and then the last point. That is what an executor
that dies leaves behind, so the simulator must show it.
Source: ros2_controllers 6 (forward_command_controller, joint_trajectory_controller/src/trajectory.cpp).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from imagewam_ros.core.schema import Floats, frozen

END_VELOCITY_EPS = float(np.finfo(np.float32).eps)


class ForwardController:
    """Forwards each command to the joints and holds it for ever. positions (joints,) are where it starts."""

    def __init__(self, joint_names: tuple[str, ...], positions: Floats) -> None:
        self.joint_names = joint_names
        self._command = frozen(positions, 1)

    def accept(self, command: Floats) -> str | None:
        """Take a command (joints,), or keep the present one and return why."""
        values = np.asarray(command, dtype=np.float64)
        if values.shape != self._command.shape:
            return f"command size ({values.size}) does not match number of joints ({self._command.size})"
        if not np.isfinite(values).all():
            return "non-finite value in the command"
        self._command = frozen(values, 1)
        return None

    def sample(self, now_ns: int, measured: Floats, velocity: Floats) -> Floats:
        """Return the joint targets (joints,); the arguments serve the same call on the other controller."""
        return self._command


@dataclass(frozen=True)
class Trajectory:
    """Points at stamp_ns + times_ns[i]; stamp_ns 0 means from the first sample on.

    positions, velocities, accelerations are (points, joints) in the order of joint_names. With
    positions alone the segments are lines, with velocities cubics, with accelerations quintics.
    """

    joint_names: tuple[str, ...]
    times_ns: tuple[int, ...]
    positions: Floats
    velocities: Floats | None = None
    accelerations: Floats | None = None
    stamp_ns: int = 0


class _Knot(NamedTuple):
    """One point in time; derivatives are zero where the trajectory gives none."""

    time_ns: int
    position: Floats
    velocity: Floats
    acceleration: Floats


class JointTrajectoryController:
    """Plays the newest trajectory to its end. A new one replaces the running one at once and as a whole.

    Until the first point is due it moves there from the measured state, or from its own last target
    where interpolate_from_desired_state is set.
    """

    def __init__(
        self,
        joint_names: tuple[str, ...],
        positions: Floats,
        interpolate_from_desired_state: bool = False,
        allow_nonzero_velocity_at_trajectory_end: bool = False,
    ) -> None:
        self.joint_names = joint_names
        self.interpolate_from_desired_state = interpolate_from_desired_state
        self.allow_nonzero_velocity_at_trajectory_end = allow_nonzero_velocity_at_trajectory_end
        zeros = np.zeros(len(joint_names))
        self._desired = _Knot(0, frozen(positions, 1), zeros, zeros)
        self._pending: Trajectory | None = None
        self._knots: list[_Knot] = []
        self._degree = 1

    def accept(self, trajectory: Trajectory, now_ns: int) -> str | None:
        """Take a trajectory, or keep the running one and return why."""
        reason = self._refusal(trajectory, now_ns)
        if reason is None:
            self._pending = trajectory
        return reason

    def sample(self, now_ns: int, measured: Floats, velocity: Floats) -> Floats:
        """Return the joint targets (joints,) now; measured and velocity are the joints' present state."""
        if self._pending is not None:
            self._begin(self._pending, now_ns, measured, velocity)
            self._pending = None
        if self._knots:
            self._desired = self._evaluate(now_ns)
        return self._desired.position

    def _refusal(self, trajectory: Trajectory, now_ns: int) -> str | None:
        names, shape = trajectory.joint_names, (len(trajectory.times_ns), len(self.joint_names))
        fields = [f for f in (trajectory.positions, trajectory.velocities, trajectory.accelerations) if f is not None]
        if sorted(names) != sorted(self.joint_names):
            return f"joints on incoming trajectory don't match the controller joints: {', '.join(names) or 'none'}"
        if not trajectory.times_ns:
            return "empty trajectory received"
        if any(np.shape(field) != shape or not np.isfinite(field).all() for field in fields):
            return f"expected {shape[0]} points of {shape[1]} finite values in every field"
        if any(late <= early for early, late in zip(trajectory.times_ns, trajectory.times_ns[1:], strict=False)):
            return "time between points is not strictly increasing"
        if trajectory.stamp_ns and trajectory.stamp_ns + trajectory.times_ns[-1] < now_ns:
            return "trajectory with non-zero start time ends in the past"
        moving = trajectory.velocities is not None and np.abs(trajectory.velocities[-1]).max() > END_VELOCITY_EPS
        if moving and not self.allow_nonzero_velocity_at_trajectory_end:
            return "velocity of last trajectory point is not zero"
        return None

    def _begin(self, trajectory: Trajectory, now_ns: int, measured: Floats, velocity: Floats) -> None:
        order = [trajectory.joint_names.index(name) for name in self.joint_names]
        start_ns = trajectory.stamp_ns or now_ns
        zeros = np.zeros_like(trajectory.positions)
        self._degree = 1
        if trajectory.velocities is not None:
            self._degree = 3 if trajectory.accelerations is None else 5
        velocities = zeros if trajectory.velocities is None else trajectory.velocities
        accelerations = zeros if trajectory.accelerations is None else trajectory.accelerations
        before = _Knot(now_ns, np.array(measured), np.array(velocity), np.zeros(len(order)))
        if self.interpolate_from_desired_state:
            before = self._desired if self._desired.time_ns else self._desired._replace(time_ns=now_ns)
        points = zip(trajectory.times_ns, trajectory.positions, velocities, accelerations, strict=True)
        self._knots = [before, *(_Knot(start_ns + t, p[order], v[order], a[order]) for t, p, v, a in points)]

    def _evaluate(self, now_ns: int) -> _Knot:
        """Sample the running trajectory; points that lie in the past are skipped, not replayed."""
        last = self._knots[-1]
        if now_ns >= last.time_ns:
            return last._replace(time_ns=now_ns)
        index = max(i for i, knot in enumerate(self._knots[:-1]) if i == 0 or knot.time_ns <= now_ns)
        return _segment(self._knots[index], self._knots[index + 1], now_ns, self._degree)


def _segment(begin: _Knot, end: _Knot, now_ns: int, degree: int) -> _Knot:
    """Polynomial of degree 1, 3 or 5 that meets the fields of both ends."""
    duration, t = (end.time_ns - begin.time_ns) / 1e9, (now_ns - begin.time_ns) / 1e9
    zero = np.zeros_like(begin.position)
    c: list[Floats] = [begin.position, begin.velocity, zero, zero, zero, zero]
    gap = end.position - begin.position
    if degree == 1:
        c[1] = gap / duration
    elif degree == 3:
        c[2] = (3 * gap / duration - 2 * begin.velocity - end.velocity) / duration
        c[3] = (-2 * gap / duration + begin.velocity + end.velocity) / duration**2
    else:
        c[2] = begin.acceleration / 2
        gap = gap - begin.velocity * duration - c[2] * duration**2
        rise = (end.velocity - begin.velocity - begin.acceleration * duration) * duration
        bend = (end.acceleration - begin.acceleration) * duration**2
        c[3] = (10 * gap - 4 * rise + bend / 2) / duration**3
        c[4] = (-15 * gap + 7 * rise - bend) / duration**4
        c[5] = (6 * gap - 3 * rise + bend / 2) / duration**5
    position = sum((c[k] * t**k for k in range(6)), zero)
    velocity = sum((k * c[k] * t ** (k - 1) for k in range(1, 6)), zero)
    acceleration = sum((k * (k - 1) * c[k] * t ** (k - 2) for k in range(2, 6)), zero)
    return _Knot(now_ns, position, velocity, acceleration)
