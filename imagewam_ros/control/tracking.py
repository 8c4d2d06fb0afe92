# SPDX-License-Identifier: Apache-2.0
"""How well chunks that arrive late are followed: the executor beside the ways of others.

Chunks are exact slices of one smooth trajectory, so the error is what execution adds. Every way
goes through the same limiter. The others are written from their documentation:

* A, `linear_on_arrival`: JTC with positions only, stamp 0 ("start now"): linear segments
  (ros2_controllers, doc/trajectory.rst), first point due on arrival.
* B, `cubic_by_stamp`: one cubic spline per chunk that starts and ends at rest, placed by the
  chunk's stamp, points in the past dropped (JTC's positions_upsampling, doc/userdoc.rst).
* C, `linear_by_stamp`: as A, placed by the chunk's stamp.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from imagewam_ros.control.braking import Motion
from imagewam_ros.control.executor import Executor
from imagewam_ros.control.limiter import Limiter
from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.schema import ActionChunk, Floats, JointState

RATE_HZ = 15.0
ROWS = 16
EVERY = 8
SHARE = 0.7
"""The trajectory stays inside this share of every limit."""

SETTLE_S = 2.0
"""Errors count from here."""


class Trajectory(NamedTuple):
    """Sums of sines around `middle`; amplitude, omega (rad/s) and phase are (sines, joints)."""

    middle: Floats
    amplitude: Floats
    omega: Floats
    phase: Floats

    def at(self, time_s: Floats) -> Floats:
        """(times, joints) positions."""
        waves = self.amplitude * np.sin(self.omega * time_s[:, None, None] + self.phase)
        positions: Floats = self.middle + waves.sum(axis=1)
        return positions


def smooth(robot: Embodiment, rng: np.random.Generator, share: float = SHARE) -> Trajectory:
    """A random trajectory whose largest position, velocity, acceleration and jerk reach `share` of a limit."""
    limits, joints = robot.limits, len(robot.joints)
    omega = 2 * np.pi * rng.uniform(0.1, 0.8, (3, joints))
    amplitude, phase = rng.uniform(0.3, 1.0, (3, joints)), rng.uniform(0, 2 * np.pi, (3, joints))
    half = (limits.upper - limits.lower) / 2
    bounds = (half, limits.velocity, limits.acceleration, limits.jerk)
    peaks = [np.sum(amplitude * omega**k, axis=0) / bound for k, bound in enumerate(bounds)]
    return Trajectory((limits.lower + limits.upper) / 2, amplitude * share / np.max(peaks, axis=0), omega, phase)


class Sent(NamedTuple):
    """What one way sent: ticks (n,) and positions (n, joints), and the time after activation, s."""

    time_s: Floats
    positions: Floats


def deliveries(
    robot: Embodiment, trajectory: Trajectory, latency_s: float, duration_s: float, offsets: "Floats | None" = None
) -> list[tuple[int, ActionChunk]]:
    """Chunks with their times of arrival, ns; `offsets` (chunks, joints) shifts each as a whole."""
    period_ns = round(1e9 / RATE_HZ)
    chunks = []
    for index in range(int(duration_s * RATE_HZ / EVERY)):
        stamp_ns = index * EVERY * period_ns
        rows = trajectory.at((stamp_ns + (1 + np.arange(ROWS, dtype=np.float64)) * period_ns) * 1e-9)
        shifted = rows if offsets is None else rows + offsets[index]
        chunk = ActionChunk(stamp_ns, period_ns, robot.joint_names, shifted, sequence=index)
        chunks.append((stamp_ns + round(latency_s * 1e9), chunk))
    return chunks


def through_executor(robot: Embodiment, start: Floats, arriving: list[tuple[int, ActionChunk]], ticks: int) -> Sent:
    """Play the chunks through the executor with its default parameters."""
    executor, waiting, positions = Executor(robot), list(arriving), [start]
    executor.activate(0, JointState(0, robot.joint_names, start, np.zeros(start.size)))
    for tick in range(1, ticks):
        now_ns = tick * robot.period_ns
        while waiting and waiting[0][0] <= now_ns:
            executor.accept(waiting.pop(0)[1], now_ns)
        positions.append(executor.step(now_ns).command.position)
    return Sent(np.arange(ticks, dtype=np.float64) * robot.period_ns * 1e-9, np.array(positions))


Sampler = Callable[[ActionChunk, int, int], Motion]
"""Reference of another way: chunk, its arrival and the present time, ns."""


def through_sampler(
    sampler: Sampler, robot: Embodiment, start: Floats, arriving: list[tuple[int, ActionChunk]], ticks: int
) -> Sent:
    """Play the chunks another way, through the same limiter; the newest chunk replaces the one before."""
    limiter, waiting, positions = Limiter(robot.limits, robot.period_ns * 1e-9), list(arriving), [start]
    limiter.reset(start)
    zero = np.zeros(start.size)
    running: tuple[int, ActionChunk] | None = None

    def reference(ahead: int) -> Motion:
        if running is None:
            return Motion(start, zero, zero)
        return sampler(running[1], running[0], (tick - 1 + ahead) * robot.period_ns)

    for tick in range(1, ticks):
        now_ns = tick * robot.period_ns
        while waiting and waiting[0][0] <= now_ns:
            running = waiting.pop(0)
            limiter.drop_plans()
        positions.append(limiter.step(reference).position)
    return Sent(np.arange(ticks, dtype=np.float64) * robot.period_ns * 1e-9, np.array(positions))


def linear_on_arrival(chunk: ActionChunk, arrival_ns: int, at_ns: int) -> Motion:
    """A: row i is due i periods after arrival."""
    return _linear(chunk, arrival_ns, at_ns)


def linear_by_stamp(chunk: ActionChunk, arrival_ns: int, at_ns: int) -> Motion:
    """C: row i is due when the chunk says."""
    return _linear(chunk, chunk.due_ns(0), at_ns)


def _linear(chunk: ActionChunk, first_ns: int, at_ns: int) -> Motion:
    zero = np.zeros(chunk.positions.shape[1])
    place = (at_ns - first_ns) / chunk.period_ns
    row = int(np.floor(place))
    if row < 0 or row >= chunk.rows - 1:
        return Motion(chunk.positions[0 if row < 0 else -1], zero, zero)
    slope = chunk.positions[row + 1] - chunk.positions[row]
    return Motion(chunk.positions[row] + (place - row) * slope, slope / (chunk.period_ns * 1e-9), zero)


def cubic_by_stamp(chunk: ActionChunk, arrival_ns: int, at_ns: int) -> Motion:
    """B: the cubic spline through all rows with no velocity at the first and the last."""
    zero = np.zeros(chunk.positions.shape[1])
    place = (at_ns - chunk.due_ns(0)) / chunk.period_ns
    if place <= 0 or place >= chunk.rows - 1:
        return Motion(chunk.positions[0 if place <= 0 else -1], zero, zero)
    slopes = clamped_slopes(chunk.positions)
    row = int(place)
    s, h = place - row, chunk.period_ns * 1e-9
    p0, p1, m0, m1 = chunk.positions[row], chunk.positions[row + 1], slopes[row], slopes[row + 1]
    c2, c3 = 3 * (p1 - p0) - 2 * m0 - m1, 2 * (p0 - p1) + m0 + m1
    return Motion(
        p0 + s * (m0 + s * (c2 + s * c3)), (m0 + s * (2 * c2 + 3 * s * c3)) / h, (2 * c2 + 6 * s * c3) / (h * h)
    )


def clamped_slopes(rows: Floats) -> Floats:
    """Slopes per row spacing (n, joints) of the cubic spline through `rows` with slope zero at both ends."""
    n = len(rows)
    system = np.eye(n)
    for i in range(1, n - 1):
        system[i, i - 1 : i + 2] = 1, 4, 1
    right = np.zeros_like(rows)
    right[1:-1] = 3 * (rows[2:] - rows[:-2])
    return np.asarray(np.linalg.solve(system, right), dtype=np.float64)


OTHERS: dict[str, Sampler] = {
    "linear_on_arrival": linear_on_arrival,
    "cubic_by_stamp": cubic_by_stamp,
    "linear_by_stamp": linear_by_stamp,
}


def errors(robot: Embodiment, latency_s: float, seed: int, duration_s: float = 12.0) -> dict[str, float]:
    """Rms of command minus trajectory at the same time, rad and m, by way; "executor" is ours."""
    trajectory = smooth(robot, np.random.default_rng(seed))
    start, ticks = trajectory.at(np.zeros(1))[0], int(duration_s * robot.control_rate_hz)
    arriving = deliveries(robot, trajectory, latency_s, duration_s)
    ways = {"executor": through_executor(robot, start, arriving, ticks)}
    ways |= {name: through_sampler(way, robot, start, arriving, ticks) for name, way in OTHERS.items()}
    result = {}
    for name, sent in ways.items():
        late = sent.time_s >= SETTLE_S
        result[name] = float(np.sqrt(np.mean((sent.positions[late] - trajectory.at(sent.time_s[late])) ** 2)))
    return result


def ratio(found: dict[str, float]) -> float:
    """Error of the executor over that of the better of A and B."""
    return found["executor"] / min(found["linear_on_arrival"], found["cubic_by_stamp"])


class Peaks(NamedTuple):
    """Largest velocity, acceleration and jerk over their limits, and summed motion, rad and m."""

    velocity: float
    acceleration: float
    jerk: float
    travel: float


def peaks(
    robot: Embodiment, latency_s: float, seed: int, offset: float = 0.01, duration_s: float = 12.0
) -> dict[str, Peaks]:
    """What each way does with chunks that disagree by random offsets of standard deviation `offset`."""
    rng = np.random.default_rng(seed)
    trajectory = smooth(robot, rng, share=0.3)
    start, ticks = trajectory.at(np.zeros(1))[0], int(duration_s * robot.control_rate_hz)
    offsets = np.where(robot.gripper_mask, 0.0, rng.normal(0, offset, (int(duration_s * RATE_HZ), len(robot.joints))))
    arriving = deliveries(robot, trajectory, latency_s, duration_s, offsets)
    ways = {"executor": through_executor(robot, start, arriving, ticks)}
    ways |= {name: through_sampler(way, robot, start, arriving, ticks) for name, way in OTHERS.items()}
    return {name: _peaks(sent.positions[sent.time_s >= SETTLE_S], robot) for name, sent in ways.items()}


def _peaks(positions: Floats, robot: Embodiment) -> Peaks:
    dt, limits = robot.period_ns * 1e-9, robot.limits

    def share(order: int, limit: Floats) -> float:
        return float((np.abs(np.diff(positions, order, axis=0)) / dt**order / limit).max())

    travelled = float(np.abs(np.diff(positions, axis=0)).sum())
    return Peaks(share(1, limits.velocity), share(2, limits.acceleration), share(3, limits.jerk), travelled)
