# SPDX-License-Identifier: Apache-2.0
"""Chunks in, one command per control period out: the state machine over the mover of the arms.

The executor is deterministic: time is an argument, nothing sleeps, nothing is read from outside.
It keeps its own grid of nominal times, nominal = epoch + tick * period, in the clock of the
observations' stamps. Every call of `step` that reaches the next nominal time makes one command;
a late call skips whole periods, makes up for two or a little more and is limited as those. When
time jumps, in either direction, the grid is laid anew and the arms brake.
"""

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from imagewam_ros.control.acceptance import ACCEPTED, Gate, Verdict
from imagewam_ros.control.arbiter import Arbiter
from imagewam_ros.control.braking import Motion
from imagewam_ros.control.config import ExecutorConfig
from imagewam_ros.control.doubt import Doubt
from imagewam_ros.control.measured import in_order, inside
from imagewam_ros.control.mover import Mover
from imagewam_ros.control.report import OBEYING, State, Status, Step, Transition
from imagewam_ros.control.timeline import FINEST_NS
from imagewam_ros.control.watchdog import Response, Watchdog
from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import EmbodimentMismatch, ImageWamError
from imagewam_ros.core.schema import ActionChunk, JointState, Source

if TYPE_CHECKING:  # pinocchio is loaded only where a guard is wanted
    from imagewam_ros.control.guard import Guard

__all__ = ["Executor", "ExecutorConfig", "State", "Status", "Step", "Transition", "Verdict"]

ACTIVATION_GRACE_NS = 1_000_000_000
"""Observations this much older than the activation count: the arms have not moved in between."""

REPEATING = ("chunk", "guard")
"""Triggers that are kept only where they change the state."""

KEPT_TRANSITIONS = 64
"""Transitions kept for the status; older ones are in the log."""


class Executor:
    """Turn accepted chunks into limited commands; see the module's text. `open_fault` is one that was not reset."""

    def __init__(
        self,
        embodiment: Embodiment,
        config: "ExecutorConfig | None" = None,
        guard: "Guard | None" = None,
        fault: str = "",
    ) -> None:
        """`fault` is what an executor before this one left to be reset."""
        self.embodiment, self.config = embodiment, config or ExecutorConfig()
        self.transitions: deque[Transition] = deque(maxlen=KEPT_TRANSITIONS)
        self._state, self._reason, self.open_fault = State.UNCONFIGURED, "", fault
        self._gate = Gate(embodiment, self.config)
        self._mover = Mover(embodiment, self.config, guard)
        self._watchdog = Watchdog(self.config, ~embodiment.gripper_mask)
        self._begin()
        self._arbiter = self._new_arbiter(0)
        self._go(State.INACTIVE, "configure", f"configured for robot {embodiment.name!r}")

    def _new_arbiter(self, now_ns: int) -> Arbiter:
        return Arbiter(self.config.contract_hash, self.config.commander_timeout_s, now_ns - ACTIVATION_GRACE_NS)

    def _begin(self) -> None:
        """Set what an activation begins with."""
        self._latched = self._stopping = False
        self._doubt = Doubt(self._watchdog)
        self._steady_ns = 0

    # --- transitions asked for from outside ---

    def activate(self, now_ns: int, joint_state: JointState) -> None:
        """Hold where the arms are. Raises ImageWamError, EmbodimentMismatch, LimitViolation."""
        if self._state is not State.INACTIVE:
            raise ImageWamError(f"executor is {self._state.value}; only an inactive executor can be activated")
        if self.open_fault:
            raise ImageWamError(f"the fault was not reset: {self.open_fault}; remove its cause and reset it")
        self._mover.clear(inside(in_order(joint_state, self.embodiment), self.embodiment), now_ns)
        self._begin()
        self._arbiter = self._new_arbiter(now_ns)
        self._watchdog.forget()
        self._go(State.HOLDING, "activate", "activated; waiting for a chunk")

    def deactivate(self, now_ns: int) -> None:
        """Stop softly; `step` goes on until the arms rest, then the state is inactive."""
        if self._state in (State.UNCONFIGURED, State.INACTIVE):
            return
        self._stop_arms(self._mover.sides)
        self._arbiter.give_back(now_ns)
        self._stopping = True
        if self._mover.at_rest:
            self._go(State.INACTIVE, "deactivate", "deactivated at rest")
        elif self._state is not State.FAULTED:
            self._go(State.HOLDING, "deactivate", "deactivating; stopping the arms")

    def hold(self, reason: str, trigger: str = "hold") -> None:
        """Stop softly and refuse chunks until `resume`. In a fault, arms that give way stop."""
        if self._state is State.FAULTED:
            self._stay(trigger)
        elif self._state in OBEYING and not self._latched:
            self._stop_both()
            self._latched = True
            self._go(State.HOLDING, trigger, reason)

    def resume(self) -> None:
        """Accept chunks again after `hold`; arms that a human has are still the human's.

        After a fault or a silent controller raises ImageWamError unless the arms are where they were sent.
        """
        if self._state is State.HOLDING and self._latched and not self._stopping:
            self._check_in_place()
            self._latched = False
            self._doubt.close()
            after = State.TAKEOVER if self._arbiter.taken else State.HOLDING
            self._go(after, "resume", f"resumed; {self._arbiter.waiting}")

    def fault(self, reason: str, trigger: str = "fault") -> None:
        """Brake both arms at once and stay until `reset_fault`. Another fault stops arms that give way."""
        if self._state is State.FAULTED:
            self._stay(trigger)
        elif self._state in OBEYING:
            self._stop_both()
            self.open_fault, self._doubt.open = reason, True
            self._go(State.FAULTED, trigger, reason)

    def reset_fault(self) -> None:
        """Leave the fault for a hold that `resume` ends.

        Raises ImageWamError while the arms still move or are not where they were sent.
        """
        if self._state is State.FAULTED:
            if self._doubt.moves or not self._mover.at_rest:
                raise ImageWamError("the arms are still braking; reset the fault once they rest")
            self._check_in_place()
            self._mover.rest()
            self._latched = True
            self._go(State.HOLDING, "reset_fault", "fault reset, on hold until resumed")
        self.open_fault = ""

    def _check_in_place(self) -> None:
        """Raise ImageWamError where a command would make an arm jump, or its driver or controller is silent."""
        if objection := self._doubt.objection(self._steady_ns, self.embodiment.joint_names):
            raise ImageWamError(objection)

    def take_over(self, sides: tuple[str, ...], keep_policy: bool = True) -> None:
        """A human takes `sides`: they stop softly and then move by takeover chunks only.

        With keep_policy the other arm goes on; without, it stops as well. On hold nobody moves them until `resume`.
        """
        if self._state not in OBEYING or self._stopping:
            return
        self._stop_arms(sides if keep_policy else self._mover.sides)
        self._arbiter.taken |= set(sides)
        self._arbiter.keep_policy = keep_policy
        after = (self._state, self._reason) if self._latched else (State.TAKEOVER, self._arbiter.waiting)
        self._go(after[0], "take_over", after[1])

    def release(self, now_ns: int) -> None:
        """Hand all arms back: they stop softly until the policy has seen where they are.

        An arm that the policy kept goes on meanwhile. A hold or a fault outlasts the human.
        """
        if not self._arbiter.taken:
            return
        sides = self._arbiter.give_back(now_ns)
        if self._state is not State.TAKEOVER:
            self._go(self._state, "release", self._reason)
            return
        self._stop_arms(sides)
        after = State.RUNNING if self._mover.going else State.HOLDING
        self._go(after, "release", "handed back; waiting for a chunk observed after it")

    def note_controller(self, side: str, steady_ns: int, errors: "Mapping[str, float] | None" = None) -> None:
        """A controller of the arm `side` reported; from now on its silence is noticed.

        errors are the distances of joints from what the controller aims at, rad, where it tells them.
        """
        self._watchdog.note("controller", side, steady_ns)
        if alarm := self._watchdog.strayed(errors or {}):
            self._stray(alarm.reason)

    # --- chunks ---

    def accept(self, chunk: ActionChunk, now_ns: int) -> Verdict:
        """Take a chunk for every arm that it may move, or for none, and say why not.

        A takeover chunk takes its arms over at once; others move the arms that are not taken over.
        """
        verdict = self._judge(chunk, now_ns)
        if verdict.accepted:
            self._take(chunk, now_ns)
        else:
            self._mover.counters.refused[verdict.kind] = self._mover.counters.refused.get(verdict.kind, 0) + 1
            self._mover.counters.last_refusal = verdict.reason
        return verdict

    def _judge(self, chunk: ActionChunk, now_ns: int) -> Verdict:
        if self._state not in OBEYING or self._stopping:
            return Verdict(False, f"executor is {self._state.value}: {self._reason}", "state")
        if self._latched:
            return Verdict(False, f"executor is on hold: {self._reason}; resume it first", "state")
        skip_ns = round(self.config.latency_skip_s * 1e9) if chunk.source < Source.TELEOP else 0
        # The next row must leave the curve some time to get there.
        near_ns = max(now_ns, self._mover.grid.nominal_ns) + max(chunk.period_ns, FINEST_NS) // 4
        verdict = self._gate.judge(chunk, now_ns, near_ns + skip_ns)
        if not verdict.accepted:
            return verdict
        sides = self._gate.sides(chunk)
        refusal = self._arbiter.judge(chunk, sides, now_ns)
        if refusal is None:
            reach_s = self.config.absurd_jump_s
            if chunk.source is Source.TAKEOVER and not self._arbiter.led(sides):
                reach_s = min(reach_s, self.config.takeover_match_s)
            free = self._arbiter.free(chunk, sides)
            refusal = self._gate.distance(chunk, free, self.reference().position, now_ns, reach_s)
        return refusal or ACCEPTED

    def _take(self, chunk: ActionChunk, now_ns: int) -> None:
        sides, positions = self._gate.sides(chunk), self._gate.clamped(chunk)
        self._watchdog.renew()
        self._mover.counters.accepted += 1
        self._mover.counters.clamped += not np.array_equal(positions, chunk.positions)
        replaced, free = self._arbiter.took(chunk, sides, now_ns), self._arbiter.free(chunk, sides)
        self._mover.take(chunk, positions, free, replaced, now_ns)
        state, verb = (State.TAKEOVER, "following") if self._arbiter.taken else (State.RUNNING, "running")
        self._go(state, "chunk", f"{verb} chunk {chunk.sequence} of {chunk.source.name.lower()}")

    # --- ticks ---

    def step(
        self,
        now_ns: int,
        joint_state: "JointState | None" = None,
        steady_ns: "int | None" = None,
        heard: "Collection[str] | None" = None,
        elapsed_ns: "int | None" = None,
    ) -> Step:
        """Make the command for `now_ns`. Raises ImageWamError unless active.

        joint_state is the newest measurement, None when there is no new one. steady_ns is the
        steady clock for the watchdogs; without it they use now_ns. heard names the arms whose
        drivers reported since the last call; without it both did when there is a measurement.
        elapsed_ns is the steady time since the last command, for a clock that may be set; see `Grid`.
        """
        if self._state in (State.UNCONFIGURED, State.INACTIVE):
            raise ImageWamError(f"executor is {self._state.value}; activate it before stepping")
        self._steady_ns = now_ns if steady_ns is None else steady_ns
        due = self._mover.grid.due(now_ns, elapsed_ns)
        if due.jump_ns:
            self._jump(due.jump_ns)
        self._hear(joint_state, heard)
        if due.periods == 0:
            return Step(self._mover.command, self._state, self._reason, 0)
        self._mover.advance(due, now_ns)
        self._watch()
        self._give_way()
        veto = self._mover.move(due.periods, self._state is State.FAULTED and not self._doubt.giving_way)
        if veto and self._state in (State.RUNNING, State.TAKEOVER):
            self._go(State.HOLDING if self._state is State.RUNNING else self._state, "guard", veto)
        self._watchdog.sent(self._mover.command.nominal_ns, self._mover.command.position)
        self._settle()
        return Step(self._mover.command, self._state, self._reason, due.periods, self._doubt.silent)

    @property
    def at_rest(self) -> bool:
        """True when the arms have been sent to rest."""
        return self._mover.at_rest

    @property
    def next_ns(self) -> int:
        """Nominal time of the next command."""
        return self._mover.grid.nominal_ns + self.embodiment.period_ns

    def reference(self, ahead: int = 0) -> Motion:
        """Reference of all joints `ahead` periods after the present nominal time."""
        return self._mover.reference(ahead)

    def _jump(self, by_ns: int) -> None:
        """Time went on by `by_ns` more than it should: everything moves with it, and the arms brake."""
        self._interrupt("time_jump", f"time jumped by {by_ns * 1e-9:+.2f} s")
        self._mover.shift(by_ns)
        self._mover.counters.time_jumps += 1
        self._arbiter.forget_times()
        self._watchdog.forget_sent()

    def _interrupt(self, trigger: str, reason: str) -> None:
        """Stop both arms until the next chunk."""
        self._stop_arms(self._mover.sides)
        if self._state in OBEYING and not self._latched and not self._stopping:
            after = State.TAKEOVER if self._arbiter.taken else State.HOLDING
            self._go(after, trigger, f"{reason}; {self._arbiter.waiting}")

    def _stop_arms(self, sides: Collection[str]) -> None:
        self._mover.stop(sides)
        for side in sides:
            self._arbiter.stopped(side)

    def _stop_both(self) -> None:
        """Stop both arms; policies move them again once they saw them after it."""
        self._stop_arms(self._mover.sides)
        self._arbiter.not_before_ns = self._mover.grid.nominal_ns

    def _stay(self, trigger: str) -> None:
        """Stop arms that give way."""
        if self._doubt.moves:
            self._doubt.stay()
            self._stop_arms(self._mover.sides)
            self._go(self._state, trigger, self._reason)

    def _hear(self, joint_state: "JointState | None", heard: "Collection[str] | None") -> None:
        for side in (self._mover.sides if joint_state is not None else ()) if heard is None else heard:
            self._watchdog.note("joint_state", side, self._steady_ns)
        if joint_state is not None:
            self._track(joint_state)

    def _watch(self) -> None:
        # A stop blocks the callbacks that hear the drivers, and the arms brake already: no fault may come of it.
        alarm = None if self._stopping else self._watchdog.check(self._steady_ns)
        if alarm and alarm.response is Response.FAULT:
            self.fault(alarm.reason, "watchdog")
        elif alarm and self._state in OBEYING and not self._doubt.open:
            self._latched, self._doubt.open = False, True  # outranks the hold of an operator
            self.hold(alarm.reason, "watchdog")
        overdue = self._watchdog.overdue(self._steady_ns) if self._mover.going else ""
        if overdue and self._state is not State.FAULTED:
            self._interrupt("overdue", overdue)

    def _track(self, joint_state: JointState) -> None:
        try:
            measured = in_order(joint_state, self.embodiment)
        except EmbodimentMismatch as error:
            self.fault(str(error), "watchdog")
            return
        self._doubt.measured = measured
        if alarm := self._watchdog.track(joint_state.stamp_ns, measured, self.embodiment.joint_names):
            self._stray(alarm.reason)

    def _stray(self, reason: str) -> None:
        """An arm does not follow: brake, then give way to what may be between it and its command."""
        if self._state in OBEYING:
            if not self._stopping:
                self._doubt.stray()
            self.fault(reason, "watchdog")

    def _give_way(self) -> None:
        """Once the arms rest after one strayed, go slowly to where they are measured."""
        if not self._mover.at_rest:
            return
        self._doubt.giving_way &= not self._mover.done
        target = self._doubt.way()
        if target is None or self._watchdog.check(self._steady_ns):
            return
        limits, sent = self.embodiment.limits, self._mover.command.position
        self._mover.glide(np.where(self.embodiment.gripper_mask, sent, np.clip(target, limits.lower, limits.upper)))
        self._doubt.giving_way = True
        self._go(State.FAULTED, "relieve", self._reason)

    def _settle(self) -> None:
        """Follow from what the tracks still hold."""
        self._doubt.settle(self._mover.at_rest)
        if self._state is State.HOLDING and self._mover.covered:
            self._mover.counters.starved_ticks += 1
        if self._stopping and self._mover.at_rest:
            self._go(State.INACTIVE, "at_rest", "deactivated at rest")
        elif self._state is State.RUNNING and self._mover.done:
            self._go(State.HOLDING, "rows_ended", "no new chunk: all rows of the last one are done")

    def _go(self, after: State, trigger: str, reason: str) -> None:
        before, self._state, self._reason = self._state, after, reason
        if before is not after or trigger not in REPEATING:
            self.transitions.append(Transition(self._mover.grid.tick, before, after, trigger, reason))

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
            tick=self._mover.grid.tick,
            nominal_ns=self._mover.grid.nominal_ns,
            commander=self._arbiter.commander,
            taken_over=tuple(sorted(self._arbiter.taken)),
            chunk_age_ns=self._mover.grid.nominal_ns - last.stamp_ns if last else None,
            travel=self._mover.travel,
            **asdict(self._mover.counters),
        )
