# SPDX-License-Identifier: Apache-2.0
"""Chunks in, one command per control period out: the state machine around curve and limiter.

The executor is deterministic: time is an argument, nothing sleeps, nothing is read from outside.
It keeps its own grid of nominal times, nominal = epoch + tick * period, in the clock of the
observations' stamps. Every call of `step` that reaches the next nominal time makes one command;
a late call skips whole periods and is limited as that many. When time jumps, in either direction,
the grid is laid anew and the arms brake.
"""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from imagewam_ros.control.acceptance import ACCEPTED, AcceptanceConfig, Gate, Verdict
from imagewam_ros.control.arbiter import Arbiter
from imagewam_ros.control.braking import Motion
from imagewam_ros.control.grid import Grid
from imagewam_ros.control.ledger import Ledger
from imagewam_ros.control.limiter import Limiter
from imagewam_ros.control.reference import Reference
from imagewam_ros.control.report import OBEYING, Counters, State, Status, Step, Transition
from imagewam_ros.control.timeline import FINEST_NS, MergeConfig
from imagewam_ros.control.watchdog import Response, Watchdog, WatchdogConfig
from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import ConfigError, EmbodimentMismatch, ImageWamError, LimitViolation
from imagewam_ros.core.schema import ActionChunk, Command, Floats, JointState, Source

if TYPE_CHECKING:  # pinocchio is loaded only where a guard is wanted
    from imagewam_ros.control.guard import Guard

__all__ = ["Executor", "ExecutorConfig", "State", "Status", "Step", "Transition", "Verdict"]


@dataclass(frozen=True)
class ExecutorConfig(MergeConfig, AcceptanceConfig, WatchdogConfig):
    """All parameters of the executor; those of merging, acceptance and watchdogs are inherited.

    smoothing_hz: cut-off of the curve through the rows. stop_share: share of the limits that soft
    stops use. late_limit_s: a tick later than this is a jump of time, answered by a soft stop.
    commander_timeout_s: how long a commander that sends nothing keeps out those of lower priority.
    takeover_match_s: a human's first row may be so many seconds of full speed from the arm.
    """

    smoothing_hz: float = 4.0
    stop_share: float = 0.7
    late_limit_s: float = 0.1
    commander_timeout_s: float = 0.5
    takeover_match_s: float = 0.1

    def __post_init__(self) -> None:
        MergeConfig.__post_init__(self)
        AcceptanceConfig.__post_init__(self)
        WatchdogConfig.__post_init__(self)
        for name in ("smoothing_hz", "late_limit_s", "commander_timeout_s", "takeover_match_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be positive, found {getattr(self, name)}")
        if not 0 < self.stop_share <= 1:
            raise ConfigError(f"stop_share must be in (0, 1], found {self.stop_share}")


class Executor:
    """Turn accepted chunks into limited commands; see the module's text."""

    def __init__(
        self, embodiment: Embodiment, config: "ExecutorConfig | None" = None, guard: "Guard | None" = None
    ) -> None:
        self.embodiment, self.config = embodiment, config or ExecutorConfig()
        self.transitions: list[Transition] = []
        self._state, self._reason = State.UNCONFIGURED, ""
        self._fault = ""
        self._guard = guard
        self._gate = Gate(embodiment, self.config)
        self._limiter = Limiter(embodiment.limits, embodiment.period_ns * 1e-9)
        self._slices = {arm.side: embodiment.arm_slice(arm.side) for arm in embodiment.arms}
        self._watchdog = Watchdog(self.config, ~embodiment.gripper_mask)
        self._clear(0)
        self._go(State.INACTIVE, "configure", f"configured for robot {embodiment.name!r}")

    def _clear(self, now_ns: int) -> None:
        """Forget everything that belongs to one activation."""
        config, robot = self.config, self.embodiment
        self._grid = Grid(now_ns, robot.period_ns, config.late_limit_s)
        self._latched = self._stopping = False
        self._covered_until_ns = now_ns - 1
        self._counters = Counters()
        self._arbiter = Arbiter(config.contract_hash, config.commander_timeout_s, now_ns - ACTIVATION_GRACE_NS)
        self._reference = Reference(robot, config, config.smoothing_hz, config.stop_share, self._guard)
        self._ledgers = {a.side: Ledger((a.gripper.lower + a.gripper.upper) / 2) for a in self.embodiment.arms}
        self._watchdog.forget()

    # --- transitions asked for from outside ---

    def activate(self, now_ns: int, joint_state: JointState) -> None:
        """Hold where the arms are. Raises ImageWamError, EmbodimentMismatch, LimitViolation."""
        if self._state is not State.INACTIVE:
            raise ImageWamError(f"executor is {self._state.value}; only an inactive executor can be activated")
        if self._fault:
            raise ImageWamError(f"the fault was not reset: {self._fault}; remove its cause and reset it")
        start = self._start(self._measured(joint_state))
        self._clear(now_ns)
        self._limiter.reset(start)
        self._reference.rest(start, now_ns)
        self._command = self._make_command()
        self._go(State.HOLDING, "activate", "activated; waiting for a chunk")

    def deactivate(self, now_ns: int) -> None:
        """Stop softly; `step` goes on until the arms rest, then the state is inactive."""
        if self._state in (State.UNCONFIGURED, State.INACTIVE):
            return
        self._stop()
        self._stopping = True
        if self._limiter.at_rest:
            self._go(State.INACTIVE, "deactivate", "deactivated at rest")
        elif self._state is not State.FAULTED:
            self._go(State.HOLDING, "deactivate", "deactivating; stopping the arms")

    def hold(self, reason: str) -> None:
        """Stop softly and refuse chunks until `resume`."""
        if self._state in OBEYING and not self._latched:
            self._stop()
            self._latched = True
            self._go(State.HOLDING, "hold", reason)

    def resume(self) -> None:
        """Accept chunks again after `hold`."""
        if self._state is State.HOLDING and self._latched and not self._stopping:
            self._latched = False
            self._go(State.HOLDING, "resume", "resumed; waiting for a chunk")

    def fault(self, reason: str) -> None:
        """Brake both arms at once and stay until `reset_fault`."""
        if self._state in OBEYING:
            self._stop()
            self._fault = reason
            self._go(State.FAULTED, "fault", reason)

    def reset_fault(self) -> None:
        """Leave the fault. Raises ImageWamError while the arms still brake."""
        if self._state is State.FAULTED:
            if not self._limiter.at_rest:
                raise ImageWamError("the arms are still braking; reset the fault once they rest")
            self._reference.rest(self._limiter.state.position, self._grid.nominal_ns)
            self._latched = False
            self._watchdog.forget()
            self._go(State.HOLDING, "reset_fault", "fault reset; waiting for a chunk")
        self._fault = ""

    def take_over(self, sides: tuple[str, ...], keep_policy: bool = True) -> None:
        """A human takes `sides`: they stop softly and then move by takeover chunks only.

        With keep_policy the other arm goes on; without, it stops as well.
        """
        if self._state not in OBEYING or self._latched or self._stopping:
            return
        self._stop_arms(sides if keep_policy else self._reference.sides)
        self._arbiter.taken |= set(sides)
        self._arbiter.keep_policy = keep_policy
        self._go(State.TAKEOVER, "take_over", f"a human has the {' and '.join(sorted(self._arbiter.taken))} arm")

    def release(self, now_ns: int) -> None:
        """Hand all arms back: they stop softly until the policy has seen where they are.

        An arm that the policy kept goes on meanwhile.
        """
        if self._state is not State.TAKEOVER:
            return
        self._stop_arms(tuple(self._arbiter.taken))
        self._arbiter.taken, self._arbiter.not_before_ns = set(), now_ns
        going = self._reference.last_row_ns > self._grid.nominal_ns
        after = State.RUNNING if going else State.HOLDING
        self._go(after, "release", "handed back; waiting for a chunk observed after it")

    def note_controller(self, side: str, steady_ns: int) -> None:
        """A controller of the arm `side` reported; from now on its silence is noticed."""
        self._watchdog.note("controller", side, steady_ns)

    # --- chunks ---

    def accept(self, chunk: ActionChunk, now_ns: int) -> Verdict:
        """Take a chunk for every arm that it may move, or for none, and say why not.

        A takeover chunk takes its arms over at once; others move the arms that are not taken over.
        """
        verdict = self._judge(chunk, now_ns)
        if verdict.accepted:
            self._take(chunk, now_ns)
        else:
            self._counters.refused[verdict.kind] = self._counters.refused.get(verdict.kind, 0) + 1
            self._counters.last_refusal = verdict.reason
        return verdict

    def _judge(self, chunk: ActionChunk, now_ns: int) -> Verdict:
        if self._state not in OBEYING or self._stopping:
            return Verdict(False, f"executor is {self._state.value}: {self._reason}", "state")
        if self._latched:
            return Verdict(False, f"executor is on hold: {self._reason}; resume it first", "state")
        skip_ns = round(self.config.latency_skip_s * 1e9) if chunk.source < Source.TELEOP else 0
        # The next row must leave the curve some time to get there.
        near_ns = max(now_ns, self._grid.nominal_ns) + max(chunk.period_ns, FINEST_NS) // 4
        verdict = self._gate.judge(chunk, now_ns, near_ns + skip_ns)
        if not verdict.accepted:
            return verdict
        sides = self._gate.sides(chunk)
        refusal = self._arbiter.judge(chunk, sides, now_ns)
        if refusal is None:
            reach_s = self.config.absurd_jump_s
            if chunk.source is Source.TAKEOVER and not self._arbiter.taken.issuperset(sides):
                reach_s = min(reach_s, self.config.takeover_match_s)
            free = self._arbiter.free(chunk, sides)
            refusal = self._gate.distance(chunk, free, self.reference().position, now_ns, reach_s)
        return refusal or ACCEPTED

    def _take(self, chunk: ActionChunk, now_ns: int) -> None:
        sides, positions = self._gate.sides(chunk), self._gate.clamped(chunk)
        self._counters.accepted += 1
        self._counters.clamped += not np.array_equal(positions, chunk.positions)
        replaced, free = self._arbiter.took(chunk, sides, now_ns), self._arbiter.free(chunk, sides)
        for side, rows in self._reference.merge(chunk, positions, free, replaced, now_ns).items():
            self._ledgers[side].chunk(rows, now_ns)
        self._refit()
        self._covered_until_ns = max(self._covered_until_ns, chunk.due_ns(chunk.rows - 1))
        state, verb = (State.TAKEOVER, "following") if self._arbiter.taken else (State.RUNNING, "running")
        self._go(state, "chunk", f"{verb} chunk {chunk.sequence} of {chunk.source.name.lower()}")

    def _refit(self) -> None:
        self._reference.fit(self._grid.nominal_ns)
        self._limiter.drop_plans()

    # --- ticks ---

    def step(
        self,
        now_ns: int,
        joint_state: "JointState | None" = None,
        steady_ns: "int | None" = None,
        heard: "Collection[str] | None" = None,
    ) -> Step:
        """Make the command for `now_ns`. Raises ImageWamError unless active.

        joint_state is the newest measurement, None when there is no new one. steady_ns is the
        steady clock for the watchdogs; without it they use now_ns. heard names the arms whose
        drivers reported since the last call; without it both did when there is a measurement.
        """
        if self._state in (State.UNCONFIGURED, State.INACTIVE):
            raise ImageWamError(f"executor is {self._state.value}; activate it before stepping")
        due = self._grid.due(now_ns)
        if due.periods == 0:
            return Step(self._command, self._state, self._reason, 0)
        if due.jump_ns:
            self._jump(due.jump_ns)
        self._grid.move(due)
        self._counters.late_ticks += due.periods > 1
        self._watch(joint_state, now_ns if steady_ns is None else steady_ns, heard)
        if self._reference.wants_refit(self._grid.nominal_ns):
            self._refit()
        self._move(due.periods)
        self._account()
        self._settle()
        return Step(self._command, self._state, self._reason, due.periods)

    @property
    def at_rest(self) -> bool:
        """True when the arms have been sent to rest."""
        return self._limiter.at_rest

    @property
    def next_ns(self) -> int:
        """Nominal time of the next command."""
        return self._grid.nominal_ns + self.embodiment.period_ns

    def reference(self, ahead: int = 0) -> Motion:
        """Reference of all joints `ahead` periods after the present nominal time."""
        return self._reference.at(self._grid.nominal_ns + ahead * self.embodiment.period_ns)

    def _move(self, periods: int) -> None:
        if self._state is State.FAULTED:
            self._brake(periods)
            return
        wanted = self._limiter.propose(lambda ahead: self.reference(ahead - periods), periods)
        veto = self._guard.veto(self._limiter.state, wanted) if self._guard is not None else ""
        if not veto:
            self._limiter.commit(wanted)
            return
        self._counters.guarded_ticks += 1
        self._brake(periods)
        self._covered_until_ns = self._grid.nominal_ns - 1
        if self._state in (State.RUNNING, State.TAKEOVER):
            self._go(State.HOLDING if self._state is State.RUNNING else self._state, "guard", veto)

    def _brake(self, periods: int) -> None:
        self._reference.stop_from(self._limiter.brake(periods), self._grid.nominal_ns)

    def _jump(self, by_ns: int) -> None:
        """Time went on by `by_ns` more than it should: everything moves with it, and the arms brake."""
        self._stop()
        self._reference.shift(by_ns)
        self._covered_until_ns += by_ns
        self._counters.time_jumps += 1
        self._arbiter.forget_times()
        self._watchdog.forget_sent()
        if self._state in OBEYING and not self._latched and not self._stopping:
            self._go(State.HOLDING, "time_jump", f"time jumped by {by_ns * 1e-9:+.2f} s; waiting for a new chunk")

    def _stop(self) -> None:
        self._arbiter.taken = set()
        self._stop_arms(self._reference.sides)

    def _stop_arms(self, sides: Collection[str]) -> None:
        self._covered_until_ns = self._grid.nominal_ns - 1
        self._reference.stop(sides, self._grid.nominal_ns)
        self._limiter.drop_plans()
        for side in sides:
            self._arbiter.stopped(side)

    def _watch(self, joint_state: "JointState | None", steady_ns: int, heard: "Collection[str] | None") -> None:
        if heard is None:
            heard = () if joint_state is None else self._slices
        for side in heard:
            self._watchdog.note("joint_state", side, steady_ns)
        if joint_state is not None:
            self._track(joint_state)
        alarm = self._watchdog.check(steady_ns)
        if alarm and alarm.response is Response.FAULT:
            self.fault(alarm.reason)
        elif alarm:
            self.hold(alarm.reason)

    def _track(self, joint_state: JointState) -> None:
        try:
            measured = self._measured(joint_state)
        except EmbodimentMismatch as error:
            self.fault(str(error))
            return
        alarm = self._watchdog.track(joint_state.stamp_ns, measured, self.embodiment.joint_names)
        if alarm:
            self.fault(alarm.reason)

    def _account(self) -> None:
        self._command = self._make_command()
        self._counters.limited_ticks += bool(self._limiter.limited.any())
        self._counters.braked_ticks += bool(self._limiter.braked.any())
        for side, part in self._slices.items():
            self._ledgers[side].sent(self._command.position[part])
        self._watchdog.sent(self._command.nominal_ns, self._command.position)

    def _settle(self) -> None:
        """Follow from what the tracks still hold."""
        if self._state is State.HOLDING and self._grid.nominal_ns <= self._covered_until_ns:
            self._counters.starved_ticks += 1
        if self._stopping and self._limiter.at_rest:
            self._go(State.INACTIVE, "at_rest", "deactivated at rest")
        elif self._state is State.RUNNING and self._grid.nominal_ns > self._reference.last_row_ns:
            self._go(State.HOLDING, "rows_ended", "no new chunk: all rows of the last one are done")

    def _make_command(self) -> Command:
        state, period = self._limiter.state, self.embodiment.period_ns
        return Command(self._grid.tick, self._grid.nominal_ns, period, self.embodiment.joint_names, *state)

    def _start(self, position: Floats) -> Floats:
        """Where to begin: the measured position, put inside the bounds. Raises LimitViolation."""
        limits = self.embodiment.limits
        over = np.maximum(limits.lower - position, position - limits.upper) / (limits.upper - limits.lower)
        worst = int(over.argmax())
        if over[worst] <= START_TOLERANCE and np.isfinite(position).all():
            return np.clip(position, limits.lower, limits.upper)
        joint = self.embodiment.joints[worst]
        raise LimitViolation(
            f"joint {joint.name!r} is at {position[worst]:.4f}, outside {joint.lower} to {joint.upper}; "
            "move it inside its bounds before activation"
        )

    def _measured(self, joint_state: JointState) -> Floats:
        """Positions in the robot's order. Raises EmbodimentMismatch."""
        if joint_state.joint_names == self.embodiment.joint_names:
            return joint_state.position
        index = {name: i for i, name in enumerate(joint_state.joint_names)}
        missing = [name for name in self.embodiment.joint_names if name not in index]
        if missing:
            raise EmbodimentMismatch(f"joint states lack {', '.join(missing)}; is every driver running?")
        return joint_state.position[[index[name] for name in self.embodiment.joint_names]]

    def _go(self, after: State, trigger: str, reason: str) -> None:
        before, self._state, self._reason = self._state, after, reason
        if before is not after:
            self.transitions = [*self.transitions, Transition(self._grid.tick, before, after, trigger, reason)][
                -KEPT_TRANSITIONS:
            ]

    @property
    def state(self) -> State:
        """What the executor is doing."""
        return self._state

    @property
    def status(self) -> Status:
        """Report of the present."""
        last = self._arbiter.last
        return Status(
            state=self._state,
            reason=self._reason,
            tick=self._grid.tick,
            nominal_ns=self._grid.nominal_ns,
            commander=self._arbiter.commander,
            taken_over=tuple(sorted(self._arbiter.taken)),
            chunk_age_ns=self._grid.nominal_ns - last.stamp_ns if last else None,
            travel={side: ledger.travel for side, ledger in self._ledgers.items()},
            **asdict(self._counters),
        )


ACTIVATION_GRACE_NS = 1_000_000_000
"""Observations this much older than the activation count: the arms have not moved in between."""

START_TOLERANCE = 0.02
"""At activation a joint may be outside its bounds by this share of its range, as grippers are."""

KEPT_TRANSITIONS = 64
"""Transitions kept for the status; older ones are in the log."""
