# SPDX-License-Identifier: Apache-2.0
"""What the versions of a LeRobot data set share: names, tables, statistics.

Source: LeRobotDataset of lerobot 0.4.4 (v3.0) and 0.3.3 (v2.1), their meta/ and data/ layout.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from imagewam_ros.core.errors import ConfigError, unknown_name
from imagewam_ros.data.lerobot_stage import StagedEpisode, vectors
from imagewam_ros.data.lerobot_stats import image_statistics, vector_statistics

VERSIONS = ("v3.0", "v2.1")
STATE, ACTION, STAMP = "observation.state", "action", "observation.stamp_ns"
INTERVENTION = "intervention"
"""Which frames were corrected; data sets have it only where there are such frames."""
CHUNK_SIZE = 1000
"""Files per folder (v3.0), episodes per folder (v2.1)."""


@dataclass(frozen=True)
class LeRobotFormat:
    """What a data set is made like. fps is frames per second; file sizes in MB bound v3.0's files."""

    fps: int
    robot: str
    joint_names: tuple[str, ...]
    cameras: tuple[str, ...]
    version: str = "v3.0"
    data_file_mb: float = 100
    video_file_mb: float = 200

    def __post_init__(self) -> None:
        if self.version not in VERSIONS:
            raise ConfigError(unknown_name("LeRobot version", self.version, VERSIONS))
        if self.fps < 1 or self.data_file_mb <= 0 or self.video_file_mb <= 0:
            raise ConfigError("fps and the sizes of files must be positive")

    def video_key(self, camera: str) -> str:
        """Return the column of a camera."""
        return f"observation.images.{camera}"


def tables_of(episodes: Sequence[StagedEpisode], tasks: Sequence[str], layout: LeRobotFormat) -> Iterator[pa.Table]:
    """Yield the table of each episode, frames numbered through."""
    start, marked = 0, has_corrections(episodes)
    for number, episode in enumerate(episodes):
        count = len(episode)
        rows = np.arange(count)
        yield pa.table(
            {
                **({INTERVENTION: pa.array(episode.corrected)} if marked else {}),
                STATE: vectors(episode.states, pa.float32()),
                ACTION: vectors(episode.actions, pa.float32()),
                STAMP: pa.array(episode.stamps_ns, pa.int64()),
                "timestamp": pa.array((rows / layout.fps).astype(np.float32)),
                "frame_index": pa.array(rows, pa.int64()),
                "episode_index": pa.array(np.full(count, number), pa.int64()),
                "index": pa.array(start + rows, pa.int64()),
                "task_index": pa.array(np.full(count, tasks.index(episode.task)), pa.int64()),
            }
        )
        start += count


def has_corrections(episodes: Sequence[StagedEpisode]) -> bool:
    """Whether any frame was corrected."""
    return any(bool(episode.corrected.any()) for episode in episodes)


def episode_statistics(episode: StagedEpisode, table: pa.Table, layout: LeRobotFormat) -> dict[str, Any]:
    """Return the statistics of all columns of one episode."""
    found = {name: vector_statistics(_numpy(table, name)) for name in table.column_names}
    for camera in layout.cameras:
        found[layout.video_key(camera)] = image_statistics(episode.histograms[camera], episode.sampled)
    return found


def whole_statistics(
    episodes: Sequence[StagedEpisode], tables: Sequence[pa.Table], layout: LeRobotFormat
) -> dict[str, Any]:
    """Return the statistics of the data set, every frame weighing the same."""
    whole = pa.concat_tables(tables)
    found = {name: vector_statistics(_numpy(whole, name)) for name in whole.column_names}
    for camera in layout.cameras:
        counts = np.sum([episode.histograms[camera] for episode in episodes], axis=0)
        found[layout.video_key(camera)] = image_statistics(counts, sum(episode.sampled for episode in episodes))
    return found


def _numpy(table: pa.Table, name: str) -> Any:
    column = table[name].to_numpy()
    return np.stack(column) if column.dtype == object else column


def write_json(path: Path, data: Any) -> None:
    """Write a file for people and programs."""
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False), encoding="utf8")
