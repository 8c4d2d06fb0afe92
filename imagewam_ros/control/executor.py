# SPDX-License-Identifier: Apache-2.0
"""Chunks in, one command per control period out: the state machine around curve and limiter.

The executor is deterministic: time is an argument, nothing sleeps, nothing is read from outside.
It keeps its own grid of nominal times, nominal = epoch + tick * period, in the clock of the
observations' stamps. Every call of `step` that reaches the next nominal time makes one command;
a late call skips whole periods and is limited as that many. When time jumps, in either direction,
the grid is laid anew and the arms brake.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

import numpy as np

from imagewam_ros.control.acceptance import ACCEPTED, AcceptanceConfig, Gate, Verdict
from imagewam_ros.control.braking import Motion
from imagewam_ros.control.ledger import Ledger, Travel
from imagewam_ros.control.limiter import Limiter
from imagewam_ros.control.timeline import FINEST_NS, MergeConfig
from imagewam_ros.control.track import Track
from imagewam_ros.control.watchdog import Response, Watchdog, WatchdogConfig
from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import ConfigError, EmbodimentMismatch, ImageWamError, LimitViolation
from imagewam_ros.core.schema import ActionChunk, Command, Floats, JointState, Source


class State(Enum):
    """What the executor is doing."""

    UNCONFIGURED = "unconfigured"
    INACTIVE = "inactive"
    HOLDING = "holding"
    RUNNING = "running"
    TAKEOVER = "takeover"
    FAULTED = "faulted"


@dataclass(frozen=True)
class ExecutorConfig(MergeConfig, AcceptanceConfig, WatchdogConfig):
    """All parameters of the executor; those of merging, acceptance and watchdogs are inherited.

    smoothing_hz: cut-off of the curve through the rows. stop_share: share of the limits that soft
    stops use. late_limit_s: a tick later than this is a jump of time, answered by a soft stop.
    commander_timeout_s: how long a commander that sends nothing keeps out those of lower priority.
    """

    smoothing_hz: float = 4.0
    stop_share: float = 0.7
    late_limit_s: float = 0.1
    commander_timeout_s: float = 0.5

    def __post_init__(self) -> None:
        MergeConfig.__post_init__(self)
        AcceptanceConfig.__post_init__(self)
        WatchdogConfig.__post_init__(self)
        for name in ("smoothing_hz", "late_limit_s", "commander_timeout_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be positive, found {getattr(self, name)}")
        if not 0 < self.stop_share <= 1:
            raise ConfigError(f"stop_share must be in (0, 1], found {self.stop_share}")


class Step(NamedTuple):
    """One call of `step`: the command, the state after it and why.

    periods counts nominal periods since the command before: 0 when the call came before the next
    nominal time and the command is the one already sent, more than 1 when it came late.
    """

    command: Command
    state: State
    reason: str
    periods: int = 1


class Transition(NamedTuple):
    """A change of state."""

    tick: int
    before: State
    after: State
    trigger: str
    reason: str


@dataclass(frozen=True)
class Status:
    """What the executor reports. Counters start at activation.

    limited_ticks counts commands that differed from the reference, braked_ticks those that braked
    for a position bound, starved_ticks those that held although an accepted chunk covered them.
    """

    state: State
    reason: str
    tick: int = 0
    nominal_ns: int = 0
    commander: str = ""
    chunk_age_ns: int | None = None
    accepted: int = 0
    clamped: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    last_refusal: str = ""
    late_ticks: int = 0
    time_jumps: int = 0
    limited_ticks: int = 0
    braked_ticks: int = 0
    starved_ticks: int = 0
    travel: dict[str, Travel] = field(default_factory=dict)


class Executor:
    """Turn accepted chunks into limited commands; see the module's text."""

    def __init__(self, embodiment: Embodiment, config: "ExecutorConfig | None" = None) -> None:
        self.embodiment, self.config = embodiment, config or ExecutorConfig()
        self.transitions: list[Transition] = []
        self._state, self._reason = State.UNCONFIGURED, ""
        self._gate = Gate(embodiment, self.config)
        self._limiter = Limiter(embodiment.limits, embodiment.period_ns * 1e-9)
        self._slices = {arm.side: embodiment.arm_slice(arm.side) for arm in embodiment.arms}
        self._watchdog = Watchdog(self.config, ~embodiment.gripper_mask)
        self._clear(0)
        self._go(State.INACTIVE, "configure", f"configured for robot {embodiment.name!r}")

    def _clear(self, now_ns: int) -> None:
        """Forget everything that belongs to one activation."""
        limits, share = self.embodiment.limits, self.config.stop_share
        self._epoch_ns, self._tick = now_ns, 0
        self._latched = self._stopping = False
        self._covered_until_ns = now_ns - 1
        self._counts = dict.fromkeys(("accepted", "clamped", "late", "jumps", "limited", "braked", "starved"), 0)
        self._refused: dict[str, int] = {}
        self._last_refusal = ""
        self._last_chunk: ActionChunk | None = None
        self._hash = self.config.contract_hash
        self._tracks = {
            side: Track(limits.acceleration[part] * share, limits.jerk[part] * share, self.config, self.config.smoothing_hz)
            for side, part in self._slices.items()
        }
        self._ledgers = {a.side: Ledger((a.gripper.lower + a.gripper.upper) / 2) for a in self.embodiment.arms}
        self._watchdog.forget()

    # --- transitions asked for from outside ---

    def activate(self, now_ns: int, joint_state: JointState) -> None:
        """Hold where the arms are. Raises ImageWamError, EmbodimentMismatch, LimitViolation."""
        if self._state is not State.INACTIVE:
            raise ImageWamError(f"executor is {self._state.value}; only an inactive executor can be activated")
        position = self._measured(joint_state)
        limits = self.embodiment.limits
        over = np.maximum(limits.lower - position, position - limits.upper) / (limits.upper - limits.lower)
        worst = int(over.argmax())
        if over[worst] > START_TOLERANCE or not np.isfinite(position).all():
            joint = self.embodiment.joints[worst]
            raise LimitViolation(
                f"joint {joint.name!r} is at {position[worst]:.4f}, outside {joint.lower} to {joint.upper}; "
                "move it inside its bounds before activation"
            )
        self._clear(now_ns)
        start = np.clip(position, limits.lower, limits.upper)
        self._limiter.reset(start)
        for side, part in self._slices.items():
            self._tracks[side].rest(start[part], now_ns)
        self._command = self._make_command()
        self._go(State.HOLDING, "activate", "activated; waiting for a chunk")

    def deactivate(self, now_ns: int) -> None:
        """Stop softly; `step` goes on until the arms rest, then the state is inactive."""
        if self._state in (State.UNCONFIGURED, State.INACTIVE):
            return
        self._stop_tracks()
        self._stopping = True
        if self._limiter.at_rest:
            self._go(State.INACTIVE, "deactivate", "deactivated at rest")
        elif self._state is not State.FAULTED:
            self._go(State.HOLDING, "deactivate", "deactivating; stopping the arms")

    def hold(self, reason: str) -> None:
        """Stop softly and refuse chunks until `resume`."""
        if self._state in (State.HOLDING, State.RUNNING, State.TAKEOVER):
            self._stop_tracks()
            self._latched = True
            self._go(State.HOLDING, "hold", reason)

    def resume(self) -> None:
        """Accept chunks again after `hold`."""
        if self._state is State.HOLDING and self._latched and not self._stopping:
            self._latched = False
            self._go(State.HOLDING, "resume", "resumed; waiting for a chunk")

    def fault(self, reason: str) -> None:
        """Brake both arms at once and stay until `reset_fault`."""
        if self._state in (State.HOLDING, State.RUNNING, State.TAKEOVER):
            self._go(State.FAULTED, "fault", reason)

    def reset_fault(self) -> None:
        """Leave the fault. Raises ImageWamError while the arms still brake."""
        if self._state is not State.FAULTED:
            return
        if not self._limiter.at_rest:
            raise ImageWamError("the arms are still braking; reset the fault once they rest")
        for side, part in self._slices.items():
            self._tracks[side].rest(self._limiter.state.position[part], self._nominal_ns)
        self._latched, self._covered_until_ns = False, self._nominal_ns - 1
        self._watchdog.forget()
        self._go(State.HOLDING, "reset_fault", "fault reset; waiting for a chunk")

    def note_controller(self, side: str, steady_ns: int) -> None:
        """A controller of the arm `side` reported; from now on its silence is noticed."""
        self._watchdog.note("controller", side, steady_ns)

    # --- chunks ---

    def accept(self, chunk: ActionChunk, now_ns: int) -> Verdict:
        """Take a chunk for every arm that it names, or for none, and say why not."""
        verdict = self._judge(chunk, now_ns)
        if not verdict.accepted:
            self._refused[verdict.kind] = self._refused.get(verdict.kind, 0) + 1
            self._last_refusal = verdict.reason
            return verdict
        self._take(chunk, self._gate.clamped(chunk), now_ns)
        return verdict

    def _judge(self, chunk: ActionChunk, now_ns: int) -> Verdict:
        if self._state not in (State.HOLDING, State.RUNNING, State.TAKEOVER) or self._stopping:
            return Verdict(False, f"executor is {self._state.value}: {self._reason}", "state")
        if self._latched:
            return Verdict(False, f"executor is on hold: {self._reason}; resume it first", "state")
        # The next row must leave the curve some time to get there.
        near_ns = max(now_ns, self._nominal_ns) + max(chunk.period_ns, FINEST_NS) // 4
        verdict = self._gate.judge(chunk, now_ns, near_ns + self._skip_ns(chunk))
        if not verdict.accepted:
            return verdict
        refusal = self._order(chunk, now_ns) or self._contract(chunk)
        if refusal is None:
            positions = self._gate.clamped(chunk)
            refusal = self._gate.distance(chunk, positions, self.reference().position, now_ns)
        return refusal or ACCEPTED

    def _skip_ns(self, chunk: ActionChunk) -> int:
        return round(self.config.latency_skip_s * 1e9) if chunk.source < Source.TELEOP else 0

    def _order(self, chunk: ActionChunk, now_ns: int) -> "Verdict | None":
        last = self._last_chunk
        if last is None:
            return None
        silent_s = (now_ns - self._last_arrival_ns) * 1e-9
        if chunk.source < last.source and silent_s <= self.config.commander_timeout_s:
            name, other = chunk.source.name.lower(), last.source.name.lower()
            return Verdict(False, f"{name} is refused: {other} commands and has priority", "priority")
        if chunk.source == last.source and chunk.stamp_ns <= last.stamp_ns:
            word = "the same observation as" if chunk.stamp_ns == last.stamp_ns else "an older observation than"
            return Verdict(False, f"chunk {chunk.sequence} has {word} chunk {last.sequence}", "order")
        return None

    def _contract(self, chunk: ActionChunk) -> "Verdict | None":
        if chunk.source not in (Source.POLICY, Source.REPLAY):
            return None
        if self._hash and chunk.contract_hash != self._hash:
            reason = f"chunk has contract {chunk.contract_hash!r}, expected {self._hash!r}; was the checkpoint changed?"
            return Verdict(False, reason, "contract")
        return None

    def _take(self, chunk: ActionChunk, positions: Floats, now_ns: int) -> None:
        self._counts["accepted"] += 1
        self._counts["clamped"] += not np.array_equal(positions, chunk.positions)
        if chunk.source in (Source.POLICY, Source.REPLAY):
            self._hash = chunk.contract_hash
        fresh = self._last_chunk is None or self._last_chunk.source != chunk.source
        first = 0
        for side in self._gate.sides(chunk):
            width = len(range(*self._slices[side].indices(len(self.embodiment.joints))))
            rows = self._tracks[side].take(chunk, positions[:, first : first + width], self._nominal_ns, now_ns, fresh)
            self._ledgers[side].chunk(rows, now_ns)
            first += width
        self._last_chunk, self._last_arrival_ns = chunk, now_ns
        self._covered_until_ns = max(self._covered_until_ns, chunk.due_ns(chunk.rows - 1))
        self._limiter.drop_plans()
        self._go(State.RUNNING, "chunk", f"running chunk {chunk.sequence} of {chunk.source.name.lower()}")

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
        periods = self._advance(now_ns)
        if periods == 0:
            return Step(self._command, self._state, self._reason, 0)
        self._watch(joint_state, now_ns if steady_ns is None else steady_ns, heard)
        if any([track.refresh(self._nominal_ns) for track in self._tracks.values()]):
            self._limiter.drop_plans()
        if self._state is State.FAULTED:
            self._brake(periods)
        else:
            self._limiter.step(lambda ahead: self.reference(ahead - periods), periods)
        self._account()
        self._settle()
        return Step(self._command, self._state, self._reason, periods)

    @property
    def at_rest(self) -> bool:
        """True when the arms have been sent to rest."""
        return self._limiter.at_rest

    @property
    def next_ns(self) -> int:
        """Nominal time of the next command."""
        return self._nominal_ns + self.embodiment.period_ns

    @property
    def _nominal_ns(self) -> int:
        return self._epoch_ns + self._tick * self.embodiment.period_ns

    def _advance(self, now_ns: int) -> int:
        """Move the grid to `now_ns` and return by how many periods."""
        period = self.embodiment.period_ns
        periods = (now_ns - self._nominal_ns + period // 4) // period
        limit = max(int(self.config.late_limit_s * 1e9 / period), 2)
        if -1 <= periods <= 0:
            return 0
        if 0 < periods <= limit:
            self._counts["late"] += periods > 1
            self._tick += periods
            return periods
        self._stop_tracks()
        jump_s = (now_ns - self.next_ns) * 1e-9
        moved_ns = now_ns - self.next_ns
        self._tick += 1
        self._epoch_ns += moved_ns
        for track in self._tracks.values():
            track.shift(moved_ns)
        self._counts["jumps"] += 1
        self._last_chunk = None
        if self._state is not State.FAULTED:
            self._go(State.HOLDING, "time_jump", f"time jumped by {jump_s:+.2f} s; waiting for a new chunk")
        return 1

    def reference(self, ahead: int = 0) -> Motion:
        """Reference of all joints `ahead` periods after the present nominal time."""
        at_ns = self._nominal_ns + ahead * self.embodiment.period_ns
        parts = [track.curve.at(at_ns) for track in self._tracks.values()]
        return Motion(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    def _brake(self, periods: int) -> None:
        state = self._limiter.brake(periods)
        for side, part in self._slices.items():
            self._tracks[side].stop_from(Motion(*(x[part] for x in state)), self._nominal_ns)

    def _stop_tracks(self) -> None:
        self._covered_until_ns = self._nominal_ns - 1
        for track in self._tracks.values():
            track.stop(self._nominal_ns)
        self._limiter.drop_plans()

    def _watch(self, joint_state: "JointState | None", steady_ns: int, heard: "Collection[str] | None") -> None:
        if heard is None:
            heard = () if joint_state is None else self._slices
        for side in heard:
            self._watchdog.note("joint_state", side, steady_ns)
        if joint_state is not None:
            measured = self._measured(joint_state)
            alarm = self._watchdog.track(joint_state.stamp_ns, measured, self.embodiment.joint_names)
            if alarm:
                self.fault(alarm.reason)
        alarm = self._watchdog.check(steady_ns)
        if alarm and alarm.response is Response.FAULT:
            self.fault(alarm.reason)
        elif alarm:
            self.hold(alarm.reason)

    def _account(self) -> None:
        self._command = self._make_command()
        limited, braked = self._limiter.limited.any(), self._limiter.braked.any()
        self._counts["limited"] += bool(limited)
        self._counts["braked"] += bool(braked)
        for side, part in self._slices.items():
            self._ledgers[side].sent(self._command.position[part])
        self._watchdog.sent(self._command.nominal_ns, self._command.position)

    def _settle(self) -> None:
        """Follow from what the tracks still hold."""
        if self._state is State.HOLDING and self._nominal_ns <= self._covered_until_ns:
            self._counts["starved"] += 1
        if self._stopping and self._limiter.at_rest:
            self._go(State.INACTIVE, "at_rest", "deactivated at rest")
        elif self._state is State.RUNNING:
            last_ns = max(track.last_row_ns for track in self._tracks.values())
            if self._nominal_ns > last_ns:
                self._go(State.HOLDING, "rows_ended", "no new chunk: all rows of the last one are done")

    def _make_command(self) -> Command:
        state, period = self._limiter.state, self.embodiment.period_ns
        return Command(self._tick, self._nominal_ns, period, self.embodiment.joint_names, *state)

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
            self.transitions = [*self.transitions, Transition(self._tick, before, after, trigger, reason)][-KEPT_TRANSITIONS:]

    @property
    def state(self) -> State:
        """What the executor is doing."""
        return self._state

    @property
    def status(self) -> Status:
        """Report of the present."""
        counts, last = self._counts, self._last_chunk
        return Status(
            state=self._state,
            reason=self._reason,
            tick=self._tick,
            nominal_ns=self._nominal_ns,
            commander=last.source.name.lower() if last else "",
            chunk_age_ns=self._nominal_ns - last.stamp_ns if last else None,
            accepted=counts["accepted"],
            clamped=counts["clamped"],
            refused=dict(self._refused),
            last_refusal=self._last_refusal,
            late_ticks=counts["late"],
            time_jumps=counts["jumps"],
            limited_ticks=counts["limited"],
            braked_ticks=counts["braked"],
            starved_ticks=counts["starved"],
            travel={side: ledger.travel for side, ledger in self._ledgers.items()},
        )


START_TOLERANCE = 0.02
"""At activation a joint may be outside its bounds by this share of its range, as grippers are."""

KEPT_TRANSITIONS = 64
"""Transitions kept for the status; older ones are in the log."""
