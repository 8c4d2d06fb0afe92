# SPDX-License-Identifier: Apache-2.0
"""Where the tools and links may be and how fast: Cartesian speed, workspace box, self-collision.

The guard works twice. When a chunk is merged, it stretches the rows in time where the tools would
be too fast or links come near each other, and cuts them where they would come too near or leave the
box. At every tick it looks at where the arms would rest if they braked from the next sample; a
sample whose stop is not allowed is not sent, the arms brake instead. Software like this is not a
safety function: obstacles that are not in the URDF are not seen.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from imagewam_ros.control.braking import Motion, plan_stop, stop_end
from imagewam_ros.control.separation import Separation
from imagewam_ros.control.timeline import Rows, Times
from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.schema import Floats
from imagewam_ros.kinematics.chains import Chains
from imagewam_ros.kinematics.clearance import Clearance

PLANNED_SHARE = 0.8
"""Share of the speed cap that rows are stretched to; the curve between them may be faster."""

SAMPLES = 200
"""Poses in which it is looked how far links come apart, and how long looking takes."""

CHUNK_ROWS = 16
TICK_SHARE, CHUNK_PERIODS = 0.4, 3.0
"""Of the control period: what the guard may take of each tick, and once for a chunk of CHUNK_ROWS rows."""


@dataclass(frozen=True)
class GuardConfig:
    """Bounds in the URDF's root frame; 0 or an empty box turns a bound off.

    speed_cap: tool speed in m/s; 0.25 is the reduced speed of ISO 10218-1 for work beside people.
    slow_distance and stop_distance: clearance in m between links that may meet. box: lowest and
    highest x, y, z of both tools in m.
    """

    speed_cap: float = 0.25
    slow_distance: float = 0.06
    stop_distance: float = 0.02
    box: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.speed_cap < 0 or self.stop_distance < 0 or self.slow_distance < self.stop_distance:
            raise ConfigError(
                f"speed_cap {self.speed_cap} and stop_distance {self.stop_distance} must not be negative, "
                f"slow_distance {self.slow_distance} not below stop_distance"
            )
        if self.box and (len(self.box) != 6 or any(a >= b for a, b in zip(self.box[:3], self.box[3:], strict=True))):
            raise ConfigError(f"box must be x, y, z lowest then highest, found {self.box}")


class Guard:
    """Watch both arms of `embodiment`, whose links are those of `urdf`."""

    def __init__(self, embodiment: Embodiment, urdf: str, config: "GuardConfig | None" = None) -> None:
        self.config = config = config or GuardConfig()
        self._robot, keep = embodiment, embodiment.limits
        self._chains = Chains(urdf, embodiment)
        self._poses = np.random.default_rng(0).uniform(keep.lower, keep.upper, (SAMPLES, keep.lower.size))
        self._separation: Separation | None = None
        if config.stop_distance:
            clearance = Clearance(urdf, self._chains)
            self._separation = Separation(clearance, self._poses, config.stop_distance, config.slow_distance)
        self._acceleration, self._jerk = keep.acceleration, keep.jerk
        self._arms = {arm.side: embodiment.arm_slice(arm.side) for arm in embodiment.arms}

    def shape(self, start: Floats, start_ns: int, rows: dict[str, Rows]) -> dict[str, Rows]:
        """Stretch and cut the rows of both arms alike; `start` (joints,) is where the reference is."""
        times: Times = np.unique(np.concatenate([r.times_ns for r in rows.values()]))
        if not times.size:
            return rows
        poses = np.tile(start, (times.size, 1))
        for side, part in rows.items():
            if part.times_ns.size:
                poses[:, self._arms[side]] = part.at(times)
        every = np.vstack([start, poses])
        near = self._separation.distances(every) if self._separation is not None else None
        good = self._good(every, near)
        every[good + 1 :] = every[good]
        if near is not None:
            near[good + 1 :] = near[good]
        spans_ns = self._spans(np.diff(np.concatenate([[start_ns], times])), every, near)
        stretched = start_ns + np.cumsum(spans_ns).astype(np.int64)

        def reshaped(side: str, part: Rows) -> Rows:
            index = np.searchsorted(times, part.times_ns)
            held = np.where((index < good)[:, None], part.positions, every[good][self._arms[side]])
            return Rows(stretched[index], held)

        return {side: reshaped(side, part) for side, part in rows.items()}

    def _good(self, poses: Floats, near: "Floats | None") -> int:
        """Index of the last pose before the first that is not allowed; the first pose is where we are."""
        good = len(poses) - 1 if self._separation is None or near is None else self._separation.allowed(near)
        if self.config.box:
            out = np.array([self._outside(pose) for pose in poses])
            bad = (out > 0) & (out > out[0])
            good = min(good, int(bad.argmax()) - 1) if bad.any() else good
        return good

    def _spans(self, spans_ns: Times, poses: Floats, near: "Floats | None") -> Floats:
        """(poses - 1,) times between poses, long enough for the speed cap and slow where links approach."""
        longer = np.ones(spans_ns.size)
        if self.config.speed_cap:
            tools = np.array([self._tools(pose) for pose in poses])  # (poses, 2, 3)
            path_m = np.linalg.norm(np.diff(tools, axis=0), axis=2).max(axis=1)
            longer = np.maximum(longer, path_m / (PLANNED_SHARE * self.config.speed_cap * spans_ns * 1e-9))
        if self._separation is not None and near is not None:
            longer = np.maximum(longer, 1 / self._separation.shares(near))
        return spans_ns * longer

    def veto(self, present: Motion, wanted: Motion) -> str:
        """Why `wanted` must not follow `present`, empty when it may.

        Where the present is already out of bounds, what does not make it worse is allowed.
        """
        if self.config.speed_cap:
            speed = max(self._speed(wanted.position, v) for v in (wanted.velocity, self._soon(wanted)))
            if speed > self.config.speed_cap and speed > self._speed(present.position, self._soon(present)):
                return f"a tool would move at {speed:.3f} m/s (cap {self.config.speed_cap} m/s)"
        rest, before = self._rest(wanted), self._rest(present)
        if self.config.box and (out := self._outside(rest)) > 0 and out > self._outside(before):
            return f"a tool would stop {out * 1e3:.0f} mm outside the workspace box"
        return self._separation.veto(rest, before) if self._separation is not None else ""

    def check_cost(self) -> str:
        """Measure what the guard takes and return that in words. Raises ConfigError where the rate can't be kept.

        Processor time is measured, so that other processes say nothing about this one, in poses that the guard allows.
        """
        poses = self._poses
        if self._separation is not None:
            clear = (self._separation.distances(poses) >= self.config.stop_distance).all(axis=1)
            poses = poses[clear] if clear.sum() > 2 * CHUNK_ROWS else poses
        still = np.zeros(poses.shape[1])
        motions = [Motion(pose, still, still) for pose in poses]
        tick_s = _typical_s(self.veto, pairwise(motions))
        times: Times = self._robot.period_ns * (1 + np.arange(CHUNK_ROWS))
        chunks = poses[: len(poses) // CHUNK_ROWS * CHUNK_ROWS].reshape(-1, CHUNK_ROWS, still.size)
        parts = ({side: Rows(times, rows[:, part]) for side, part in self._arms.items()} for rows in chunks)
        chunk_s = _typical_s(self.shape, ((rows[0], 0, part) for rows, part in zip(chunks, parts, strict=True)))
        period_s = self._robot.period_ns * 1e-9
        told = f"the guard takes {tick_s * 1e3:.2f} ms a tick and {chunk_s * 1e3:.1f} ms a chunk"
        tick_most_s, chunk_most_s = TICK_SHARE * period_s, CHUNK_PERIODS * period_s
        if tick_s > tick_most_s or chunk_s > chunk_most_s:
            raise ConfigError(
                f"{told}; robot {self._robot.name!r} at {self._robot.control_rate_hz:g} Hz leaves it "
                f"{tick_most_s * 1e3:.2f} and {chunk_most_s * 1e3:.1f} ms. Give the URDF simpler collision shapes, "
                f"lower control_rate_hz, or set guard.stop_distance to 0, which leaves distances unwatched"
            )
        pairs = ", ".join(" and ".join(pair) for pair in self.unwatched)
        return told + (f"; near each other in every pose, so not watched: {pairs}" if pairs else "")

    @property
    def unwatched(self) -> tuple[tuple[str, str], ...]:
        """Pairs of links whose distance is not judged because they are near each other in every pose."""
        return self._separation.unwatched if self._separation is not None else ()

    def _rest(self, motion: Motion) -> Floats:
        return stop_end(plan_stop(motion, self._acceleration, self._jerk))

    def _soon(self, motion: Motion) -> Floats:
        """Velocity after the acceleration was brought to zero."""
        _, v, a = motion
        return v + a * np.abs(a) / (2 * self._jerk)

    def _speed(self, position: Floats, velocity: Floats) -> float:
        """Speed of the faster tool, m/s."""
        jacobians = {side: self._chains.jacobian(side, position)[:3] for side in self._arms}
        return max(
            float(np.linalg.norm(jacobian @ velocity[part.start : part.stop - 1]))
            for (side, part), jacobian in zip(self._arms.items(), jacobians.values(), strict=True)
        )

    def _tools(self, position: Floats) -> Floats:
        """(2, 3) tool positions, m."""
        return np.array([pose[:3, 3] for pose in self._chains.forward(position).values()])

    def _outside(self, position: Floats) -> float:
        """How far a tool is outside the box, m; 0 inside."""
        box = np.reshape(self.config.box, (2, 3))
        tools = self._tools(position)
        return float(np.maximum(box[0] - tools, tools - box[1]).max(initial=0.0))


def _typical_s(call: Callable[..., object], arguments: Iterable[tuple[object, ...]]) -> float:
    """Median of the processor times that `call` takes; the first one warms up."""
    took_s = []
    for given in arguments:
        began_s = time.thread_time()
        call(*given)
        took_s.append(time.thread_time() - began_s)
    return float(np.median(took_s))
