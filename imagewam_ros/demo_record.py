# SPDX-License-Identifier: Apache-2.0
"""What the demo remembers of an episode, and the figures made of it. Nothing here is from ROS."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from imagewam_ros.core.errors import EpisodeError
from imagewam_ros.core.schema import Command, Floats

Stamps = NDArray[np.int64]
Pair = tuple[float, float] | None
"""p50 and p95, or nothing where nothing was measured."""


class Sent(NamedTuple):
    """Every executor/command of an episode: (n,) or (n, joints). sent_ns is the moment of sending."""

    tick: Stamps
    nominal_ns: Stamps
    sent_ns: Stamps
    position: Floats
    velocity: Floats
    acceleration: Floats


class Measured(NamedTuple):
    """Every joint state of an episode: (n,) and (n, joints)."""

    stamp_ns: Stamps
    position: Floats


class Chunks(NamedTuple):
    """Every chunk of an episode, each (n,)."""

    stamp_ns: Stamps
    ready_ns: Stamps
    inference_s: Floats


@dataclass(frozen=True)
class EpisodeRecord:
    """One episode. Times end in their unit; episode_s is simulated, wall_s is not.

    limited_ticks, refused_chunks: the executor's own counts. camera_hz: images received per
    simulated second, by camera.
    """

    seed: int
    instruction: str
    success: bool
    episode_s: float
    wall_s: float
    period_ns: int
    joint_names: tuple[str, ...]
    limited_ticks: int
    refused_chunks: int
    camera_hz: Mapping[str, float]
    sent: Sent
    measured: Measured
    chunks: Chunks

    def commands(self) -> list[Command]:
        """Sent samples as values of core, for the checker."""
        ticks, times = self.sent.tick.tolist(), self.sent.nominal_ns.tolist()
        rows = zip(ticks, times, self.sent.position, self.sent.velocity, self.sent.acceleration, strict=True)
        return [Command(t, ns, self.period_ns, self.joint_names, q, v, a) for t, ns, q, v, a in rows]

    def save(self, path: Path) -> None:
        """Write one .npz without pickles."""
        arrays = {f"{part}.{key}": value for part in PARTS for key, value in getattr(self, part)._asdict().items()}
        facts = {name: getattr(self, name) for name in FACTS}
        with path.open("wb") as file:
            np.savez(file, facts=np.array(json.dumps(facts)), **arrays)

    @classmethod
    def load(cls, path: Path) -> "EpisodeRecord":
        """Read what `save` wrote. Raises EpisodeError."""
        try:
            with np.load(path, allow_pickle=False) as file:
                facts = json.loads(str(file["facts"]))
                parts: dict[str, Any] = {n: t(*(file[f"{n}.{key}"] for key in t._fields)) for n, t in PARTS.items()}
        except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
            raise EpisodeError(f"cannot read episode {path}: {error}; run the demo again") from None
        return cls(**{**facts, "joint_names": tuple(facts["joint_names"])}, **parts)


PARTS: dict[str, type[Sent] | type[Measured] | type[Chunks]] = {"sent": Sent, "measured": Measured, "chunks": Chunks}
FACTS = [name for name in EpisodeRecord.__dataclass_fields__ if name not in PARTS]


@dataclass(frozen=True)
class Figures:
    """What the table and demo.json say of an episode."""

    seed: int
    success: bool
    episode_s: float
    rtf: float
    chunks: int
    refused_chunks: int
    inference_ms: Pair
    camera_to_chunk_ms: Pair
    executor_hz: float
    jitter_ms: Pair
    camera_hz: float
    limit_hits: int
    limit_violations: int

    @classmethod
    def of(cls, record: EpisodeRecord, limit_violations: int) -> "Figures":
        """Figures of one record. jitter is how far the time between two commands is off the period."""
        intervals_ns = np.diff(record.sent.sent_ns)
        return cls(
            seed=record.seed,
            success=record.success,
            episode_s=round(record.episode_s, 2),
            rtf=round(record.episode_s / record.wall_s, 3) if record.wall_s else 0.0,
            chunks=len(record.chunks.stamp_ns),
            refused_chunks=record.refused_chunks,
            inference_ms=_p50_p95(record.chunks.inference_s * 1e3),
            camera_to_chunk_ms=_p50_p95((record.chunks.ready_ns - record.chunks.stamp_ns) / 1e6),
            executor_hz=round(1e9 / float(intervals_ns.mean()), 2) if len(intervals_ns) else 0.0,
            jitter_ms=_p50_p95(np.abs(intervals_ns - record.period_ns) / 1e6),
            camera_hz=round(min(record.camera_hz.values(), default=0.0), 2),
            limit_hits=record.limited_ticks,
            limit_violations=limit_violations,
        )


def _p50_p95(values: Floats) -> Pair:
    if not len(values):
        return None
    p50, p95 = np.quantile(values, (0.5, 0.95))
    return (round(float(p50), 3), round(float(p95), 3))


def table(figures: list[Figures]) -> str:
    """Text table, one row per episode."""
    head = (
        "episode",
        "seed",
        "success",
        "time s",
        "chunks",
        "refused",
        "inference ms",
        "camera-chunk ms",
        "jitter ms",
        "limit hits",
        "violations",
    )
    rows = [head, *(_row(number, f) for number, f in enumerate(figures, 1))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:], "pairs are p50/p95"])


def _row(number: int, f: Figures) -> tuple[str, ...]:
    pairs = (_text(f.inference_ms, 1), _text(f.camera_to_chunk_ms, 1), _text(f.jitter_ms, 2))
    counts = (str(f.limit_hits), str(f.limit_violations))
    return (
        str(number),
        str(f.seed),
        "yes" if f.success else "NO",
        f"{f.episode_s:.1f}",
        str(f.chunks),
        str(f.refused_chunks),
        *pairs,
        *counts,
    )


def _text(pair: Pair, digits: int) -> str:
    return "/".join(f"{value:.{digits}f}" for value in pair) if pair else "-"


def totals(figures: list[Figures]) -> dict[str, float | None]:
    """One flat summary for programs: rates of the worst episode, times as the mean of the medians."""

    def mean_p50(pairs: list[Pair]) -> float | None:
        values = [pair[0] for pair in pairs if pair]
        return round(float(np.mean(values)), 2) if values else None

    return {
        "episodes": len(figures),
        "successes": sum(f.success for f in figures),
        "rtf": min((f.rtf for f in figures), default=0.0),
        "executor_hz": min((f.executor_hz for f in figures), default=0.0),
        "camera_hz": min((f.camera_hz for f in figures), default=0.0),
        "limit_violations": sum(f.limit_violations for f in figures),
        "camera_to_chunk_ms": mean_p50([f.camera_to_chunk_ms for f in figures]),
        "inference_ms": mean_p50([f.inference_ms for f in figures]),
    }
