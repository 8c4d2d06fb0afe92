# SPDX-License-Identifier: Apache-2.0
"""What of one episode may be learned from: its unbroken stretches of frames, judged as a conversion judges them."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from imagewam_ros.core.errors import EpisodeError
from imagewam_ros.data.bag_streams import Plan, plan_frames, read_streams
from imagewam_ros.data.episode import Provenance
from imagewam_ros.data.interventions import SHORTEST, lessons
from imagewam_ros.data.judge import IDLE_S, IDLE_STEP, at_rate, check_clock
from imagewam_ros.data.report import nonidle_ranges, segments


class Stretch(NamedTuple):
    """Rows of a plan without a hole in between. open_end: nobody knows what came after the last one."""

    rows: slice
    open_end: bool


@dataclass(frozen=True)
class Lesson:
    """What is learned from one episode. plan holds the frames of its stretches, one stretch after the other.

    holes counts breaks between frames; idle_frames were cut off at beginnings, short_frames lay in stretches
    of fewer than SHORTEST frames.
    """

    directory: Path
    provenance: Provenance
    plan: Plan
    stretches: tuple[Stretch, ...]
    holes: int
    idle_frames: int
    short_frames: int


def judge(directory: Path, trim_idle: bool = False) -> Lesson | str:
    """Return what is learned from an episode, or in words why nothing is."""
    try:
        lesson = read_lesson(directory, trim_idle)
    except EpisodeError as error:
        return str(error)
    return lesson if lesson.stretches else f"no unbroken stretch of {SHORTEST} frames to learn from"


def read_lesson(directory: Path, trim_idle: bool = False) -> Lesson:
    """Read stamps and joints of an episode and choose its frames. trim_idle cuts the idle beginning of each stretch.

    Raises EpisodeError when it is damaged, when its stamps jump or its rate is no multiple of the policy's.
    """
    streams = read_streams(directory)
    check_clock(streams)
    about = streams.provenance
    plan = at_rate(plan_frames(streams), about.period_ns)
    unbroken = segments(plan.stamps_ns, about.period_ns)
    found, idle = [], 0
    for stretch in _taught(plan, about, unbroken):
        start = stretch.rows.start + (_idle_beginning(plan.part(stretch.rows), about.period_ns) if trim_idle else 0)
        idle += start - stretch.rows.start
        found.append(Stretch(slice(start, stretch.rows.stop), stretch.open_end))
    kept = [stretch for stretch in found if _length(stretch) >= SHORTEST]
    rows = np.concatenate([np.arange(len(plan))[stretch.rows] for stretch in kept] or [np.arange(0)])
    ends = np.cumsum([_length(stretch) for stretch in kept]).tolist()
    return Lesson(
        directory=directory,
        provenance=about,
        plan=plan.part(rows),
        stretches=tuple(
            Stretch(slice(end - _length(one), end), one.open_end) for one, end in zip(kept, ends, strict=True)
        ),
        holes=len(unbroken) - 1,
        idle_frames=idle,
        short_frames=sum(map(_length, found)) - len(rows),
    )


def _taught(plan: Plan, about: Provenance, unbroken: list[tuple[int, int]]) -> list[Stretch]:
    """Stretches that somebody showed. Only the end of a whole demonstration is one where the task was done."""
    spans = about.interventions
    found = []
    for shown in lessons(plan.stamps_ns, spans):
        for first, end in unbroken:
            rows = slice(max(first, shown.start), min(end, shown.stop))
            if rows.start < rows.stop:
                found.append(Stretch(rows, bool(spans) or end < len(plan)))
    return found


def _idle_beginning(part: Plan, period_ns: int) -> int:
    """Number of frames before somebody moves."""
    shortest = max(1, round(IDLE_S * 1e9 / period_ns))
    return nonidle_ranges(part.positions, part.actions, IDLE_STEP, shortest)[0][0]


def _length(stretch: Stretch) -> int:
    return int(stretch.rows.stop - stretch.rows.start)
