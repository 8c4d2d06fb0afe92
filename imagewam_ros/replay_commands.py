# SPDX-License-Identifier: Apache-2.0
"""Recorded chunks through the executor with recorded time, and the first command that differs."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from imagewam_ros.control.advisor import Arrival, Recording
from imagewam_ros.control.executor import ExecutorConfig
from imagewam_ros.control.guard import Guard, GuardConfig
from imagewam_ros.control.playback import REPEATED, Input, play_ticks
from imagewam_ros.core.config import build
from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import ConfigError, EmbodimentMismatch
from imagewam_ros.core.schema import Command, Floats, Source
from imagewam_ros.data.run_log import Event, RunLog
from imagewam_ros.kinematics.description import describe

FAULTED = 3
"""ExecutorStatus.FAULTED."""

BESIDE_NS = 50_000_000
"""Events of an activation lie within its commands' times, give or take this."""

WITHIN_S = 0.01
"""Velocities may differ by the tolerance of positions over this time, accelerations by that over its square."""


class Difference(NamedTuple):
    """Where recorded and played commands first differ; before is what had happened last."""

    tick: int
    stamp_ns: int
    after_s: float
    joint: str
    quantity: str
    recorded: float
    played: float
    before: str

    def __str__(self) -> str:
        return (
            f"first divergence at tick {self.tick}, stamp {self.stamp_ns * 1e-9:.3f} s, {self.after_s:.3f} s after the "
            f"first command: {self.quantity} of joint {self.joint!r} was {self.recorded:.9g} and is {self.played:.9g} "
            f"now ({self.played - self.recorded:+.2e}); before it: {self.before}"
        )


@dataclass(frozen=True)
class Comparison:
    """Of all activations in the bag. largest is the largest difference of positions, rad or m.

    verdict says which chunk is judged otherwise now, ends what stopped a comparison early.
    """

    compared: int
    passed_over: int
    activations: int
    largest: float
    first: "Difference | None"
    verdict: str = ""
    ends: str = ""
    inexact: str = ""

    @property
    def diverged(self) -> bool:
        """True where commands or verdicts differ."""
        return self.first is not None or bool(self.verdict)

    def to_dict(self) -> dict[str, Any]:
        """Return what a program reads."""
        first = self.first._asdict() if self.first else None
        return {
            "compared": self.compared,
            "diverged": self.diverged,
            "largest_difference": self.largest,
            "first_divergence": first,
            "verdict": self.verdict,
            "ended_by": self.ends,
        }

    def __str__(self) -> str:
        played = f"{self.compared} played again in {self.activations} activation{'s' * (self.activations != 1)}"
        passed = f" ({self.passed_over} from before the arms first rested are left out)" if self.passed_over else ""
        agree = "identical bit for bit" if self.largest == 0 else f"they differ by at most {self.largest:.1e} rad or m"
        parts = [f"{played}{passed}: {self.first or agree}"]
        parts += [text for text in (self.verdict, self.ends, self.inexact) if text]
        return "\n  ".join(parts)


class Activation(NamedTuple):
    """Commands of one activation from a moment of rest on, and the events from there."""

    commands: tuple[Command, ...]
    events: tuple[Event, ...]
    passed_over: int


def compare(log: RunLog, robot: Embodiment, config: ExecutorConfig, tolerance: float) -> Comparison:
    """Play every activation again and compare positions, velocities and accelerations.

    Raises EmbodimentMismatch for a bag of other joints.
    """
    if log.commands[0].joint_names != robot.joint_names or log.commands[0].period_ns != robot.period_ns:
        raise EmbodimentMismatch(
            f"{log.directory} holds commands for {len(log.commands[0].joint_names)} joints every "
            f"{log.commands[0].period_ns * 1e-6:g} ms, robot {robot.name!r} has {len(robot.joint_names)} and "
            f"{robot.period_ns * 1e-6:g} ms; name the recorded robot with --robot"
        )
    parts = activations(log)
    if not parts:
        never = "the arms never rest in this bag, so what they had been told before it is unknown"
        return Comparison(0, len(log.commands), 0, 0.0, None, ends=f"{never}; start recording before the first chunk")
    guard = _guard(log, robot)
    results = [_compare_one(log, robot, config, tolerance, part, guard) for part in parts]
    return Comparison(
        sum(r.compared for r in results),
        sum(r.passed_over for r in results),
        len(results),
        max(r.largest for r in results),
        next((r.first for r in results if r.first), None),
        next((r.verdict for r in results if r.verdict), ""),
        "; ".join(r.ends for r in results if r.ends),
        results[0].inexact,
    )


def activations(log: RunLog) -> list[Activation]:
    """Split the commands where their ticks start anew; each part begins at its first moment of rest."""
    starts = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(log.commands)) if b.tick <= a.tick), len(log.commands)]
    parts = []
    for first, end in pairwise(starts):
        commands = log.commands[first:end]
        still = next((i for i, c in enumerate(commands) if not (c.velocity.any() or c.acceleration.any())), None)
        if still is None or still + 1 >= len(commands):
            continue
        span = commands[0].nominal_ns - BESIDE_NS, commands[-1].nominal_ns + BESIDE_NS
        events = tuple(e for e in log.events if span[0] <= e.time_ns <= span[1])
        parts.append(Activation(commands[still:], events, still))
    return parts


def recording(log: RunLog, robot: Embodiment) -> Recording:
    """Return the chunks with their arrivals for the advisor, from the longest activation or from all there is.

    Raises ConfigError where nothing says where the arms were.
    """
    part = max(activations(log), key=lambda a: len(a.commands), default=None)
    judged = {event.chunk: event for event in log.events if event.chunk is not None}
    arrivals = []
    for heard in log.chunks:
        event = judged.get((heard.chunk.source, heard.chunk.sequence))
        arrivals.append(Arrival(event.time_ns if event else heard.log_ns, heard.chunk))
    arrivals.sort(key=lambda arrival: arrival.time_ns)
    if part is not None:
        first, last = part.commands[0], part.commands[-1]
        inside = tuple(a for a in arrivals if first.nominal_ns <= a.time_ns <= last.nominal_ns)
        return Recording(first.nominal_ns, first.position, inside, last.nominal_ns)
    start_ns = arrivals[0].time_ns - robot.period_ns
    end_ns = max(a.chunk.due_ns(a.chunk.rows - 1) for a in arrivals)
    return Recording(start_ns, _measured_start(log, robot, start_ns), tuple(arrivals), end_ns)


def _measured_start(log: RunLog, robot: Embodiment, start_ns: int) -> Floats:
    """Joints as they were measured last before start_ns, inside their bounds."""
    known: dict[str, float] = {}
    for stamp_ns, names, position in log.joints:
        if stamp_ns <= start_ns or not set(robot.joint_names) <= known.keys():
            known |= dict(zip(names, position.tolist(), strict=True))
    missing = [name for name in robot.joint_names if name not in known]
    if missing:
        raise ConfigError(
            f"{log.directory} holds neither commands nor joint states of {', '.join(missing)}; "
            "was joint_states recorded?"
        )
    start: Floats = np.array([known[name] for name in robot.joint_names])
    return start.clip(robot.limits.lower, robot.limits.upper)


def _guard(log: RunLog, robot: Embodiment) -> "Guard | None":
    """Return the guard that watched the recorded run."""
    if not log.parameters.get("guarded", False):
        return None
    return Guard(robot, describe(robot), build(GuardConfig, log.parameters.get("guard", {}), "guard"))


def _compare_one(
    log: RunLog, robot: Embodiment, config: ExecutorConfig, tolerance: float, part: Activation, guard: "Guard | None"
) -> Comparison:
    inputs, end_tick, ends = _inputs(log, part)
    commands = [c for c in part.commands if c.tick <= end_tick]
    ticks = [(c.tick, c.nominal_ns) for c in commands[1:]]
    played = play_ticks(robot, commands[0].position, commands[0].nominal_ns, ticks, inputs, config, guard)
    known = {event.chunk: event for event in part.events if event.chunk is not None}
    verdict = ""
    for judged in played.verdicts:
        event = known.get((Source(judged.source), judged.sequence))
        if event is not None and (event.trigger == "accepted") is not judged.accepted and not verdict:
            became = "is accepted now" if judged.accepted else f"is refused now: {judged.reason}"
            verdict = f"chunk {judged.sequence} was {event.trigger} and {became}"
            verdict += f" (then: {event.reason})" if judged.accepted else ""
    first = _difference(commands[1:], played.commands, robot, tolerance, part.events)
    pairs = zip(commands[1:], played.commands, strict=True)
    largest = max((float(np.abs(a.position - b.position).max()) for a, b in pairs), default=0.0)
    inexact = "executor/event was not recorded: chunks arrive when the recorder heard them, which may be a tick off"
    return Comparison(
        len(played.commands), part.passed_over, 1, largest, first, verdict, ends, "" if log.events else inexact
    )


def _inputs(log: RunLog, part: Activation) -> tuple[list[Input], int, str]:
    """What came from outside; the last tick that can be compared, and why not more."""
    first, last = part.commands[0], part.commands[-1]
    if not log.events:
        arrivals = [Arrival(h.log_ns, h.chunk) for h in log.chunks if first.nominal_ns <= h.log_ns <= last.nominal_ns]
        return [Input(_tick_before(part.commands, a.time_ns), a.time_ns, a) for a in arrivals], last.tick, ""
    chunks = {(h.chunk.source, h.chunk.sequence): h.chunk for h in log.chunks}
    inputs = list[Input]()
    for event in part.events:
        if event.tick < first.tick and event.chunk is None and event.trigger == "hold":
            inputs.append(Input(first.tick, event.time_ns, None, "hold", event.reason))
        if event.tick < first.tick:
            continue
        if event.chunk is not None:
            if event.chunk not in chunks:
                return inputs, event.tick, f"ends at tick {event.tick}: chunk {event.chunk[1]} was not recorded"
            inputs.append(Input(event.tick, event.time_ns, Arrival(event.time_ns, chunks[event.chunk])))
        elif event.trigger in REPEATED or (event.trigger == "watchdog" and event.state == FAULTED):
            trigger = "fault" if event.trigger == "watchdog" else event.trigger
            inputs.append(Input(event.tick, event.time_ns, None, trigger, event.reason))
        elif event.trigger in ("take_over", "deactivate", "relieve", "watchdog"):
            return inputs, event.tick, f"ends at tick {event.tick}: {event.trigger}, {event.reason}"
    return inputs, last.tick, ""


def _tick_before(commands: Sequence[Command], time_ns: int) -> int:
    """Tick of the last command that is meant for a time before `time_ns`."""
    return max((c.tick for c in commands if c.nominal_ns < time_ns), default=commands[0].tick)


def _difference(
    recorded: Sequence[Command], played: Sequence[Command], robot: Embodiment, tolerance: float, events: Sequence[Event]
) -> "Difference | None":
    for before, after in zip(recorded, played, strict=True):
        for quantity, share in (("position", 1.0), ("velocity", 1 / WITHIN_S), ("acceleration", 1 / WITHIN_S**2)):
            apart = np.abs(getattr(after, quantity) - getattr(before, quantity))
            if (apart <= tolerance * share).all():
                continue
            joint = int(apart.argmax())
            last = [e for e in events if e.tick < before.tick]
            return Difference(
                before.tick,
                before.nominal_ns,
                (before.nominal_ns - recorded[0].nominal_ns) * 1e-9,
                robot.joint_names[joint],
                quantity,
                float(getattr(before, quantity)[joint]),
                float(getattr(after, quantity)[joint]),
                _told(last[-1]) if last else "nothing",
            )
    return None


def _told(event: Event) -> str:
    if event.chunk is None:
        return f"{event.trigger} after tick {event.tick} ({event.reason})"
    return f"chunk {event.chunk[1]} of {event.chunk[0].name.lower()} {event.trigger} after tick {event.tick}"
