# SPDX-License-Identifier: Apache-2.0
"""A LeRobot data set (v3.0, v2.1 or v2.0) to episodes, so that everything reads one format.

Source: LeRobotDataset of lerobot 0.4.4 (v3.0) and 0.3.3 (v2.x).
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from imagewam_ros.core.errors import EpisodeError
from imagewam_ros.core.schema import Floats, Image, JointState
from imagewam_ros.data.bag import METADATA
from imagewam_ros.data.bag_images import decode
from imagewam_ros.data.episode import EpisodeWriter, Provenance
from imagewam_ros.data.interventions import Span, spans_of
from imagewam_ros.data.lerobot_carried import CONTRACT, read_carried
from imagewam_ros.data.lerobot_layout import ACTION, CHUNK_SIZE, INTERVENTION, STAMP, STATE
from imagewam_ros.data.lerobot_video import read_video
from imagewam_ros.data.workspace import workspace, writing

IMAGES = "observation.images."


def import_dataset(root: Path, out: Path, first_row_offset_periods: float | None) -> Iterator[tuple[Path, int]]:
    """Write every episode of the data set at `root` under `out`; yields folder and number of frames.

    `out` is there when the last one is written; until then the next call goes on where this one stopped. Labels and
    seeds are those of the episodes that the data set was made of; data sets of others hold successes of no known scene.
    The offset is needed where the data set does not carry our contract. Raises EpisodeError naming what is missing
    or changed.
    """
    try:
        info = json.loads((root / "meta" / "info.json").read_text(encoding="utf8"))
    except ValueError as error:
        raise EpisodeError(f"{root}/meta/info.json is damaged: {error}; fetch the data set again") from error
    version = str(info.get("codebase_version"))
    if version not in ("v3.0", "v2.1", "v2.0"):
        raise EpisodeError(f"{root} is LeRobot {version}, known are v3.0, v2.1 and v2.0; convert it with lerobot first")
    missing = [name for name in (STATE, ACTION) if name not in info["features"]]
    if missing:
        raise EpisodeError(f"{root} has no {', '.join(missing)}; found {', '.join(info['features'])}")
    offset = _offset(root, first_row_offset_periods)
    episodes = _episodes_v30(root) if version == "v3.0" else _lines(root / "meta" / "episodes.jsonl")
    if not episodes:
        raise EpisodeError(f"{root} lists no episodes in its meta/; fetch the data set again")
    carried = read_carried(root, [int(episode["length"]) for episode in episodes])
    same = {"root": str(root.resolve()), "meta": _hash(root / "meta"), "first_row_offset_periods": offset}
    work = workspace(out, same)
    for episode, known in zip(episodes, carried, strict=True):
        folder = work / "episodes" / f"episode_{episode['episode_index']:06d}"
        if not (folder / METADATA).exists():
            shutil.rmtree(folder, ignore_errors=True)
            _import_episode(root, info, episode, folder, {"first_row_offset_periods": offset, **known})
        yield out / folder.name, int(episode["length"])
    with writing(out):
        (work / "episodes").replace(out)
        shutil.rmtree(work)


def _hash(folder: Path) -> str:
    """Tell data sets apart that lay in the same place: their meta/ holds statistics of every episode."""
    found = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        found.update(path.read_bytes())
    return found.hexdigest()


def _offset(root: Path, given: float | None) -> float:
    path = root / "meta" / CONTRACT
    if path.exists():
        known = float(json.loads(path.read_text(encoding="utf8"))["first_row_offset_periods"])
        if given is not None and given != known:
            raise EpisodeError(f"{path} says first_row_offset_periods {known:g}, asked for was {given:g}")
        return known
    if given is None:
        raise EpisodeError(
            f"{root} does not say when an action is due; give --first-row-offset: 1 where it is the target one "
            "frame after the observation, 0 where it is the command issued at it"
        )
    return given


def _import_episode(
    root: Path, info: Mapping[str, Any], episode: Mapping[str, Any], folder: Path, known: Mapping[str, Any]
) -> None:
    table = _rows(root, info, episode)
    period_ns = round(1e9 / info["fps"])
    cameras = [name.removeprefix(IMAGES) for name in info["features"] if name.startswith(IMAGES)]
    stamps = _stamps(table, period_ns)
    about = Provenance(
        robot=str(info.get("robot_type") or "unknown"),
        instruction=str(episode["tasks"][0]),
        joint_names=_joint_names(info["features"][STATE]),
        cameras=tuple((camera, f"{camera}_camera/color/image_raw") for camera in cameras),
        period_ns=period_ns,
        interventions=_interventions(table, stamps),
        **{"operator": f"LeRobot {info['codebase_version']}", "label": "success", **known},
    )
    states, actions = _vectors(table, STATE), _vectors(table, ACTION)
    images = zip(*(_images(root, info, episode, table, camera) for camera in cameras), strict=True)
    with EpisodeWriter(folder, about) as writer:
        for row, frame in enumerate(images):
            for camera, image in zip(cameras, frame, strict=True):
                writer.image(camera, stamps[row], image)
            writer.joints(JointState(stamps[row], about.joint_names, states[row], np.zeros(states.shape[1])))
            writer.action(stamps[row], actions[row])
        writer.finish(about.label)


def _rows(root: Path, info: Mapping[str, Any], episode: Mapping[str, Any]) -> pa.Table:
    """Return the table of one episode in the order of its frames."""
    path = root / str(info["data_path"]).format(**_place(info, episode, "data"))
    if not path.exists():
        raise EpisodeError(f"{root} lacks {path.relative_to(root)}, where episode {episode['episode_index']} should be")
    table = _read_table(path)
    table = table.filter(pc.equal(table["episode_index"], episode["episode_index"])).sort_by("frame_index")
    if len(table) != episode["length"]:
        raise EpisodeError(
            f"{path} holds {len(table)} of {episode['length']} frames of episode {episode['episode_index']}"
        )
    return table


def _place(info: Mapping[str, Any], episode: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return what the path templates of all versions ask for."""
    number = int(episode["episode_index"])
    return {
        "episode_index": number,
        "episode_chunk": number // int(info.get("chunks_size", CHUNK_SIZE)),
        "chunk_index": episode.get(f"{kind}/chunk_index", 0),
        "file_index": episode.get(f"{kind}/file_index", 0),
    }


def _images(
    root: Path, info: Mapping[str, Any], episode: Mapping[str, Any], table: pa.Table, camera: str
) -> Iterator[Image]:
    key = IMAGES + camera
    if info["features"][key]["dtype"] == "image":
        for cell in table[key].to_pylist():
            yield decode(np.frombuffer(cell["bytes"], dtype=np.uint8), key)
        return
    place = _place(info, episode, f"videos/{key}")
    path = root / str(info["video_path"]).format(video_key=key, **place)
    start_s = float(episode.get(f"videos/{key}/from_timestamp", 0.0))
    yield from read_video(path, start_s, int(episode["length"]), float(info["fps"]))


def _stamps(table: pa.Table, period_ns: int) -> list[int]:
    """Shutter times: as recorded where the data set kept them, on its grid otherwise."""
    if STAMP in table.column_names:
        return [int(stamp) for stamp in table[STAMP].to_pylist()]
    return [row * period_ns for row in range(len(table))]


def _interventions(table: pa.Table, stamps: Sequence[int]) -> tuple[Span, ...]:
    """What was corrected, where the data set says so, as bool or as 0 and 1."""
    if INTERVENTION not in table.column_names:
        return ()
    return spans_of(stamps, np.asarray(table[INTERVENTION].to_pylist()).reshape(-1).astype(bool))


def _vectors(table: pa.Table, name: str) -> Floats:
    return np.stack(table[name].to_numpy()).astype(np.float64)


def _joint_names(feature: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of a vector's numbers: a list, a list in a mapping, or numbers where there are none."""
    names = feature.get("names")
    if isinstance(names, Mapping):
        names = [name for part in names.values() for name in part]
    count = int(feature["shape"][0])
    return tuple(map(str, names)) if names and len(names) == count else tuple(f"joint_{i}" for i in range(count))


def _episodes_v30(root: Path) -> Sequence[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    for path in sorted((root / "meta" / "episodes").glob("*/*.parquet")):
        found += _read_table(path).to_pylist()
    return sorted(found, key=lambda episode: int(episode["episode_index"]))


def _read_table(path: Path) -> pa.Table:
    """Read a table without its statistics. Raises EpisodeError where it is damaged."""
    try:
        names = [name for name in pq.read_schema(path).names if not name.startswith("stats/")]
        return pq.read_table(path, columns=names)
    except (OSError, pa.ArrowException) as error:
        raise EpisodeError(f"{path} cannot be read: {error}; fetch the data set again") from error


def _lines(path: Path) -> Sequence[Mapping[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise EpisodeError(f"{path} cannot be read: {error}; fetch the data set again") from error
