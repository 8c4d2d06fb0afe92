# SPDX-License-Identifier: Apache-2.0
"""`imagewam convert`: recorded episodes to a LeRobot data set with a report on each, or a data set to episodes."""

import argparse
import json
from pathlib import Path

from tqdm import tqdm

from imagewam_ros.core.errors import ConfigError
from imagewam_ros.data.episode import LABELS, find_episodes
from imagewam_ros.data.lerobot_convert import convert
from imagewam_ros.data.lerobot_import import import_dataset
from imagewam_ros.data.lerobot_judge import ConvertConfig
from imagewam_ros.data.lerobot_layout import VERSIONS
from imagewam_ros.data.report import EpisodeReport, summary, table

DEFAULT = ConvertConfig()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `imagewam convert`."""
    parser.add_argument("source", type=Path, help="folder of recorded episodes, or a LeRobot data set to read")
    parser.add_argument("out", type=Path, help="new folder; nothing is there until it is whole")
    parser.add_argument("--version", choices=VERSIONS, default=DEFAULT.version, help="format of the data set")
    parser.add_argument("--labels", nargs="+", choices=LABELS, default=DEFAULT.labels, help="episodes that are taken")
    parser.add_argument("--policy-runs", action="store_true", help="also runs of a policy in which nobody took over")
    parser.add_argument("--workers", type=int, default=2, help="processes that convert side by side")
    parser.add_argument("--crf", type=int, default=DEFAULT.crf, help="quality of the videos, 0 best to 51")
    parser.add_argument("--horizon", type=int, default=DEFAULT.horizon, help="rows of a chunk, for dataset_stats.json")
    parser.add_argument("--trim-idle", action="store_true", help="cut off what happens before the first movement")
    parser.add_argument("--idle-step", type=float, default=DEFAULT.idle_step, help="largest step of an idle joint")
    parser.add_argument("--idle-s", type=float, default=DEFAULT.idle_s, help="shortest idle stretch in s")
    parser.add_argument("--shortest-s", type=float, default=DEFAULT.shortest_s, help="shortest episode in s")
    parser.add_argument("--split-holes", action="store_true", help="make parts of an episode with missing frames")
    parser.add_argument(
        "--latency", nargs="+", default=(), metavar="STREAM=SECONDS", help="how late a stream's stamps are: head=0.03"
    )
    parser.add_argument(
        "--first-row-offset",
        type=float,
        help="reading a data set of others: 1 where an action is the target one frame later, 0 where it is the command",
    )
    parser.add_argument("--json", action="store_true", help="end with one line for programs")


def run(arguments: argparse.Namespace) -> int:
    """Convert and print the report, also when no episode is left. Returns 0."""
    if (arguments.source / "meta" / "info.json").exists():
        return _import(arguments)
    config = ConvertConfig(
        version=arguments.version,
        labels=tuple(arguments.labels),
        policy_runs=arguments.policy_runs,
        crf=arguments.crf,
        horizon=arguments.horizon,
        idle_step=arguments.idle_step,
        idle_s=arguments.idle_s,
        trim_idle=arguments.trim_idle,
        split_holes=arguments.split_holes,
        shortest_s=arguments.shortest_s,
        latency_s=tuple(_latency(text) for text in arguments.latency),
    )
    reports: list[EpisodeReport] = []
    try:
        with tqdm(total=len(find_episodes(arguments.source)), unit="episode", desc="converting") as bar:
            for report in convert(arguments.source, arguments.out, config, arguments.workers):
                reports.append(report)
                bar.update()
    finally:
        print(table(reports))
    whole = summary(reports)
    print(f"{whole['accepted']} of {whole['episodes']} episodes, {whole['frames']} frames: {arguments.out}")
    if arguments.json:
        print(json.dumps({name: whole[name] for name in ("episodes", "accepted", "rejected", "frames")}))
    return 0


def _import(arguments: argparse.Namespace) -> int:
    episodes = list(
        tqdm(
            import_dataset(arguments.source, arguments.out, arguments.first_row_offset), unit="episode", desc="reading"
        )
    )
    frames = sum(frames for _, frames in episodes)
    print(f"{len(episodes)} episodes, {frames} frames: {arguments.out}")
    if arguments.json:
        print(json.dumps({"episodes": len(episodes), "accepted": len(episodes), "rejected": 0, "frames": frames}))
    return 0


def _latency(text: str) -> tuple[str, float]:
    stream, _, seconds = text.partition("=")
    try:
        return stream, float(seconds)
    except ValueError:
        raise ConfigError(f"--latency {text!r}: expected STREAM=SECONDS, for example head=0.03") from None
