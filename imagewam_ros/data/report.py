# SPDX-License-Identifier: Apache-2.0
"""What is wrong with an episode, in numbers: rates, jitter, gaps, holes between frames, idle stretches."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from imagewam_ros.core.schema import Floats
from imagewam_ros.data.bag import read_information
from imagewam_ros.data.bag_counts import COUNTS_KEY
from imagewam_ros.data.bag_streams import Plan, Stamps, Streams
from imagewam_ros.data.interventions import runs

GAP = 1.5
"""A stretch between neighbours is a gap, or a hole, when it is longer than this many periods."""

IDLE_RANGES = "imagewam_nonidle_ranges_v1"
"""Format name of nonidle_ranges.json, which the authors' training reads: frames [start, end) to keep."""


@dataclass(frozen=True)
class StreamReport:
    """One stream by its stamps: rate in Hz, jitter (standard deviation of intervals) and longest gap in ms."""

    messages: int
    rate_hz: float
    jitter_ms: float
    gaps: int
    longest_gap_ms: float


@dataclass
class EpisodeReport:
    """One episode's row in the report. reason is empty where it was accepted."""

    name: str
    reason: str = ""
    label: str = ""
    instruction: str = ""
    frames: int = 0
    duration_s: float = 0.0
    holes: int = 0
    longest_hole_ms: float = 0.0
    idle_frames: int = 0
    trimmed_frames: int = 0
    rejected_frames: Mapping[str, int] = field(default_factory=dict)
    late_messages: Mapping[str, int] = field(default_factory=dict)
    streams: Mapping[str, StreamReport] = field(default_factory=dict)
    recorder: Mapping[str, Any] = field(default_factory=dict)

    @property
    def accepted(self) -> bool:
        """Whether the episode is in the data set."""
        return not self.reason


def stream_report(stamps_ns: Stamps) -> StreamReport:
    """Describe one stream by its stamps, (messages,) ascending."""
    intervals = np.diff(stamps_ns) / 1e6
    if not len(intervals):
        return StreamReport(len(stamps_ns), 0.0, 0.0, 0, 0.0)
    period = float(np.median(intervals))
    return StreamReport(
        messages=len(stamps_ns),
        rate_hz=round(1e3 / float(intervals.mean()), 3),
        jitter_ms=round(float(intervals.std()), 3),
        gaps=int((intervals > GAP * period).sum()),
        longest_gap_ms=round(float(intervals.max()), 3),
    )


def describe(report: EpisodeReport, streams: Streams, plan: Plan) -> None:
    """Fill in what the streams and the frames say."""
    measured = {**streams.images, "joints": streams.joints.stamps_ns, "action": streams.actions.stamps_ns}
    report.streams = {name: stream_report(stamps) for name, stamps in measured.items()}
    report.label, report.instruction = streams.provenance.label, streams.provenance.instruction
    report.frames, report.rejected_frames, report.late_messages = len(plan), plan.rejected, streams.late
    report.duration_s = round(float(plan.stamps_ns[-1] - plan.stamps_ns[0]) / 1e9, 3)
    spacing = np.diff(plan.stamps_ns)
    report.holes = int((spacing > GAP * streams.provenance.period_ns).sum())
    report.longest_hole_ms = round(float(spacing.max(initial=0)) / 1e6, 3)
    report.recorder = recorder_counts(streams.directory)


def recorder_counts(directory: Path) -> dict[str, Any]:
    """Return what the recorder counted, empty where the episode was made without one."""
    counted: dict[str, Any] = json.loads(read_information(directory)["custom_data"].get(COUNTS_KEY, "{}"))
    return counted


def segments(stamps_ns: Stamps, period_ns: int) -> list[tuple[int, int]]:
    """Ranges of frames [start, end) without a hole in between."""
    breaks = np.flatnonzero(np.diff(stamps_ns) > GAP * period_ns) + 1
    edges = [0, *breaks.tolist(), len(stamps_ns)]
    return list(pairwise(edges))


def nonidle_ranges(positions: Floats, actions: Floats, threshold: float, shortest: int) -> list[list[int]]:
    """Ranges of frames [start, end) that are no idle stretch; both inputs are (frames, joints).

    A frame is idle when neither its target nor the robot moves by more than `threshold` (rad or
    m, the largest joint) until the next one. Stretches of fewer than `shortest` frames stay, and
    so does the last one: an episode's end at rest shows that the task is done.
    """
    steps = np.maximum(np.abs(np.diff(actions, axis=0)), np.abs(np.diff(positions, axis=0))).max(1, initial=0)
    idle = np.append(steps <= threshold, False)
    keep = np.ones(len(idle), dtype=bool)
    for start, end in runs(idle):
        if end - start >= shortest and end < len(idle) - 1:
            keep[start:end] = False
    return [list(pair) for pair in runs(keep)]


def summary(reports: Sequence[EpisodeReport]) -> dict[str, Any]:
    """Return the whole report as plain data."""
    accepted = [report for report in reports if report.accepted]
    return {
        "episodes": len(reports),
        "accepted": len(accepted),
        "rejected": len(reports) - len(accepted),
        "frames": sum(report.frames for report in accepted),
        "details": [{**asdict(report), "accepted": report.accepted} for report in reports],
    }


def table(reports: Sequence[EpisodeReport]) -> str:
    """Return one line per episode for a person: slowest stream, worst jitter and gap, the reason of a rejection."""
    lines = [f"{'episode':<28}{'frames':>7}{'min Hz':>8}{'jitter':>8}{'gaps':>6}{'longest':>10}{'idle':>6}  verdict"]
    for report in reports:
        streams = report.streams.values()
        rate = min((stream.rate_hz for stream in streams), default=0.0)
        jitter = max((stream.jitter_ms for stream in streams), default=0.0)
        gaps, longest = sum(s.gaps for s in streams), max((s.longest_gap_ms for s in streams), default=0.0)
        lines.append(
            f"{report.name:<28}{report.frames:>7}{rate:>8.1f}{jitter:>8.1f}{gaps:>6}{longest:>8.0f}ms"
            f"{report.idle_frames:>6}  {report.reason or 'accepted'}"
        )
    return "\n".join(lines)
