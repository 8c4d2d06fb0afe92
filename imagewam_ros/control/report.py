# SPDX-License-Identifier: Apache-2.0
"""What the executor tells: its state, each step, each change of state, its counters."""

from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from imagewam_ros.control.ledger import Travel
from imagewam_ros.core.schema import Command


class State(Enum):
    """What the executor is doing."""

    UNCONFIGURED = "unconfigured"
    INACTIVE = "inactive"
    HOLDING = "holding"
    RUNNING = "running"
    TAKEOVER = "takeover"
    FAULTED = "faulted"


OBEYING = (State.HOLDING, State.RUNNING, State.TAKEOVER)
"""States in which chunks may be accepted."""


class Step(NamedTuple):
    """One call of `step`: the command, the state after it and why.

    periods counts nominal periods since the command before: 0 when the call came before the next
    nominal time and the command is the one already sent, more than 1 when it came late. A silent
    step's command, which rests, must not be sent.
    """

    command: Command
    state: State
    reason: str
    periods: int = 1
    silent: bool = False


class Transition(NamedTuple):
    """A change of state, or of what the state waits for."""

    tick: int
    before: State
    after: State
    trigger: str
    reason: str


@dataclass(frozen=True)
class Status:
    """What the executor reports. Counters start at activation.

    limited_ticks counts commands that differed from the reference, braked_ticks those that braked
    for a position bound, guarded_ticks those that braked for the guard, starved_ticks those that
    held although an accepted chunk covered them.
    """

    state: State
    reason: str
    tick: int = 0
    nominal_ns: int = 0
    commander: str = ""
    taken_over: tuple[str, ...] = ()
    chunk_age_ns: int | None = None
    accepted: int = 0
    clamped: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    last_refusal: str = ""
    late_ticks: int = 0
    time_jumps: int = 0
    limited_ticks: int = 0
    braked_ticks: int = 0
    guarded_ticks: int = 0
    starved_ticks: int = 0
    travel: dict[str, Travel] = field(default_factory=dict)


@dataclass
class Counters:
    """Counts since activation; the names are those of `Status`."""

    accepted: int = 0
    clamped: int = 0
    late_ticks: int = 0
    time_jumps: int = 0
    limited_ticks: int = 0
    braked_ticks: int = 0
    guarded_ticks: int = 0
    starved_ticks: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    last_refusal: str = ""
