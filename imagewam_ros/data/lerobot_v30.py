# SPDX-License-Identifier: Apache-2.0
"""The files of a LeRobot v3.0 data set: several episodes per file, up to a size.

Source: LeRobotDataset of lerobot 0.4.4.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from imagewam_ros.data.lerobot_layout import (
    CHUNK_SIZE,
    LeRobotFormat,
    episode_statistics,
    whole_statistics,
    write_json,
)
from imagewam_ros.data.lerobot_stage import StagedEpisode
from imagewam_ros.data.lerobot_video import join

DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-000/file-000.parquet"


def write_v30(
    episodes: Sequence[StagedEpisode],
    tables: Sequence[pa.Table],
    tasks: Sequence[str],
    out: Path,
    layout: LeRobotFormat,
) -> None:
    """Write everything but meta/info.json."""
    rows: list[dict[str, Any]] = [
        {"episode_index": number, "tasks": [episode.task], "length": len(episode)}
        for number, episode in enumerate(episodes)
    ]
    sizes = [table.nbytes / 1e6 for table in tables]
    for file, (first, last) in enumerate(_groups(sizes, layout.data_file_mb)):
        path = out / DATA_PATH.format(**_place(file))
        path.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(path, tables[0].schema) as writer:
            for number in range(first, last):
                writer.write_table(tables[number])
                index = tables[number]["index"]
                rows[number] |= {f"data/{name}": value for name, value in _place(file).items()}
                rows[number] |= {"dataset_from_index": index[0].as_py(), "dataset_to_index": index[-1].as_py() + 1}
    for camera in layout.cameras:
        _write_videos(episodes, camera, rows, out, layout)
    for row, episode, table in zip(rows, episodes, tables, strict=True):
        for feature, values in episode_statistics(episode, table, layout).items():
            row |= {f"stats/{feature}/{name}": value for name, value in values.items()}
        row |= {f"meta/episodes/{name}": value for name, value in _place(0).items()}
    path = out / EPISODES_PATH
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    _write_tasks(tasks, out / "meta" / "tasks.parquet")
    write_json(out / "meta" / "stats.json", whole_statistics(episodes, tables, layout))


def _write_videos(
    episodes: Sequence[StagedEpisode], camera: str, rows: list[dict[str, Any]], out: Path, layout: LeRobotFormat
) -> None:
    """Join one camera's videos into files of bounded size and note in `rows` where each episode lies."""
    key = layout.video_key(camera)
    sizes = [episode.video(camera).stat().st_size / 1e6 for episode in episodes]
    for file, (first, last) in enumerate(_groups(sizes, layout.video_file_mb)):
        path = out / VIDEO_PATH.format(video_key=key, **_place(file))
        path.parent.mkdir(parents=True, exist_ok=True)
        join([(episode.video(camera), len(episode)) for episode in episodes[first:last]], path, layout.fps)
        start = 0
        for number in range(first, last):
            stop = start + len(episodes[number])
            where = {**_place(file), "from_timestamp": start / layout.fps, "to_timestamp": stop / layout.fps}
            rows[number] |= {f"videos/{key}/{name}": value for name, value in where.items()}
            start = stop


def _groups(sizes_mb: Sequence[float], limit_mb: float) -> Iterator[tuple[int, int]]:
    """Ranges of episodes whose sizes add up to at most the limit, at least one each."""
    first, total = 0, 0.0
    for number, size in enumerate(sizes_mb):
        if number > first and total + size > limit_mb:
            yield first, number
            first, total = number, 0.0
        total += size
    yield first, len(sizes_mb)


def _place(file: int) -> dict[str, int]:
    return {"chunk_index": file // CHUNK_SIZE, "file_index": file % CHUNK_SIZE}


def _write_tasks(tasks: Sequence[str], path: Path) -> None:
    """Write a table that pandas opens with the tasks as its index, which is how LeRobot looks them up."""
    index = "__index_level_0__"
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), index: pa.array(tasks)})
    described = [("task_index", "int64", "int64"), (None, "unicode", "object")]
    about = {
        "index_columns": [index],
        "column_indexes": [],
        "columns": [
            {"name": name, "field_name": name or index, "pandas_type": kind, "numpy_type": numpy, "metadata": None}
            for name, kind, numpy in described
        ],
        "creator": {"library": "pyarrow", "version": pa.__version__},
    }
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(about)}), path)
