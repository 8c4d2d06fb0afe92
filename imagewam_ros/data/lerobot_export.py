# SPDX-License-Identifier: Apache-2.0
"""Staged episodes to a LeRobot data set, format v3.0 or v2.1. meta/info.json is the last file written.

A frame's timestamp is its number / fps, as the format demands; the shutter times that were
recorded are kept beside it in `observation.stamp_ns`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from imagewam_ros.core.errors import EpisodeError
from imagewam_ros.data import lerobot_v21, lerobot_v30
from imagewam_ros.data.lerobot_layout import (
    ACTION,
    CHUNK_SIZE,
    INTERVENTION,
    STAMP,
    STATE,
    LeRobotFormat,
    has_corrections,
    tables_of,
    write_json,
)
from imagewam_ros.data.lerobot_stage import StagedEpisode
from imagewam_ros.data.lerobot_video import video_information

INDICES = ("timestamp", "frame_index", "episode_index", "index", "task_index")


def assemble(episodes: Sequence[StagedEpisode], out: Path, layout: LeRobotFormat) -> None:
    """Write the data set to `out`, which must not exist. Raises EpisodeError when the episodes do not fit together."""
    if not episodes:
        raise EpisodeError("every episode was rejected; the report says why")
    _check_alike(episodes, layout)
    (out / "meta").mkdir(parents=True)
    tasks = list(dict.fromkeys(episode.task for episode in episodes))
    tables = list(tables_of(episodes, tasks, layout))
    if layout.version == "v3.0":
        lerobot_v30.write_v30(episodes, tables, tasks, out, layout)
    else:
        lerobot_v21.write_v21(episodes, tables, tasks, out, layout)
    frames = sum(len(episode) for episode in episodes)
    information = _information(episodes[0], len(episodes), frames, len(tasks), out, layout)
    if has_corrections(episodes):
        information["features"][INTERVENTION] = {"dtype": "bool", "shape": [1], "names": None}
    write_json(out / "meta" / "info.json", information)


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
    files = lerobot_v30 if layout.version == "v3.0" else lerobot_v21
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
        "data_path": files.DATA_PATH,
        "video_path": files.VIDEO_PATH,
        "features": features,
    }
