# SPDX-License-Identifier: Apache-2.0
"""Rows of chunks on one time axis: which row is due when, and what overlapping chunks agree on.

A row is placed by its chunk's observation time, never by arrival: rows that are already past are
skipped, not replayed. Where chunks overlap, a rule merges their rows:

* `ensemble`: weighted mean with weights exp(-decay * i), i = 0 for the oldest chunk that covers
  the time (the temporal ensembling of ACT, arXiv 2304.13705); keeps late rows of old chunks,
  where policies put most of their motion.
* `latest`: the newest chunk's rows.
* `crossfade`: from the running rows to the newest chunk's, linearly over `crossfade_s`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imagewam_ros.core.errors import ConfigError, unknown_name
from imagewam_ros.core.schema import ActionChunk, Floats

Times = NDArray[np.int64]

RULES = ("ensemble", "latest", "crossfade")

KEPT_CHUNKS = 8
"""Most chunks that take part in an ensemble."""

FINEST_NS = 20_000_000
"""Least distance of two rows; the curve's smoothing leaves nothing that finer rows could add."""

SHORTEST_NS = 300_000_000
"""Least time that a chunk covers, several time constants of the curve's smoothing."""


@dataclass(frozen=True)
class MergeConfig:
    """How chunks become rows.

    rule: one of `RULES`. decay: of the ensemble, per chunk; 0 is the plain mean, negative trusts
    the newest most. crossfade_s: length of the cross-fade. execute_horizon: rows of a chunk that
    run before a newer chunk may change them; 0 lets every chunk act at once. latency_skip_s: rows
    of a new chunk that are due sooner than this after its arrival are skipped as well.
    """

    rule: str = "ensemble"
    decay: float = 0.01
    crossfade_s: float = 0.2
    execute_horizon: int = 0
    latency_skip_s: float = 0.0

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ConfigError(unknown_name("merge rule", self.rule, RULES))
        if self.crossfade_s <= 0 or self.execute_horizon < 0 or self.latency_skip_s < 0:
            raise ConfigError(
                "crossfade_s must be positive, execute_horizon and latency_skip_s not negative, found "
                f"{self.crossfade_s}, {self.execute_horizon} and {self.latency_skip_s}"
            )


@dataclass(frozen=True)
class Rows:
    """Joint targets (n, joints) at ascending times_ns (n,)."""

    times_ns: Times
    positions: Floats

    def after(self, time_ns: int) -> "Rows":
        """Rows later than `time_ns`."""
        first = int(np.searchsorted(self.times_ns, time_ns, side="right"))
        return Rows(self.times_ns[first:], self.positions[first:])

    def until(self, time_ns: int) -> "Rows":
        """Rows not later than `time_ns`."""
        end = int(np.searchsorted(self.times_ns, time_ns, side="right"))
        return Rows(self.times_ns[:end], self.positions[:end])

    def covers(self, times_ns: Times) -> NDArray[np.bool_]:
        """(times,) True where a time lies between the first and the last row."""
        if not self.times_ns.size:
            return np.zeros(times_ns.shape, dtype=np.bool_)
        covered: NDArray[np.bool_] = (times_ns >= self.times_ns[0]) & (times_ns <= self.times_ns[-1])
        return covered

    def at(self, times_ns: Times) -> Floats:
        """Rows interpolated at times_ns by the cubic through the four nearest rows."""
        return _cubic(self.times_ns, self.positions, times_ns)


@dataclass(frozen=True)
class Timeline:
    """Merged rows and the chunks that they came from. Merging returns a new timeline.

    With an execute horizon, the running chunk's rows are protected until running_until_ns; the
    newest chunk, protected until following_until_ns, takes over then.
    """

    rows: Rows
    chunks: tuple[Rows, ...] = ()
    running_until_ns: int | None = None
    following_until_ns: int | None = None

    @staticmethod
    def empty(joints: int) -> "Timeline":
        """A timeline without rows."""
        return Timeline(Rows(np.zeros(0, np.int64), np.zeros((0, joints))))

    def merge(self, chunk: Rows, config: MergeConfig, horizon_end_ns: int, now_ns: int) -> "Timeline":
        """Merge the rows of a chunk that arrives at `now_ns`.

        horizon_end_ns is the time of the first row after the chunk's execute horizon.
        """
        start_ns = now_ns + round(config.latency_skip_s * 1e9)
        running, following = self.running_until_ns, self.following_until_ns
        if running is not None and now_ns >= running:
            running, following = following, None
        if config.execute_horizon == 0:
            running = following = None
        elif running is not None and now_ns < running:
            start_ns, following = max(start_ns, running), horizon_end_ns
        else:
            running, following = horizon_end_ns, None
        chunks = (*self.chunks, chunk)[-KEPT_CHUNKS:]
        fresh = chunk.after(start_ns)
        if not fresh.times_ns.size:
            return Timeline(self.rows.after(now_ns), chunks, running, following)
        gap = max(int(np.min(np.diff(chunk.times_ns))) // 2 if chunk.times_ns.size > 1 else 0, 1)
        parts = (
            self.rows.after(now_ns).until(int(fresh.times_ns[0]) - gap),
            Rows(fresh.times_ns, self._merged(fresh, chunks, config, now_ns)),
            self.rows.after(int(fresh.times_ns[-1]) + gap),
        )
        rows = Rows(np.concatenate([r.times_ns for r in parts]), np.concatenate([r.positions for r in parts]))
        return Timeline(rows, chunks, running, following)

    def _merged(self, fresh: Rows, chunks: tuple[Rows, ...], config: MergeConfig, now_ns: int) -> Floats:
        """Positions at the times of `fresh` by the rule."""
        times = fresh.times_ns
        if config.rule == "latest":
            return fresh.positions
        if config.rule == "crossfade":
            share = np.clip((times - now_ns) / (config.crossfade_s * 1e9), 0.0, 1.0)
            share = np.where(self.rows.covers(times), share, 1.0)[:, None]
            held = self.rows.at(times) if self.rows.times_ns.size else fresh.positions
            return held * (1 - share) + fresh.positions * share
        total, weights, age = np.zeros_like(fresh.positions), np.zeros(times.size), np.zeros(times.size)
        for chunk in chunks:
            covered = chunk.covers(times)
            weight = np.where(covered, np.exp(-config.decay * age), 0.0)
            total += weight[:, None] * chunk.at(times)
            weights += weight
            age += covered
        return total / weights[:, None]


def place(chunk: ActionChunk, positions: Floats) -> Rows:
    """Rows of `positions` (rows, any of the chunk's joints) at the chunk's due times.

    Rows closer together than FINEST_NS are thinned. A chunk that covers less than SHORTEST_NS,
    such as a teleoperation target, is extended by its last row, so that the curve has time to get there.
    """
    times = chunk.due_ns(0) + np.arange(chunk.rows, dtype=np.int64) * chunk.period_ns
    stride = -(-FINEST_NS // chunk.period_ns)
    keep = slice((chunk.rows - 1) % stride, None, stride)
    times, positions = times[keep], positions[keep]
    missing = SHORTEST_NS - int(times[-1] - times[0])
    if missing <= 0:
        return Rows(times, positions)
    spacing = max(chunk.period_ns, FINEST_NS)
    more = times[-1] + np.arange(1, -(-missing // spacing) + 1, dtype=np.int64) * spacing
    return Rows(np.concatenate([times, more]), np.concatenate([positions, np.repeat(positions[-1:], more.size, 0)]))


def _cubic(times_ns: Times, values: Floats, at_ns: Times) -> Floats:
    """Interpolate `values` (n, joints) by the Lagrange cubic through the four nearest rows; ends are held."""
    n = times_ns.size
    at = np.clip(at_ns, times_ns[0], times_ns[-1])
    exact = np.minimum(np.searchsorted(times_ns, at), n - 1)
    if n < 4:
        x = (times_ns - times_ns[0]).astype(np.float64)
        y = (at - times_ns[0]).astype(np.float64)
        return np.stack([np.interp(y, x, column) for column in values.T], axis=1)
    if np.array_equal(times_ns[exact], at):
        return values[exact]
    first = np.clip(np.searchsorted(times_ns, at, side="right") - 2, 0, n - 4)
    nodes = first[:, None] + np.arange(4)
    origin = times_ns[first][:, None]
    x = (times_ns[nodes] - origin) * 1e-9
    y = (at[:, None] - origin) * 1e-9
    result = np.zeros((at.size, values.shape[1]))
    for i in range(4):
        others = [k for k in range(4) if k != i]
        weight = np.prod((y - x[:, others]) / (x[:, i : i + 1] - x[:, others]), axis=1)
        result += weight[:, None] * values[nodes[:, i]]
    return result
