# SPDX-License-Identifier: Apache-2.0
"""Judge one recorded episode and stage what is good of it for a LeRobot data set."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from imagewam_ros.core.errors import ConfigError, EpisodeError
from imagewam_ros.data.bag_streams import Plan, Streams, frame_images, plan_frames, read_streams
from imagewam_ros.data.episode import LABELS, Provenance, read_provenance
from imagewam_ros.data.interventions import SHORTEST, corrected, lessons
from imagewam_ros.data.judge import IDLE_S, IDLE_STEP, at_rate, check_clock
from imagewam_ros.data.lerobot_stage import is_staged, stage
from imagewam_ros.data.report import EpisodeReport, describe, nonidle_ranges, segments

SHARED = ("robot", "joint_names", "period_ns", "first_row_offset_periods", "latency_ns")
"""Fields of the provenance in which all episodes of a data set agree."""


@dataclass(frozen=True)
class ConvertConfig:
    """How to convert.

    labels are those that are taken; policy_runs also takes what a policy did while nobody took over.
    Idle means that no joint moves by more than idle_step (rad or m per frame) for idle_s; trim_idle cuts such a start
    off, nonidle_ranges.json names the rest.
    split_holes makes several episodes of one in which frames are missing, instead of rejecting it.
    latency_s maps streams (a camera, "joints") to seconds, as pairs, and replaces what was recorded.
    """

    version: str = "v3.0"
    labels: tuple[str, ...] = ("success",)
    policy_runs: bool = False
    crf: int = 18
    horizon: int = 16
    idle_step: float = IDLE_STEP
    idle_s: float = IDLE_S
    trim_idle: bool = False
    split_holes: bool = False
    shortest_s: float = 1.0
    latency_s: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        unknown = [label for label in self.labels if label not in LABELS]
        if unknown or not self.labels:
            raise ConfigError(f"labels are some of {', '.join(LABELS)}, found {', '.join(self.labels) or 'none'}")
        if not 0 <= self.crf <= 51 or self.horizon < 1 or self.idle_step < 0 or self.idle_s <= 0 or self.shortest_s < 0:
            raise ConfigError("crf is 0 to 51; horizon and idle_s are positive; idle_step and shortest_s not negative")


def frames_per_second(period_ns: int) -> int:
    """Return the whole number of frames per second of a period. Raises EpisodeError where there is none."""
    fps = round(1e9 / period_ns)
    if abs(1e9 / period_ns - fps) > 0.01:
        raise EpisodeError(f"a period of {period_ns} ns is {1e9 / period_ns:.3f} frames per second, not a whole number")
    return fps


def convert_episode(directory: Path, work: Path, config: ConvertConfig, shared: Provenance) -> list[EpisodeReport]:
    """Judge and stage one episode. A rejected one has one report with the reason."""
    report = EpisodeReport(directory.name)
    try:
        return list(_stage_parts(directory, work, config, shared, report))
    except EpisodeError as error:
        report.reason = str(error)
        return [report]


def _stage_parts(
    directory: Path, work: Path, config: ConvertConfig, shared: Provenance, report: EpisodeReport
) -> Iterator[EpisodeReport]:
    about = read_provenance(directory)
    report.label, report.instruction = about.label, about.instruction
    _check_label(about, config)
    _check_shared(about, shared, config)
    streams = read_streams(directory)
    streams = dataclasses.replace(streams, provenance=with_latency(streams.provenance, config))
    check_clock(streams)
    plan = at_rate(plan_frames(streams), streams.provenance.period_ns)
    describe(report, streams, plan)
    for number, (name, part) in enumerate(_parts(directory.name, plan, streams, config, report)):
        single = dataclasses.replace(report, name=name, frames=len(part)) if number or name != report.name else report
        if lessons(part.stamps_ns, about.interventions):
            _stage_part(directory, part, work / name, config, single, streams)
        else:
            single.reason = f"of a corrected run, without {SHORTEST} corrected frames in a row: nothing to learn from"
        yield single


def _parts(
    name: str, plan: Plan, streams: Streams, config: ConvertConfig, report: EpisodeReport
) -> list[tuple[str, Plan]]:
    """Stretches of an episode without holes, trimmed. Raises EpisodeError when none is left."""
    period_ns = streams.provenance.period_ns
    ranges = segments(plan.stamps_ns, period_ns)
    if len(ranges) == len(plan) > 1:
        spacing_ms = float((plan.stamps_ns[1:] - plan.stamps_ns[:-1]).mean()) / 1e6
        raise EpisodeError(
            f"frames are {spacing_ms:.1f} ms apart, the period is {period_ns / 1e6:.1f} ms: mixed rates?"
        )
    if len(ranges) > 1 and not config.split_holes:
        raise EpisodeError(f"{report.holes} holes between frames, the longest of {report.longest_hole_ms:.0f} ms")
    parts = []
    for number, (start, end) in enumerate(ranges):
        part = plan.part(slice(start, end))
        if config.trim_idle:
            keep = _nonidle(part, config, period_ns)[0][0]
            report.trimmed_frames += keep
            part = part.part(slice(keep, None))
        if len(part) * period_ns >= config.shortest_s * 1e9:
            parts.append((name if len(ranges) == 1 else f"{name}_part_{number}", part))
    if not parts:
        raise EpisodeError(f"shorter than {config.shortest_s:g} s: {len(plan)} frames in {len(ranges)} stretches")
    return parts


def _stage_part(
    directory: Path, part: Plan, folder: Path, config: ConvertConfig, report: EpisodeReport, streams: Streams
) -> None:
    period_ns = streams.provenance.period_ns
    spans = streams.provenance.interventions
    moving = _nonidle(part, config, period_ns)
    report.frames = len(part)
    report.idle_frames = len(part) - sum(end - start for start, end in moving)
    if is_staged(folder, directory):
        return
    columns = {
        "stamps_ns": part.stamps_ns,
        "states": part.positions,
        "actions": part.actions,
        "corrected": corrected(part.stamps_ns, spans),
    }
    stage(
        folder,
        source=directory,
        provenance=streams.provenance,
        columns=columns,
        images=islice(frame_images(directory, part), len(part)),
        fps=frames_per_second(period_ns),
        crf=config.crf,
        nonidle=_taught(moving, lessons(part.stamps_ns, spans)),
    )


def _nonidle(part: Plan, config: ConvertConfig, period_ns: int) -> list[list[int]]:
    shortest = max(1, round(config.idle_s * 1e9 / period_ns))
    return nonidle_ranges(part.positions, part.actions, config.idle_step, shortest)


def _taught(kept: list[list[int]], taught: list[slice]) -> list[list[int]]:
    """What of the ranges [start, end) to keep may be learned from."""
    both = [[max(start, rows.start), min(end, rows.stop)] for start, end in kept for rows in taught]
    return [[start, end] for start, end in both if start < end]


def _check_label(about: Provenance, config: ConvertConfig) -> None:
    if not about.label:
        raise EpisodeError("unlabelled: call the recorder's success or failure service, or leave it out")
    if about.label not in config.labels:
        raise EpisodeError(f"labelled {about.label}, taken are {', '.join(config.labels)}")
    if not about.instruction:
        raise EpisodeError("it has no instruction; a policy could not be told what was done")
    if about.unaided and not config.policy_runs:
        raise EpisodeError("a policy did it and nobody took over; --policy-runs takes such episodes as a whole")


def _check_shared(about: Provenance, shared: Provenance, config: ConvertConfig) -> None:
    mine = with_latency(about, config)
    for name in SHARED:
        if getattr(mine, name) != getattr(shared, name):
            raise EpisodeError(f"{name} is {getattr(mine, name)}, in the first episode {getattr(shared, name)}")
    if [name for name, _ in mine.cameras] != [name for name, _ in shared.cameras]:
        raise EpisodeError(f"cameras are {mine.cameras}, in the first episode {shared.cameras}")


def with_latency(about: Provenance, config: ConvertConfig) -> Provenance:
    """Return the provenance with the latencies that the options ask for. Raises ConfigError."""
    if not config.latency_s:
        return about
    streams = (*(name for name, _ in about.cameras), "joints")
    unknown = [name for name, _ in config.latency_s if name not in streams]
    if unknown:
        raise ConfigError(f"latency of {', '.join(unknown)}: streams are {', '.join(streams)}")
    return dataclasses.replace(about, latency_ns=tuple((name, round(s * 1e9)) for name, s in config.latency_s))
