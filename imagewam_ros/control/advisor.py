# SPDX-License-Identifier: Apache-2.0
"""Play recorded chunks again: find where the result differs, and which way of merging suits them.

A recording holds what arrived and when; the same executor plays it with recorded time, so the same
parameters give the same commands. Other parameters are tried on the same chunks: what the policy
would have predicted from where these would have led is not known, so the advice is a start for a
trial on the robot, not its replacement.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

import numpy as np

from imagewam_ros.control.executor import Executor, ExecutorConfig, State
from imagewam_ros.control.report import Status
from imagewam_ros.control.timeline import RULES, Rows, place
from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.schema import ActionChunk, Command, Floats, JointState

SWEPT = ("rule", "execute_horizon", "latency_skip_s")
"""Parameters of the executor that are swept."""

HORIZONS = (0, 8, 16)
SKIPS_S = (0.0, 0.05, 0.1)

ENOUGH_TRAVEL = 0.97
"""Share of the best travel ratio that a recommended setting must reach."""

LITTLE_TRAVEL = 0.8
"""Where even the best setting executes less of the predicted travel, merging is not what is wrong."""


class Arrival(NamedTuple):
    """A chunk and the time at which the executor got it, ns of the stamps' clock."""

    time_ns: int
    chunk: ActionChunk


@dataclass(frozen=True)
class Recording:
    """start (joints,) is where the arms were at start_ns; arrivals are in order of time."""

    start_ns: int
    start: Floats
    arrivals: tuple[Arrival, ...]
    end_ns: int

    def __post_init__(self) -> None:
        if not self.arrivals:
            raise ConfigError("the recording holds no chunks; was policy/action_chunk recorded?")
        if any(b.time_ns < a.time_ns for a, b in zip(self.arrivals, self.arrivals[1:], strict=False)):
            raise ConfigError("the recording's chunks are not in order of their arrival; sort them by receive time")

    @property
    def duration_s(self) -> float:
        """Length of the recording."""
        return (self.end_ns - self.start_ns) * 1e-9


class Played(NamedTuple):
    """Commands of one playback, the executor's last report, and the share of ticks that held."""

    commands: tuple[Command, ...]
    status: Status
    held: float


def play(robot: Embodiment, recording: Recording, config: "ExecutorConfig | None" = None) -> Played:
    """Play a recording through the executor with recorded time."""
    executor, waiting = Executor(robot, config), list(recording.arrivals)
    now_ns, commands, held = recording.start_ns, list[Command](), 0
    executor.activate(now_ns, JointState(now_ns, robot.joint_names, recording.start, np.zeros(recording.start.size)))
    while (now_ns := executor.next_ns) <= recording.end_ns:
        while waiting and waiting[0].time_ns <= now_ns:
            executor.accept(waiting.pop(0).chunk, now_ns)
        step = executor.step(now_ns)
        commands.append(step.command)
        held += step.state is State.HOLDING
    return Played(tuple(commands), executor.status, held / max(len(commands), 1))


class Divergence(NamedTuple):
    """Where two series first differ: number of the element, the joint, and both values."""

    place: int
    joint: str
    recorded: float
    played: float

    def __str__(self) -> str:
        difference = self.played - self.recorded
        change = f"{self.recorded} became {self.played} ({difference:+.2e})"
        return f"first divergence at {self.place}, joint {self.joint!r}: {change}"


def first_divergence(
    recorded: Sequence[Floats], played: Sequence[Floats], joint_names: Sequence[str], tolerance: float
) -> "Divergence | None":
    """Compare positions (joints,) or chunks (rows, joints) one by one; None when all agree to `tolerance`.

    Raises ConfigError when one series is longer: then something was refused or is missing.
    """
    for index, (before, after) in enumerate(zip(recorded, played, strict=False)):
        apart = np.abs(np.atleast_2d(after) - np.atleast_2d(before))
        if not (apart <= tolerance).all():
            row, joint = divmod(int(np.where(np.isnan(apart), np.inf, apart).argmax()), apart.shape[1])
            values = float(np.atleast_2d(before)[row, joint]), float(np.atleast_2d(after)[row, joint])
            return Divergence(index, joint_names[joint], *values)
    if len(recorded) != len(played):
        raise ConfigError(f"{len(recorded)} were recorded but {len(played)} played; all that both have agree")
    return None


class Trial(NamedTuple):
    """One setting on one recording.

    travel: executed over predicted, of the worse arm. stale: rms distance of the command from what
    the newest chunk said about that moment, rad. roughness: rms jerk over the limit. held: share of
    ticks without motion to make. gripper_lost: gripper events that never came.
    """

    config: ExecutorConfig
    travel: float
    stale: float
    roughness: float
    held: float
    gripper_lost: int

    def figures(self) -> dict[str, float]:
        """Return the figures by name."""
        return {name: float(getattr(self, name)) for name in ("travel", "stale", "roughness", "held", "gripper_lost")}

    def __str__(self) -> str:
        c = self.config
        return (
            f"{c.rule:10} horizon {c.execute_horizon:2}  skip {c.latency_skip_s * 1e3:3.0f} ms  "
            f"travel {self.travel:5.3f}  stale {self.stale:7.4f}  rough {self.roughness:5.3f}  "
            f"held {self.held:5.3f}  lost {self.gripper_lost}"
        )


def sweep(
    robot: Embodiment,
    recording: Recording,
    base: "ExecutorConfig | None" = None,
    rules: Iterable[str] = RULES,
    horizons: Iterable[int] = HORIZONS,
    skips_s: Iterable[float] = SKIPS_S,
) -> list[Trial]:
    """Try every combination of merge rule, execute horizon and latency skip on one recording."""
    return [trial(robot, recording, config) for config in settings(base, rules, horizons, skips_s)]


def settings(
    base: "ExecutorConfig | None" = None,
    rules: Iterable[str] = RULES,
    horizons: Iterable[int] = HORIZONS,
    skips_s: Iterable[float] = SKIPS_S,
) -> list[ExecutorConfig]:
    """Return every combination, and `base` itself where it is none of them."""
    base = base or ExecutorConfig()
    found = [
        replace(base, rule=r, execute_horizon=h, latency_skip_s=s) for r, h, s in product(rules, horizons, skips_s)
    ]
    return found if base in found else [base, *found]


class Advice(NamedTuple):
    """The recommended setting and why; warning says what no setting mends."""

    trial: Trial
    reason: str
    warning: str = ""


def recommend(trials: Sequence[Trial]) -> Advice:
    """Choose: least held, no gripper event lost that another keeps, enough travel; then the least stale.

    Settings that are as little stale within a tenth are told apart by their roughness.
    """
    calm = min(trial.held for trial in trials)
    candidates = [t for t in trials if t.held <= calm + 0.01]
    fewest = min(t.gripper_lost for t in candidates)
    candidates = [t for t in candidates if t.gripper_lost == fewest]
    best = max(min(t.travel, 1.0) for t in candidates)
    candidates = [t for t in candidates if t.travel >= ENOUGH_TRAVEL * best]
    freshest = min(t.stale for t in candidates)
    chosen = min((t for t in candidates if t.stale <= 1.1 * freshest + 1e-6), key=lambda t: t.roughness)
    reason = (
        f"of {len(trials)} settings, {len(candidates)} reach {ENOUGH_TRAVEL:.0%} of the best travel ({best:.3f}) "
        "without holding more or losing more gripper events; this one is the smoothest of the least stale"
    )
    warning = "" if best >= LITTLE_TRAVEL else (
        f"even the best setting executes {best:.0%} of the predicted travel. Where chunks move late, each is replaced "
        "before it does: ask the policy less often (replan_period_s) or commit rows (sampling.chunking). Where rows "
        "jitter, smoothing takes that out, and it is no loss"
    )  # fmt: skip
    return Advice(chosen, reason, warning)


def trial(robot: Embodiment, recording: Recording, config: ExecutorConfig) -> Trial:
    """Play the recording with one setting and say how it did."""
    played = play(robot, recording, config)
    positions = np.array([command.position for command in played.commands])
    times = np.array([command.nominal_ns for command in played.commands], dtype=np.int64)
    arms = ~robot.gripper_mask
    jerk = np.diff(positions, 3, axis=0)[:, arms] / (robot.period_ns * 1e-9) ** 3 / robot.limits.jerk[arms]
    travels = played.status.travel.values()
    return Trial(
        config,
        min(travel.ratio for travel in travels),
        _stale(recording, times, positions[:, arms], arms),
        float(np.sqrt(np.mean(jerk**2))) if jerk.size else 0.0,
        played.held,
        sum(travel.gripper_lost for travel in travels),
    )


def _stale(
    recording: Recording,
    times: "np.ndarray[tuple[int], np.dtype[np.int64]]",
    positions: Floats,
    arms: "np.ndarray[tuple[int], np.dtype[np.bool_]]",
) -> float:
    """Rms distance of positions (ticks, arm joints) from the newest chunk that covers each tick."""
    said = np.full(positions.shape, np.nan)
    for arrival in recording.arrivals:
        rows: Rows = place(arrival.chunk, arrival.chunk.positions)
        if rows.positions.shape[1] != arms.size or not np.isfinite(rows.positions).all():
            continue
        covered = (times >= arrival.time_ns) & rows.covers(times)
        said[covered] = rows.at(times[covered])[:, arms] if covered.any() else said[covered]
    known = ~np.isnan(said).any(axis=1)
    return float(np.sqrt(np.mean((positions[known] - said[known]) ** 2))) if known.any() else 0.0
