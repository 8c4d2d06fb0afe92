# SPDX-License-Identifier: Apache-2.0
"""The path of every tick: grid of nominal times, reference, guard, limiter, and what was sent.

It knows no states and no commanders: the executor says when to follow the reference, when to stop
and when to brake.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from imagewam_ros.control.braking import STOP_SHARE, Motion
from imagewam_ros.control.grid import Advance, Grid
from imagewam_ros.control.ledger import Ledger, Travel
from imagewam_ros.control.limiter import Limiter
from imagewam_ros.control.reference import Reference
from imagewam_ros.control.report import Counters
from imagewam_ros.control.timeline import MergeConfig
from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.schema import ActionChunk, Command, Floats, Source

if TYPE_CHECKING:  # pinocchio is loaded only where a guard is wanted
    from imagewam_ros.control.guard import Guard

CATCH_UP_S = 0.01
GLIDE_ROWS = 16
GLIDE_S, GLIDE_SHARE = 1.0, 0.1
"""A glide takes at least so long, and goes at this share of the velocity limits on average."""


@dataclass(frozen=True)
class MotionConfig(MergeConfig):
    """Parameters of curve and grid; those of merging are inherited.

    smoothing_hz: cut-off of the curve through the rows. stop_share: share of the limits that soft
    stops use. late_limit_s: a tick later than this is a jump of time, answered by a soft stop.
    catch_up_s: how much of a late tick one command may make up for, which is a step to a controller
    that waited; what is left out delays the motion until the next chunk. 0 is 10 ms for such
    controllers, and late_limit_s for trajectory controllers, which go on by themselves. Two periods
    are always made up.
    """

    smoothing_hz: float = 4.0
    stop_share: float = STOP_SHARE
    late_limit_s: float = 0.1
    catch_up_s: float = 0.0

    def __post_init__(self) -> None:
        MergeConfig.__post_init__(self)
        for name in ("smoothing_hz", "late_limit_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be positive, found {getattr(self, name)}")
        if self.catch_up_s < 0:
            raise ConfigError(f"catch_up_s must not be negative, found {self.catch_up_s}; 0 suits the output")
        if not 0 < self.stop_share <= 1:
            raise ConfigError(f"stop_share must be in (0, 1], found {self.stop_share}")


class Mover:
    """Both arms from one tick to the next; `command` is what was sent last."""

    def __init__(self, robot: Embodiment, config: MotionConfig, guard: "Guard | None") -> None:
        self._robot, self._config, self._guard = robot, config, guard
        self._limiter = Limiter(robot.limits, robot.period_ns * 1e-9)
        self._slices = {arm.side: robot.arm_slice(arm.side) for arm in robot.arms}
        self.clear(np.zeros(len(robot.joints)), 0)

    def clear(self, position: Floats, now_ns: int) -> None:
        """Forget everything and rest at `position` (joints,), which is inside the bounds; ticks count from here."""
        config, robot = self._config, self._robot
        self.grid = Grid(now_ns, robot.period_ns, config.late_limit_s, config.catch_up_s or CATCH_UP_S)
        self.counters = Counters()
        self._covered_until_ns = now_ns - 1
        self._reference = Reference(robot, config, config.smoothing_hz, config.stop_share, self._guard)
        self._ledgers = {arm.side: Ledger((arm.gripper.lower + arm.gripper.upper) / 2) for arm in robot.arms}
        self._limiter.reset(position)
        self._reference.rest(position, now_ns)
        self.command = self._make_command()

    # --- what the reference is ---

    def take(self, chunk: ActionChunk, positions: Floats, sides: Iterable[str], fresh: set[str], now_ns: int) -> None:
        """Merge the chunk's clamped `positions` for `sides`; rows of other commanders are dropped on `fresh`."""
        for side, rows in self._reference.merge(chunk, positions, sides, fresh, now_ns).items():
            self._ledgers[side].chunk(rows, now_ns)
        self._refit()
        self._covered_until_ns = max(self._covered_until_ns, chunk.due_ns(chunk.rows - 1))

    def stop(self, sides: Collection[str]) -> None:
        """Let `sides` brake softly and forget their rows."""
        self._covered_until_ns = self.grid.nominal_ns - 1
        self._reference.stop(sides, self.grid.nominal_ns)
        self._limiter.drop_plans()
        for side in sides:
            self._ledgers[side].stopped(self.grid.nominal_ns)

    def rest(self) -> None:
        """Make the reference rest where the arms are, which must be at rest."""
        self._reference.rest(self._limiter.state.position, self.grid.nominal_ns)

    def glide(self, target: Floats) -> None:
        """Go slowly from rest to `target` (joints,), which is inside the bounds."""
        start, robot = self.command.position, self._robot
        time_s = max(float((np.abs(target - start) / robot.limits.velocity).max()) / GLIDE_SHARE, GLIDE_S)
        share = np.linspace(0.0, 1.0, GLIDE_ROWS + 1)[1:, None]
        rows = start + (target - start) * share**3 * (10 - 15 * share + 6 * share**2)
        now_ns, period_ns = self.grid.nominal_ns, round(time_s * 1e9 / GLIDE_ROWS)
        chunk = ActionChunk(now_ns, period_ns, robot.joint_names, rows, source=Source.TAKEOVER)
        self._reference.merge(chunk, rows, self.sides, set(self.sides), now_ns)
        self._refit()

    def shift(self, by_ns: int) -> None:
        """Move the reference in time, because the clock was moved."""
        self._reference.shift(by_ns)
        self._covered_until_ns += by_ns

    def reference(self, ahead: int = 0) -> Motion:
        """Reference of all joints `ahead` periods after the present nominal time."""
        return self._reference.at(self.grid.nominal_ns + ahead * self._robot.period_ns)

    @property
    def sides(self) -> tuple[str, ...]:
        """Names of the arms."""
        return self._reference.sides

    @property
    def done(self) -> bool:
        """True when the last row of both arms is past."""
        return self.grid.nominal_ns > self._reference.last_row_ns

    @property
    def going(self) -> bool:
        """True while rows of either arm are still to come."""
        return self._reference.last_row_ns > self.grid.nominal_ns

    @property
    def covered(self) -> bool:
        """True while an accepted chunk says what to do now."""
        return self.grid.nominal_ns <= self._covered_until_ns

    # --- ticks ---

    def advance(self, due: Advance, now_ns: int) -> None:
        """Move to the tick that the grid found due at `now_ns`; what is left out delays the reference."""
        self._reference.shift(due.left_out_ns)
        self.grid.move(due, now_ns)
        self.counters.late_ticks += due.periods > 1

    def move(self, periods: int, braking: bool) -> str:
        """Make the command of this tick. Returns why the guard made the arms brake, else an empty text.

        `braking` takes the shortest stop whatever the reference says.
        """
        if self._reference.wants_refit(self.grid.nominal_ns):
            self._refit()
        veto = "" if braking else self._follow(periods)
        if braking or veto:
            self._reference.stop_from(self._limiter.brake(periods), self.grid.nominal_ns)
        if veto:
            self.counters.guarded_ticks += 1
            self._covered_until_ns = self.grid.nominal_ns - 1
            for ledger in self._ledgers.values():
                ledger.stopped(self.grid.nominal_ns)
        self.command = self._make_command()
        self.counters.limited_ticks += bool(self._limiter.limited.any())
        self.counters.braked_ticks += bool(self._limiter.braked.any())
        for side, part in self._slices.items():
            self._ledgers[side].sent(self.command.position[part])
        return veto

    @property
    def at_rest(self) -> bool:
        """True when the arms have been sent to rest."""
        return self._limiter.at_rest

    @property
    def travel(self) -> dict[str, Travel]:
        """Travel ledger by arm."""
        return {side: ledger.travel for side, ledger in self._ledgers.items()}

    def _follow(self, periods: int) -> str:
        wanted = self._limiter.propose(lambda ahead: self.reference(ahead - periods), periods)
        veto = self._guard.veto(self._limiter.state, wanted) if self._guard is not None else ""
        if not veto:
            self._limiter.commit(wanted)
        return veto

    def _refit(self) -> None:
        self._reference.fit(self.grid.nominal_ns)
        self._limiter.drop_plans()

    def _make_command(self) -> Command:
        state, robot = self._limiter.state, self._robot
        return Command(self.grid.tick, self.grid.nominal_ns, robot.period_ns, robot.joint_names, *state)
