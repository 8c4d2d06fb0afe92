# SPDX-License-Identifier: Apache-2.0
"""The files of a LeRobot v2.1 data set: one table and one video per camera for each episode.

Source: LeRobotDataset of lerobot 0.3.3.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from imagewam_ros.data.lerobot_layout import CHUNK_SIZE, LeRobotFormat, episode_statistics
from imagewam_ros.data.lerobot_stage import StagedEpisode

DATA_PATH = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEO_PATH = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"


def write_v21(
    episodes: Sequence[StagedEpisode],
    tables: Sequence[pa.Table],
    tasks: Sequence[str],
    out: Path,
    layout: LeRobotFormat,
) -> None:
    """Write everything but meta/info.json."""
    for number, (episode, table) in enumerate(zip(episodes, tables, strict=True)):
        place = {"episode_chunk": number // CHUNK_SIZE, "episode_index": number}
        path = out / DATA_PATH.format(**place)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
        for camera in layout.cameras:
            video = out / VIDEO_PATH.format(video_key=layout.video_key(camera), **place)
            video.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(episode.video(camera), video)
    numbered = list(enumerate(episodes))
    _lines(out / "meta" / "tasks.jsonl", [{"task_index": i, "task": task} for i, task in enumerate(tasks)])
    _lines(
        out / "meta" / "episodes.jsonl",
        [{"episode_index": number, "tasks": [one.task], "length": len(one)} for number, one in numbered],
    )
    _lines(
        out / "meta" / "episodes_stats.jsonl",
        [
            {"episode_index": number, "stats": episode_statistics(one, tables[number], layout)}
            for number, one in numbered
        ],
    )


def _lines(path: Path, rows: Sequence[Any]) -> None:
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf8")
