# SPDX-License-Identifier: Apache-2.0
"""`imagewam bench recorder`: publishers, recorder and count in one command.

Three cameras and two arms publish over the loopback from a process of their own, the recorder
writes them, and every message in the bag is counted against what was published.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from imagewam_ros.core.errors import ConfigError, GraphError
from imagewam_ros.data.bag import METADATA
from imagewam_ros.domain import private_domain, use_domain
from imagewam_ros.graph import Death, Process, settings
from imagewam_ros.processor_time import busy_s
from imagewam_ros.supervisor import Interrupts, Supervisor

ARM_TOPIC = "arm/joint_states"
BEGIN, END = "load begins", "load ends"


class _Moment(NamedTuple):
    """Wall time and processor time (s) by process."""

    wall_s: float
    busy_s: Mapping[str, float]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `imagewam bench recorder`."""
    parser.add_argument("--seconds", type=float, default=10.0, help="how long is published (default: 10)")
    parser.add_argument("--width", type=int, default=640, help="of each image (default: 640)")
    parser.add_argument("--height", type=int, default=480, help="of each image (default: 480)")
    parser.add_argument("--camera-hz", type=float, default=30.0, help="of each of three cameras (default: 30)")
    parser.add_argument("--joint-hz", type=float, default=200.0, help="of each of two arms (default: 200)")
    parser.add_argument("--compression", default="none", help="of the file: none, lz4, zstd (default: none)")
    parser.add_argument("--image-format", default="raw", help="what images become: raw, png, jpeg (default: raw)")
    parser.add_argument("--out", type=Path, help="folder for the bag, kept (default: a temporary one, removed)")
    parser.add_argument("--json", action="store_true", help="end with one line for programs")


def run(arguments: argparse.Namespace) -> int:
    """Measure. Returns 0 when every published message is in the bag, 1 otherwise."""
    if not arguments.seconds > 0:
        raise ConfigError(f"--seconds must be positive, found {arguments.seconds}; try --seconds 10")
    folder = (arguments.out or Path(tempfile.mkdtemp(prefix="imagewam_bench_"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with private_domain() as domain:
            use_domain(domain)
            os.environ["ROS_LOG_DIR"] = str(folder / "log")
            result = measure(arguments, folder)
    finally:
        if arguments.out is None:
            shutil.rmtree(folder)
    print(table(result))
    if arguments.json:
        print(json.dumps({name: value for name, value in result.items() if name != "topics"}))
    return 0 if result["dropped"] == 0 else 1


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run recorder and load in processes of their own and count. Raises GraphError when one fails."""
    recorder = Process("recorder", "recorder_node", Death.ENDS_GRAPH, _recorder_parameters(arguments, folder))
    load = Process(
        "load",
        "recorder_load_node",
        Death.FAILURE_ENDS_GRAPH,
        _load_parameters(arguments, folder),
        publishes_images=True,
    )
    lines: list[tuple[str, str]] = []
    moments: list[_Moment] = []
    with (
        Interrupts() as interrupts,
        Supervisor((recorder, load), settings({}), lambda *line: lines.append(line)) as both,
    ):
        while not interrupts.received:
            seen = len(lines)
            ended = both.poll()
            if any(line in ((load.name, BEGIN), (load.name, END)) for line in lines[seen:]):
                moments.append(_Moment(time.monotonic(), {name: busy_s(pid) for name, pid in both.alive.items()}))
            if ended:
                break
    if interrupts.received:
        raise KeyboardInterrupt
    if len(moments) != 2 or not (folder / "load.json").exists():
        raise GraphError("the measurement did not finish:\n" + "\n".join(": ".join(line) for line in lines[-12:]))
    return _result(json.loads((folder / "load.json").read_text(encoding="utf8")), moments[0], moments[1])


def _result(load: Mapping[str, Any], first: _Moment, last: _Moment) -> dict[str, Any]:
    information = yaml.safe_load((Path(load["episode"]) / METADATA).read_text())["rosbag2_bagfile_information"]
    found = {t["topic_metadata"]["name"]: t["message_count"] for t in information["topics_with_message_count"]}
    names = {name: f"/{name}" for name in load["published"]}
    recorded = {name: found.get(full, 0) + found.get(f"{full}/compressed", 0) for name, full in names.items()}
    published, kept = sum(load["published"].values()), sum(recorded.values())
    elapsed_s = last.wall_s - first.wall_s
    share = {name: round((last.busy_s[name] - busy) / elapsed_s, 3) for name, busy in first.busy_s.items()}
    return {
        "seconds": round(load["seconds"], 3),
        "published": published,
        "recorded": kept,
        "dropped": published - kept,
        "mb_per_s": round(load["pixels"] / 1e6 / load["seconds"], 2),
        "cpu_share": share["recorder"],
        "cpu_share_publishers": share["load"],
        "cpu_cores": os.cpu_count(),
        "publisher_late_ms": round(load["late_s"] * 1e3, 1),
        "topics": {name: (load["published"][name], recorded[name]) for name in names},
    }


def table(result: Mapping[str, Any]) -> str:
    """Return the counts for a person."""
    lines = [f"{'topic':<44}{'published':>10}{'recorded':>10}{'dropped':>9}"]
    for name, (published, recorded) in result["topics"].items():
        lines.append(f"{name:<44}{published:>10}{recorded:>10}{published - recorded:>9}")
    lines.append(
        f"{result['mb_per_s']:.1f} MB/s for {result['seconds']:.1f} s; of one core the recorder took "
        f"{result['cpu_share']:.0%}, the publishers {result['cpu_share_publishers']:.0%}"
    )
    return "\n".join(lines)


def _recorder_parameters(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    return {
        "directory": str(folder),
        "instruction": "measure the recorder",
        "action_topic": ARM_TOPIC,
        "recording.compression": arguments.compression,
        "recording.image_format": arguments.image_format,
    }


def _load_parameters(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    return {
        "seconds": arguments.seconds,
        "width": arguments.width,
        "height": arguments.height,
        "camera_hz": arguments.camera_hz,
        "joint_hz": arguments.joint_hz,
        "out": str(folder / "load.json"),
    }
