# SPDX-License-Identifier: Apache-2.0
"""Recorded episodes to one LeRobot data set: judge, stage side by side, assemble. Can be stopped and resumed."""

import dataclasses
import json
import multiprocessing
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from imagewam_ros.core.contract import statistics_hash
from imagewam_ros.core.errors import ConfigError, EpisodeError
from imagewam_ros.data.bag_streams import Plan, Streams, frame_images, plan_frames, read_streams
from imagewam_ros.data.episode import LABELS, Provenance, find_episodes, read_provenance
from imagewam_ros.data.lerobot_export import LeRobotFormat, assemble
from imagewam_ros.data.lerobot_stage import StagedEpisode, load_staged, stage
from imagewam_ros.data.lerobot_stats import authors_statistics, own_statistics
from imagewam_ros.data.report import (
    IDLE_RANGES,
    EpisodeReport,
    describe,
    nonidle_ranges,
    segments,
    summary,
)

CONTRACT, OWN_STATISTICS, REPORT = "imagewam_contract.json", "imagewam_stats.json", "imagewam_report.json"
AUTHORS_STATISTICS, NONIDLE = "dataset_stats.json", "nonidle_ranges.json"
SHARED = ("robot", "joint_names", "period_ns", "first_row_offset_periods", "latency_ns")
"""Fields of the provenance in which all episodes of a data set agree."""


MOST_LATE = 0.02
"""Share of a stream's messages that may be older than the one before."""


@dataclass(frozen=True)
class ConvertConfig:
    """How to convert.

    labels are those that are taken. Idle means that no joint moves by more than idle_step (rad or
    m per frame) for idle_s; trim_idle cuts such a start off, nonidle_ranges.json names the rest.
    split_holes makes several episodes of one in which frames are missing, instead of rejecting it.
    latency_s maps streams (a camera, "joints") to seconds, as pairs, and replaces what was recorded.
    """

    version: str = "v3.0"
    labels: tuple[str, ...] = ("success",)
    crf: int = 18
    horizon: int = 16
    idle_step: float = 1e-3
    idle_s: float = 0.5
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


def convert(root: Path, out: Path, config: ConvertConfig, workers: int = 2) -> Iterator[EpisodeReport]:
    """Convert the episodes under `root` to `out`, yielding a report for each as it is done.

    Where `out` cannot be finished nothing is at `out`; what was staged beside it is used again by
    the next call. Raises EpisodeError or ConfigError saying what does not fit together.
    """
    episodes = find_episodes(root)
    shared = _shared(episodes, config)
    fps = frames_per_second(shared.period_ns)
    work = _workspace(out, config, shared)
    one = partial(convert_episode, work=work / "episodes", config=config, shared=shared)
    reports = []
    for found in _map(one, episodes, workers):
        reports += found
        yield from found
    staged = [load_staged(work / "episodes" / report.name) for report in reports if report.accepted]
    layout = LeRobotFormat(
        fps, shared.robot, shared.joint_names, tuple(name for name, _ in shared.cameras), config.version
    )
    whole = work / "dataset"
    shutil.rmtree(whole, ignore_errors=True)
    assemble(staged, whole, layout)
    _write_extras(whole, staged, reports, shared, config)
    out.parent.mkdir(parents=True, exist_ok=True)
    whole.replace(out)
    shutil.rmtree(work)


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
    streams = dataclasses.replace(streams, provenance=_with_latency(streams.provenance, config))
    _check_clock(streams)
    plan = plan_frames(streams)
    describe(report, streams, plan)
    for number, (name, part) in enumerate(_parts(directory.name, plan, streams, config, report)):
        single = dataclasses.replace(report, name=name, frames=len(part)) if number or name != report.name else report
        _stage_part(directory, part, work / name, config, single, streams)
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
    kept = _nonidle(part, config, period_ns)
    report.frames = len(part)
    report.idle_frames = len(part) - sum(end - start for start, end in kept)
    if (folder / "episode.json").exists():
        return
    columns = {"stamps_ns": part.stamps_ns, "states": part.positions, "actions": part.actions}
    stage(
        folder,
        source=directory.name,
        task=streams.provenance.instruction,
        columns=columns,
        images=islice(frame_images(directory, part), len(part)),
        fps=frames_per_second(period_ns),
        crf=config.crf,
        nonidle=kept,
    )


def _nonidle(part: Plan, config: ConvertConfig, period_ns: int) -> list[list[int]]:
    shortest = max(1, round(config.idle_s * 1e9 / period_ns))
    return nonidle_ranges(part.positions, part.actions, config.idle_step, shortest)


def _check_clock(streams: Streams) -> None:
    for topic, late in streams.late.items():
        if late > MOST_LATE * len(streams.received_ns[topic]):
            raise EpisodeError(
                f"{late} of {len(streams.received_ns[topic])} stamps of {topic} are not newer than the one before; "
                "did the clock jump, or do two drivers publish there?"
            )


def _check_label(about: Provenance, config: ConvertConfig) -> None:
    if not about.label:
        raise EpisodeError("unlabelled: call the recorder's success or failure service, or leave it out")
    if about.label not in config.labels:
        raise EpisodeError(f"labelled {about.label}, taken are {', '.join(config.labels)}")
    if not about.instruction:
        raise EpisodeError("it has no instruction; a policy could not be told what was done")


def _check_shared(about: Provenance, shared: Provenance, config: ConvertConfig) -> None:
    mine = _with_latency(about, config)
    for name in SHARED:
        if getattr(mine, name) != getattr(shared, name):
            raise EpisodeError(f"{name} is {getattr(mine, name)}, in the first episode {getattr(shared, name)}")
    if [name for name, _ in mine.cameras] != [name for name, _ in shared.cameras]:
        raise EpisodeError(f"cameras are {mine.cameras}, in the first episode {shared.cameras}")


def _with_latency(about: Provenance, config: ConvertConfig) -> Provenance:
    if not config.latency_s:
        return about
    streams = (*(name for name, _ in about.cameras), "joints")
    unknown = [name for name, _ in config.latency_s if name not in streams]
    if unknown:
        raise ConfigError(f"latency of {', '.join(unknown)}: streams are {', '.join(streams)}")
    return dataclasses.replace(about, latency_ns=tuple((name, round(s * 1e9)) for name, s in config.latency_s))


def _shared(episodes: Sequence[Path], config: ConvertConfig) -> Provenance:
    """Provenance of the first episode that is ours and has a label that is taken."""
    for directory in episodes:
        try:
            about = read_provenance(directory)
        except EpisodeError:
            continue  # its own report says why
        if about.label in config.labels:
            return _with_latency(about, config)
    raise EpisodeError(
        f"none of {len(episodes)} episodes in {episodes[0].parent} is labelled {' or '.join(config.labels)}; "
        "label them by the recorder's services, or name other labels"
    )


def _workspace(out: Path, config: ConvertConfig, shared: Provenance) -> Path:
    """Folder beside `out` for what is in the making. Raises EpisodeError when `out` exists or options changed."""
    if out.exists():
        raise EpisodeError(f"{out} exists; choose another folder or remove it first")
    work = out.with_name(out.name + ".part")
    about = {"config": dataclasses.asdict(config), "shared": {name: getattr(shared, name) for name in SHARED}}
    text = json.dumps(about, indent=2)
    path = work / "options.json"
    if path.exists() and path.read_text(encoding="utf8") != text:
        raise EpisodeError(f"{work} was begun with other options; remove it, or use the same options to go on")
    (work / "episodes").mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf8")
    return work


def _map(one: Any, episodes: Sequence[Path], workers: int) -> Iterator[list[EpisodeReport]]:
    if workers < 2:
        yield from map(one, episodes)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(one, episodes)


def _write_extras(
    whole: Path,
    staged: Sequence[StagedEpisode],
    reports: Sequence[EpisodeReport],
    shared: Provenance,
    config: ConvertConfig,
) -> None:
    """Write what LeRobot does not know: contract, statistics, idle ranges, report."""
    states, actions = [one.states for one in staged], [one.actions for one in staged]
    own = own_statistics(states, actions)
    contract = {
        "schema": 1,
        **{name: getattr(shared, name) for name in SHARED},
        "cameras": [name for name, _ in shared.cameras],
        "contract_hash": shared.contract_hash,
        "statistics_hash": statistics_hash(own),
    }
    ranges = {"format": IDLE_RANGES, "episodes": {str(i): one.nonidle for i, one in enumerate(staged)}}
    for path, data in (
        (whole / "meta" / CONTRACT, contract),
        (whole / "meta" / OWN_STATISTICS, own),
        (whole / "meta" / REPORT, summary(reports)),
        (whole / AUTHORS_STATISTICS, authors_statistics(states, actions, config.horizon)),
        (whole / NONIDLE, ranges),
    ):
        path.write_text(json.dumps(data, indent=1, ensure_ascii=False), encoding="utf8")
