# SPDX-License-Identifier: Apache-2.0
"""Staged episodes to a LeRobot data set, format v3.0 or v2.1. meta/info.json is the last file written.

v3.0 joins episodes into files of bounded size; v2.1 has one table and one video per episode. A
frame's timestamp is its number / fps, as the format demands; the shutter times that were recorded
are kept beside it in `observation.stamp_ns`.
Source: LeRobotDataset of lerobot 0.4.4 (v3.0) and 0.3.3 (v2.1), their meta/ and data/ layout.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from imagewam_ros.core.errors import ConfigError, EpisodeError, unknown_name
from imagewam_ros.data.lerobot_stage import StagedEpisode, vectors
from imagewam_ros.data.lerobot_stats import image_statistics, vector_statistics
from imagewam_ros.data.lerobot_video import join, video_information

VERSIONS = ("v3.0", "v2.1")
STATE, ACTION, STAMP = "observation.state", "action", "observation.stamp_ns"
INDICES = ("timestamp", "frame_index", "episode_index", "index", "task_index")
CHUNK_SIZE = 1000
"""Files per folder (v3.0), episodes per folder (v2.1)."""

PATHS = {
    "v3.0": {
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    },
    "v2.1": {
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    },
}
EPISODES_PATH = "meta/episodes/chunk-000/file-000.parquet"


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


def assemble(episodes: Sequence[StagedEpisode], out: Path, layout: LeRobotFormat) -> None:
    """Write the data set to `out`, which must not exist. Raises EpisodeError when the episodes do not fit together."""
    if not episodes:
        raise EpisodeError("every episode was rejected; the report says why")
    _check_alike(episodes, layout)
    (out / "meta").mkdir(parents=True)
    tasks = list(dict.fromkeys(episode.task for episode in episodes))
    tables = list(_tables(episodes, tasks, layout))
    if layout.version == "v3.0":
        _write_v30(episodes, tables, tasks, out, layout)
    else:
        _write_v21(episodes, tables, tasks, out, layout)
    frames = sum(len(episode) for episode in episodes)
    _json(out / "meta" / "info.json", _information(episodes[0], len(episodes), frames, len(tasks), out, layout))


def _check_alike(episodes: Sequence[StagedEpisode], layout: LeRobotFormat) -> None:
    first = episodes[0]
    for episode in episodes:
        if set(episode.shapes) != set(layout.cameras):
            raise EpisodeError(f"{episode.source} has cameras {sorted(episode.shapes)}, expected {layout.cameras}")
        if episode.shapes != first.shapes:
            raise EpisodeError(
                f"{episode.source} has images of {dict(episode.shapes)}, {first.source} of {dict(first.shapes)}; "
                "convert them to separate data sets"
            )


def _tables(episodes: Sequence[StagedEpisode], tasks: Sequence[str], layout: LeRobotFormat) -> Iterator[pa.Table]:
    start = 0
    for number, episode in enumerate(episodes):
        count = len(episode)
        rows = np.arange(count)
        yield pa.table(
            {
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


def _statistics(episode: StagedEpisode, table: pa.Table, layout: LeRobotFormat) -> dict[str, Any]:
    """Return the statistics of all columns of one episode."""
    found = {name: vector_statistics(_numpy(table, name)) for name in table.column_names}
    for camera in layout.cameras:
        found[layout.video_key(camera)] = image_statistics(episode.histograms[camera], episode.sampled)
    return found


def _whole_statistics(
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


def _write_v30(
    episodes: Sequence[StagedEpisode],
    tables: Sequence[pa.Table],
    tasks: Sequence[str],
    out: Path,
    layout: LeRobotFormat,
) -> None:
    rows: list[dict[str, Any]] = [
        {"episode_index": number, "tasks": [episode.task], "length": len(episode)}
        for number, episode in enumerate(episodes)
    ]
    sizes = [table.nbytes / 1e6 for table in tables]
    for file, (first, last) in enumerate(_groups(sizes, layout.data_file_mb)):
        path = out / PATHS["v3.0"]["data_path"].format(**_place(file))
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
        for feature, values in _statistics(episode, table, layout).items():
            row |= {f"stats/{feature}/{name}": value for name, value in values.items()}
        row |= {f"meta/episodes/{name}": value for name, value in _place(0).items()}
    path = out / EPISODES_PATH
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    _write_tasks(tasks, out / "meta" / "tasks.parquet")
    _json(out / "meta" / "stats.json", _whole_statistics(episodes, tables, layout))


def _write_videos(
    episodes: Sequence[StagedEpisode], camera: str, rows: list[dict[str, Any]], out: Path, layout: LeRobotFormat
) -> None:
    """Join one camera's videos into files of bounded size and note in `rows` where each episode lies."""
    key = layout.video_key(camera)
    sizes = [episode.video(camera).stat().st_size / 1e6 for episode in episodes]
    for file, (first, last) in enumerate(_groups(sizes, layout.video_file_mb)):
        path = out / PATHS["v3.0"]["video_path"].format(video_key=key, **_place(file))
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


def _write_v21(
    episodes: Sequence[StagedEpisode],
    tables: Sequence[pa.Table],
    tasks: Sequence[str],
    out: Path,
    layout: LeRobotFormat,
) -> None:
    for number, (episode, table) in enumerate(zip(episodes, tables, strict=True)):
        place = {"episode_chunk": number // CHUNK_SIZE, "episode_index": number}
        path = out / PATHS["v2.1"]["data_path"].format(**place)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
        for camera in layout.cameras:
            video = out / PATHS["v2.1"]["video_path"].format(video_key=layout.video_key(camera), **place)
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
        [{"episode_index": number, "stats": _statistics(one, tables[number], layout)} for number, one in numbered],
    )


def _information(
    first: StagedEpisode, episodes: int, frames: int, tasks: int, out: Path, layout: LeRobotFormat
) -> dict[str, Any]:
    """Return meta/info.json."""
    names = {"motors": list(layout.joint_names)} if layout.version == "v2.1" else list(layout.joint_names)
    joints = {"dtype": "float32", "shape": [len(layout.joint_names)], "names": names}
    features: dict[str, Any] = {STATE: joints, ACTION: joints}
    for camera in layout.cameras:
        video = next(path for path in sorted(out.glob("videos/**/*.mp4")) if layout.video_key(camera) in path.parts)
        features[layout.video_key(camera)] = {
            "dtype": "video",
            "shape": list(first.shapes[camera]),
            "names": ["height", "width", "channels"],
            "info": video_information(video),
        }
    features[STAMP] = {"dtype": "int64", "shape": [1], "names": None}
    for name in INDICES:
        features[name] = {"dtype": "float32" if name == "timestamp" else "int64", "shape": [1], "names": None}
    sizes = {"data_files_size_in_mb": layout.data_file_mb, "video_files_size_in_mb": layout.video_file_mb}
    totals = {
        "total_chunks": (episodes - 1) // CHUNK_SIZE + 1,
        "total_videos": episodes * len(layout.cameras),
    }
    return {
        "codebase_version": layout.version,
        "robot_type": layout.robot,
        "total_episodes": episodes,
        "total_frames": frames,
        "total_tasks": tasks,
        "chunks_size": CHUNK_SIZE,
        **(sizes if layout.version == "v3.0" else totals),
        "fps": layout.fps,
        "splits": {"train": f"0:{episodes}"},
        **PATHS[layout.version],
        "features": features,
    }


def _json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False), encoding="utf8")


def _lines(path: Path, rows: Sequence[Any]) -> None:
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf8")
