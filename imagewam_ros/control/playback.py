# SPDX-License-Identifier: Apache-2.0
"""Play a recorded activation again, tick by tick, with recorded time: the same inputs give the same commands.

What the executor decides by itself is left to it; what came from outside is repeated where it was
recorded: chunks at the moment at which they were judged, holds, resets and faults of the watchdogs.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from imagewam_ros.control.advisor import Arrival
from imagewam_ros.control.executor import Executor, ExecutorConfig, State
from imagewam_ros.control.report import Status
from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.schema import Command, Floats, JointState

if TYPE_CHECKING:  # pinocchio is loaded only where a guard is wanted
    from imagewam_ros.control.guard import Guard

REPEATED = ("hold", "resume", "fault", "reset_fault", "release")
"""Triggers from outside that are repeated. `take_over` and `deactivate` end a playback."""


class Input(NamedTuple):
    """Something from outside that came after tick `tick`: a chunk, or a trigger of `REPEATED` with its reason."""

    tick: int
    time_ns: int
    arrival: "Arrival | None" = None
    trigger: str = ""
    reason: str = ""


class Verdict(NamedTuple):
    """What became of a chunk in the playback."""

    source: int
    sequence: int
    accepted: bool
    reason: str


class Playback(NamedTuple):
    """Commands in order, one per recorded tick, each chunk's verdict, the executor's last report, and held ticks."""

    commands: tuple[Command, ...]
    verdicts: tuple[Verdict, ...]
    status: Status
    held: int


def play_ticks(
    robot: Embodiment,
    start: Floats,
    start_ns: int,
    ticks: Sequence[tuple[int, int]],
    inputs: Iterable[Input],
    config: "ExecutorConfig | None" = None,
    guard: "Guard | None" = None,
) -> Playback:
    """Play `ticks`, (recorded number, nominal time in ns) each, from rest at `start` (joints,) at start_ns."""
    executor, waiting = Executor(robot, config, guard), sorted(inputs, key=lambda given: (given.tick, given.time_ns))
    executor.activate(start_ns, JointState(start_ns, robot.joint_names, start, np.zeros(start.size)))
    commands, verdicts, held = list[Command](), list[Verdict](), 0
    before: int | None = None
    for number, nominal_ns in ticks:
        while waiting and waiting[0].tick < number:
            _give(executor, waiting.pop(0), verdicts)
        # Late ticks make up for two periods at least, so a longer time in one tick means that the clock was set.
        step = executor.step(nominal_ns, elapsed_ns=0 if before == number - 1 else None)
        before = number
        commands.append(step.command)
        held += step.state is State.HOLDING
    return Playback(tuple(commands), tuple(verdicts), executor.status, held)


def _give(executor: Executor, given: Input, verdicts: list[Verdict]) -> None:
    if given.arrival is not None:
        chunk = given.arrival.chunk
        verdict = executor.accept(chunk, given.arrival.time_ns)
        verdicts.append(Verdict(int(chunk.source), chunk.sequence, verdict.accepted, verdict.reason))
    elif given.trigger in ("hold", "fault"):
        getattr(executor, given.trigger)(given.reason)
    elif given.trigger == "release":
        executor.release(given.time_ns)
    elif given.trigger in REPEATED:
        getattr(executor, given.trigger)()
