# SPDX-License-Identifier: Apache-2.0
"""The last stage before the arms: position, velocity, acceleration and jerk of every joint.

The limiter holds the state that was sent last and moves it towards a reference, tick by tick.
Two things are always true of that state: it is inside all bounds, and the arm can stop from it
inside all bounds. A reference sample that keeps both is sent unchanged. Otherwise `ruckig` plans,
joint by joint, to meet the reference's full state at the tick at which least is lost on the way;
where it can't be met, to the reference's next state. Community ruckig ignores position bounds and
rejects target velocities above the limit, so the bounds, the stopping distance and the targets
that ruckig is given are decided here.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from ruckig import InputParameter, Result, Ruckig, RuckigError, Trajectory

from imagewam_ros.control.braking import Motion, plan_stop, stop_at, stop_end, stop_extent
from imagewam_ros.core.embodiment import Limits
from imagewam_ros.core.schema import Floats

MARGIN = 1e-3
"""Share of velocity, acceleration and jerk kept back, so that rounding never shows in the log."""

ROUNDING = 1e-10
"""Positions are compared with bounds to within this, rad or m."""

STILL = 1e-6
"""An arm rests when velocity and acceleration are below this share of their limits."""

LONGEST_PLAN_S = 1.5
"""A reference that can't be met within this time is followed without a plan to meet it."""

RETRY_S = 0.05
"""Time until the search for a meeting point is repeated after it failed."""

GROWTH = 1.3
"""Ratio of the times at which meeting the reference is tried."""

PATIENCE = 3
"""Later meetings that may lose more than the best before the search ends."""

LOSS_SAMPLES = 8
"""Points at which a plan is compared with the reference."""

SOONEST = 0.3
"""Share of the time to one state of the reference before which meeting a later one is not tried."""

# Bernstein coefficients of the jerk of the quintic that joins two states, from the deviations of
# position, velocity and acceleration at its end from motion with constant acceleration, over dt.
JERK = np.array([[60.0, -24.0, 3.0], [-120.0, 60.0, -9.0], [60.0, -36.0, 9.0]])

Flags = NDArray[np.bool_]

Reference = Callable[[int], Motion]
"""State of the reference a number of periods after the last sent sample."""


class Limiter:
    """Keep sent states inside `limits`; see the module's text.

    `period_s` is the control period. `state` is what was sent last. `limited` (joints,) says which
    joints differed in the last step from the reference clamped to the bounds, `braked` which of
    them had to brake for a position bound.
    """

    def __init__(self, limits: Limits, period_s: float) -> None:
        keep = 1 - MARGIN
        self.lower, self.upper = np.array(limits.lower), np.array(limits.upper)
        self.velocity, self.acceleration = limits.velocity * keep, limits.acceleration * keep
        self.jerk = limits.jerk * keep
        self.period_s = period_s
        joints = self.lower.size
        self.reset(np.zeros(joints))
        self._planners = [
            _Planner(v, a, j) for v, a, j in zip(self.velocity, self.acceleration, self.jerk, strict=True)
        ]

    def reset(self, position: Floats) -> None:
        """Start at rest at `position`, which the caller has checked to be inside the bounds."""
        rest = np.zeros(self.lower.size)
        self.state = Motion(np.array(position, dtype=np.float64), rest, rest)
        self.limited = np.zeros(self.lower.size, dtype=np.bool_)
        self.braked = self.limited
        self._plans: dict[int, _Plan] = {}

    def drop_plans(self) -> None:
        """Forget where the reference was to be met, because the reference has changed."""
        self._plans.clear()

    def step(self, reference: Reference, periods: int = 1) -> Motion:
        """Advance `periods` control periods towards `reference` and return the state to send."""
        return self.commit(self.propose(reference, periods))

    def propose(self, reference: Reference, periods: int = 1) -> Motion:
        """Return the state to send next; `commit` or `brake` must follow."""
        target = self.clamped(reference(periods))
        dt = periods * self.period_s
        stoppable = self._stoppable(target)
        admissible = stoppable & self._reachable(target, dt)
        if admissible.all():
            self._plans.clear()
            self.limited = self.braked = ~admissible
            return Motion(*(np.array(part) for part in target))
        p, v, a = (np.array(part) for part in target)
        view = _View(self, reference)
        view.know(periods, target, stoppable)
        for joint in np.flatnonzero(~admissible):
            p[joint], v[joint], a[joint] = self._chase(int(joint), view, periods)
        wanted = Motion(p, v, a)
        unsafe = ~admissible & ~self._stoppable(wanted)
        if unsafe.any():
            brake = self._brake(dt)
            wanted = Motion(*(np.where(unsafe, b, w) for b, w in zip(brake, wanted, strict=True)))
        for joint in np.flatnonzero(admissible | unsafe):
            self._plans.pop(int(joint), None)
        self.limited, self.braked = ~admissible, unsafe
        return wanted

    def commit(self, proposed: Motion) -> Motion:
        """Send what was proposed."""
        self.state = proposed
        return proposed

    def brake(self, periods: int = 1) -> Motion:
        """Advance `periods` control periods along the shortest stop."""
        self._plans.clear()
        self.state = self._brake(periods * self.period_s)
        self.limited = self.braked = np.abs(self.state.velocity) > 0
        return self.state

    @property
    def at_rest(self) -> bool:
        """True when the sent state has no velocity and no acceleration worth the name."""
        _, v, a = self.state
        return bool((np.abs(v) <= STILL * self.velocity).all() and (np.abs(a) <= STILL * self.acceleration).all())

    def _brake(self, dt: float) -> Motion:
        stopped = stop_at(plan_stop(self.state, self.acceleration, self.jerk), dt)
        return Motion(np.clip(stopped.position, self.lower, self.upper), stopped.velocity, stopped.acceleration)

    def _reachable(self, target: Motion, dt: float) -> Flags:
        """(joints,) True where a path to `target` in `dt` keeps the bounds on all rates."""
        p0, v0, a0 = self.state
        p1, v1, a1 = target
        deviations = np.stack([p1 - p0 - dt * (v0 + dt * a0 / 2), dt * (v1 - v0 - dt * a0), dt * dt * (a1 - a0)])
        jerks = np.abs(JERK @ deviations)  # (3, joints) times dt^3
        swing = jerks.max(axis=0)
        # Between the ticks acceleration stays within a third of dt times jerk of its ends.
        peak = np.maximum(np.abs(a0), np.abs(a1)) + swing / (3 * dt * dt)
        inside: Flags = (swing <= self.jerk * dt**3) & (peak <= self.acceleration)
        inside &= np.abs(p1 - p0) <= self.velocity * dt
        return inside

    def _stoppable(self, state: Motion) -> Flags:
        """(joints,) True where the shortest stop from `state` stays inside all bounds."""
        p, v, a = state
        ramp = np.abs(a) / self.jerk
        inside = (np.abs(v + a * ramp / 2) <= self.velocity) & (np.abs(v) <= self.velocity)
        inside &= np.abs(a) <= self.acceleration
        # An upper bound of the stopping distance decides nearly always.
        fastest = np.abs(v) + np.abs(a) * ramp / 2
        far = fastest * (ramp + (fastest / self.acceleration + self.acceleration / self.jerk) / 2)
        near = (p - far < self.lower) | (p + far > self.upper)
        if not near.any():
            return inside
        low, high = stop_extent(plan_stop(state, self.acceleration, self.jerk))
        return inside & (low >= self.lower - ROUNDING) & (high <= self.upper + ROUNDING)

    def _chase(self, joint: int, view: "_View", periods: int) -> tuple[float, float, float]:
        """State of one joint after `periods` on the way to the reference."""
        plan = self._plans.get(joint)
        if plan is None or plan.used + periods > plan.length:
            plan = self._meet(joint, view, periods)
            self._plans[joint] = plan
        plan.used += periods
        if plan.trajectory is not None:
            return _sample(plan.trajectory, plan.used * self.period_s)
        target = view.aim(periods, joint)
        trajectory = self._planners[joint].plan(_of(self.state, joint), target)
        if trajectory is None:
            brake = self._brake(periods * self.period_s)
            return brake.position[joint], brake.velocity[joint], brake.acceleration[joint]
        if target[1:] == (0.0, 0.0) and trajectory.duration <= periods * self.period_s:
            return target  # rest is reached exactly, without rounding
        return _sample(trajectory, periods * self.period_s)

    def _meet(self, joint: int, view: "_View", periods: int) -> "_Plan":
        """Plan to the tick of meeting the reference that loses least on the way, or to none."""
        planner, now = self._planners[joint], _of(self.state, joint)
        best, least, worse, ticks = _Plan(None, max(round(RETRY_S / self.period_s), periods)), np.inf, 0, periods
        while ticks * self.period_s <= LONGEST_PLAN_S and worse < PATIENCE:
            wanted, later = view.state(ticks, joint), int(np.ceil(ticks * GROWTH))
            fastest = planner.plan(now, wanted) if wanted is not None else None
            if wanted is not None and fastest is not None:
                duration_s = ticks * self.period_s
                if fastest.duration <= duration_s:
                    exact = planner.plan(now, wanted, duration_s)
                    if exact is not None and self._inside(joint, exact, duration_s):
                        loss = self._loss(joint, view, exact, ticks)
                        best, least, worse = (
                            (_Plan(exact, ticks), loss, 0) if loss < least else (best, least, worse + 1)
                        )
                # The way to a later state may be shorter: go on in small steps, but not in vain.
                needed = fastest.duration / self.period_s
                later = max(min(later, int(np.ceil(needed))), int(SOONEST * needed)) if needed > ticks else later
            ticks = max(later, ticks + 1)
        return best

    def _loss(self, joint: int, view: "_View", trajectory: Trajectory, ticks: int) -> float:
        """Integral of the squared distance to the reference until it is met."""
        # Dense at first, where plans differ most from the reference.
        at = sorted({int(np.ceil(ticks * (i / LOSS_SAMPLES) ** 2)) for i in range(1, LOSS_SAMPLES + 1)})
        errors = [trajectory.at_time(tick * self.period_s)[0][0] - view.position(tick, joint) for tick in at]
        return float(np.dot(np.square(errors), np.diff([0, *at])))

    def _inside(self, joint: int, trajectory: Trajectory, duration_s: float) -> bool:
        extrema = trajectory.position_extrema[0]
        return bool(
            abs(trajectory.duration - duration_s) < 1e-9
            and extrema.min >= self.lower[joint] - ROUNDING
            and extrema.max <= self.upper[joint] + ROUNDING
        )

    def clamped(self, state: Motion) -> Motion:
        """`state`, at rest on the bound where it lies outside: a path that leaves the bounds ends there."""
        p, v, a = state
        outside = (p < self.lower) | (p > self.upper)
        if not outside.any():
            return state
        return Motion(np.clip(p, self.lower, self.upper), np.where(outside, 0.0, v), np.where(outside, 0.0, a))

    def aimable(self, state: Motion, stoppable: "Flags | None" = None) -> Flags:
        """(joints,) True where `state` can be stopped from and reached inside the velocity limit."""
        _, v, a = state
        below: Flags = np.abs(v) + a * a / (2 * self.jerk) <= self.velocity
        return below & (self._stoppable(state) if stoppable is None else stoppable)

    def bounded(self, state: Motion, aimable: Flags) -> Motion:
        """The nearest thing to `state` that can be aimed at: less velocity, else rest inside the bounds."""
        if aimable.all():
            return state
        p, v, a = state
        slow = Motion(p, np.clip(v, -self.velocity, self.velocity), np.zeros(v.size))
        end = np.clip(stop_end(plan_stop(slow, self.acceleration, self.jerk)), self.lower, self.upper)
        part = self.aimable(slow)
        return Motion(
            np.where(aimable | part, p, end),
            np.where(aimable, v, np.where(part, slow.velocity, 0.0)),
            np.where(aimable, a, 0.0),
        )


class _View:
    """The reference during one step, each of its states judged once for all joints."""

    def __init__(self, limiter: Limiter, reference: Reference) -> None:
        self._limiter, self._reference = limiter, reference
        self._states: dict[int, tuple[Motion, Flags]] = {}
        self._aims: dict[int, Motion] = {}

    def know(self, ticks: int, state: Motion, stoppable: Flags) -> None:
        """Take over what was already found out about the state after `ticks`."""
        self._states[ticks] = (state, self._limiter.aimable(state, stoppable))

    def state(self, ticks: int, joint: int) -> "tuple[float, float, float] | None":
        """State of `joint` after `ticks`, None where it can't be aimed at."""
        motion, aimable = self._judged(ticks)
        return _of(motion, joint) if aimable[joint] else None

    def position(self, ticks: int, joint: int) -> float:
        """Position of `joint` after `ticks`."""
        return float(self._judged(ticks)[0].position[joint])

    def aim(self, ticks: int, joint: int) -> tuple[float, float, float]:
        """State of `joint` after `ticks`, made fit to be aimed at."""
        if ticks not in self._aims:
            self._aims[ticks] = self._limiter.bounded(*self._judged(ticks))
        return _of(self._aims[ticks], joint)

    def _judged(self, ticks: int) -> tuple[Motion, Flags]:
        if ticks not in self._states:
            motion = self._limiter.clamped(self._reference(ticks))
            self._states[ticks] = (motion, self._limiter.aimable(motion))
        return self._states[ticks]


def _of(motion: Motion, joint: int) -> tuple[float, float, float]:
    return float(motion.position[joint]), float(motion.velocity[joint]), float(motion.acceleration[joint])


class _Plan:
    """A way to meet the reference after `length` periods, or none until they have passed."""

    def __init__(self, trajectory: "Trajectory | None", length: int) -> None:
        self.trajectory, self.length, self.used = trajectory, length, 0


class _Planner:
    """Ruckig for one joint."""

    def __init__(self, velocity: float, acceleration: float, jerk: float) -> None:
        self._ruckig, self._input = Ruckig(1), InputParameter(1)
        self._input.max_velocity = [velocity]
        self._input.max_acceleration = [acceleration]
        self._input.max_jerk = [jerk]

    def plan(
        self, now: tuple[float, float, float], target: tuple[float, float, float], duration_s: "float | None" = None
    ) -> "Trajectory | None":
        """Fastest way from `now` to `target`, or one that takes `duration_s`; None where ruckig finds none."""
        given, trajectory = self._input, Trajectory(1)
        given.current_position, given.current_velocity, given.current_acceleration = ([x] for x in now)
        given.target_position, given.target_velocity, given.target_acceleration = ([x] for x in target)
        given.minimum_duration = duration_s
        try:
            done = self._ruckig.calculate(given, trajectory)
        except RuckigError:  # a state that ruckig calls invalid by rounding; the caller brakes
            return None
        return trajectory if done in (Result.Working, Result.Finished) else None


def _sample(trajectory: Trajectory, time_s: float) -> tuple[float, float, float]:
    p, v, a = trajectory.at_time(time_s)
    return p[0], v[0], a[0]
