# SPDX-License-Identifier: Apache-2.0
"""Recorded episodes to one LeRobot data set: judge, stage side by side, assemble. Can be stopped and resumed."""

import dataclasses
import json
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from imagewam_ros.core.contract import statistics_hash
from imagewam_ros.core.errors import EpisodeError
from imagewam_ros.data.episode import Provenance, find_episodes, read_provenance
from imagewam_ros.data.lerobot_carried import CONTRACT, write_carried
from imagewam_ros.data.lerobot_export import assemble
from imagewam_ros.data.lerobot_judge import SHARED, ConvertConfig, convert_episode, frames_per_second, with_latency
from imagewam_ros.data.lerobot_layout import LeRobotFormat
from imagewam_ros.data.lerobot_stage import StagedEpisode, load_staged
from imagewam_ros.data.lerobot_stats import authors_statistics, own_statistics
from imagewam_ros.data.recover import cut_off
from imagewam_ros.data.report import IDLE_RANGES, EpisodeReport, summary
from imagewam_ros.data.workers import side_by_side
from imagewam_ros.data.workspace import workspace, writing

OWN_STATISTICS, REPORT = "imagewam_stats.json", "imagewam_report.json"
AUTHORS_STATISTICS, NONIDLE = "dataset_stats.json", "nonidle_ranges.json"


def convert(root: Path, out: Path, config: ConvertConfig, workers: int = 2) -> Iterator[EpisodeReport]:
    """Convert the episodes under `root` to `out`, yielding a report for each as it is done.

    Where `out` cannot be finished nothing is at `out`; what was staged beside it is used again by
    the next call. Raises EpisodeError or ConfigError saying what does not fit together, and DiskError.
    """
    episodes = find_episodes(root)
    shared = _shared(episodes, config)
    fps = frames_per_second(shared.period_ns)
    same = {name: getattr(shared, name) for name in SHARED}
    work = workspace(out, {"root": str(root.resolve()), **dataclasses.asdict(config), **same})
    one = partial(convert_episode, work=work / "episodes", config=config, shared=shared)
    reports = []
    for found in side_by_side(one, episodes, workers):
        reports += found
        yield from found
    for folder in cut_off(root):
        reports.append(EpisodeReport(folder.name, f"cut off: `imagewam record --recover {folder}` may save it"))
        yield reports[-1]
    staged = [load_staged(work / "episodes" / report.name) for report in reports if report.accepted]
    layout = LeRobotFormat(
        fps, shared.robot, shared.joint_names, tuple(name for name, _ in shared.cameras), config.version
    )
    whole = work / "dataset"
    with writing(whole):
        shutil.rmtree(whole, ignore_errors=True)
        assemble(staged, whole, layout)
        _write_extras(whole, staged, reports, shared, config)
        whole.replace(out)
    shutil.rmtree(work)


def _shared(episodes: Sequence[Path], config: ConvertConfig) -> Provenance:
    """Provenance of the first episode that is ours and has a label that is taken."""
    unread: list[str] = []
    for directory in episodes:
        try:
            about = read_provenance(directory)
        except EpisodeError as error:
            unread.append(str(error))
            continue
        if about.label in config.labels:
            return with_latency(about, config)
    raise EpisodeError(
        f"none of {len(episodes)} episodes in {episodes[0].parent} is labelled {' or '.join(config.labels)}; "
        f"label them by the recorder's services, or name other labels{'; ' if unread else ''}{'; '.join(unread[:3])}"
    )


def _write_extras(
    whole: Path,
    staged: Sequence[StagedEpisode],
    reports: Sequence[EpisodeReport],
    shared: Provenance,
    config: ConvertConfig,
) -> None:
    """Write what LeRobot does not know: contract, statistics, idle ranges, report, and what is carried of episodes."""
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
    write_carried(whole, [len(one) for one in staged], [one.carried for one in staged])
