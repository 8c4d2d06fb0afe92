# SPDX-License-Identifier: Apache-2.0
"""One episode of a LeRobot data set in the making: its table, its videos, and what the whole needs to know.

Episodes are staged side by side, each in a folder of its own that is renamed when it is complete,
so that a conversion can be stopped and taken up again.
"""

import json
import shutil
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from imagewam_ros.core.errors import EpisodeError
from imagewam_ros.core.schema import Floats, Image
from imagewam_ros.data.bag import metadata_hash
from imagewam_ros.data.episode import Provenance
from imagewam_ros.data.lerobot_carried import carried_of
from imagewam_ros.data.lerobot_stats import Histogram, histogram
from imagewam_ros.data.lerobot_video import VideoWriter
from imagewam_ros.data.workspace import writing

STAGED = "episode.json"
SAMPLED_IMAGES = 50
"""Images per camera and episode that the statistics look at."""


@dataclass(frozen=True)
class StagedEpisode:
    """What is known of a staged episode without its pixels; states and actions are (frames, joints).

    corrected (frames,) tells the frames that a human, or an expert, corrected while a policy ran.
    carried are the fields of the provenance that LeRobot has no place for.
    """

    folder: Path
    source: str
    task: str
    carried: Mapping[str, Any]
    stamps_ns: NDArray[np.int64]
    states: Floats
    actions: Floats
    corrected: NDArray[np.bool_]
    shapes: Mapping[str, tuple[int, int, int]]
    histograms: Mapping[str, Histogram]
    sampled: int
    nonidle: list[list[int]]

    def __len__(self) -> int:
        return len(self.stamps_ns)

    def video(self, camera: str) -> Path:
        """Return the path of one camera's video."""
        return self.folder / f"{camera}.mp4"


def stage(
    folder: Path,
    source: Path,
    provenance: Provenance,
    columns: Mapping[str, NDArray[Any]],
    images: Iterable[Mapping[str, Image]],
    fps: int,
    crf: int,
    nonidle: list[list[int]],
) -> None:
    """Write the episode `source`. `columns` are stamps_ns, corrected (frames,), states and actions (frames, joints).

    `images` are read once, frame by frame. Raises EpisodeError as the images do, or when there
    are not as many as stamps, and DiskError when it cannot be written.
    """
    with writing(folder):
        part = folder.with_name(folder.name + ".part")
        for left in (part, folder):
            shutil.rmtree(left, ignore_errors=True)
        part.mkdir(parents=True)
        about = {
            "source": source.name,
            "source_hash": metadata_hash(source),
            "task": provenance.instruction,
            "carried": carried_of(provenance),
            "nonidle": nonidle,
            **_write_videos(part, source.name, len(columns["stamps_ns"]), images, fps, crf),
        }
        table = pa.table({name: _column(values) for name, values in columns.items()})
        pq.write_table(table, part / "frames.parquet")
        (part / STAGED).write_text(json.dumps(about), encoding="utf8")
        part.replace(folder)


def is_staged(folder: Path, source: Path) -> bool:
    """Whether `stage` wrote `folder` from this very episode, and not from another of the same name or label."""
    path = folder / STAGED
    return path.exists() and json.loads(path.read_text(encoding="utf8"))["source_hash"] == metadata_hash(source)


def _write_videos(
    part: Path, source: str, length: int, images: Iterable[Mapping[str, Image]], fps: int, crf: int
) -> dict[str, Any]:
    """Write a video per camera and return what is to be known of them."""
    every = max(1, length // SAMPLED_IMAGES)
    sampled: dict[str, Histogram] = {}
    shapes: dict[str, list[int]] = {}
    frames = 0
    with ExitStack() as stack:
        writers: dict[str, VideoWriter] = {}
        for frames, frame in enumerate(images, start=1):
            for camera, image in frame.items():
                if camera not in writers:
                    writers[camera] = stack.enter_context(VideoWriter(part / f"{camera}.mp4", fps, crf))
                    shapes[camera], sampled[camera] = list(image.shape), np.zeros((3, 256), np.int64)
                writers[camera].add(image)
                if (frames - 1) % every == 0:
                    sampled[camera] += histogram([image])
    if frames != length:
        raise EpisodeError(f"{source} gave {frames} images per camera for {length} frames")
    return {
        "shapes": shapes,
        "histograms": {camera: counts.tolist() for camera, counts in sampled.items()},
        "sampled": len(range(0, length, every)),
    }


def load_staged(folder: Path) -> StagedEpisode:
    """Read what `stage` wrote."""
    about = json.loads((folder / STAGED).read_text(encoding="utf8"))
    table = pq.read_table(folder / "frames.parquet")
    return StagedEpisode(
        folder=folder,
        source=about["source"],
        task=about["task"],
        carried=about["carried"],
        stamps_ns=table["stamps_ns"].to_numpy(),
        states=np.stack(table["states"].to_numpy()),
        actions=np.stack(table["actions"].to_numpy()),
        corrected=table["corrected"].to_numpy(),
        shapes={camera: tuple(shape) for camera, shape in about["shapes"].items()},
        histograms={camera: np.array(counts) for camera, counts in about["histograms"].items()},
        sampled=about["sampled"],
        nonidle=about["nonidle"],
    )


def _column(values: NDArray[Any]) -> pa.Array:
    return pa.array(values) if values.ndim == 1 else vectors(values)


def vectors(values: NDArray[Any], kind: Any = None) -> pa.Array:
    """(rows, dims) as a column of lists of fixed length, of `kind` (an arrow type) when given."""
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat.cast(kind) if kind else flat, values.shape[1])
