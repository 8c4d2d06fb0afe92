# SPDX-License-Identifier: Apache-2.0
"""Episodes to one array of mosaics and the demonstrations beside it, as the live policy would see them."""

import json
import multiprocessing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from imagewam_ros.core.contract import Mosaic
from imagewam_ros.core.errors import EpisodeError
from imagewam_ros.core.json_file import write_json
from imagewam_ros.data.bag_streams import frame_images
from imagewam_ros.data.dataset import Demonstration
from imagewam_ros.data.interventions import SHORTEST
from imagewam_ros.data.stretches import Lesson, judge
from imagewam_ros.data.workers import side_by_side
from imagewam_ros.model.preprocess import mosaic_pixels
from imagewam_ros.training.disk import reserve, writing

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class ReadConfig:
    """How to read episodes: trim_idle cuts off what comes before the first motion; workers is a number of processes.

    policy_runs also takes, as a whole, successes of a policy in which nobody took over.
    """

    trim_idle: bool = False
    policy_runs: bool = False
    workers: int = 2


@dataclass(frozen=True)
class ReadingReport:
    """What reading left out: unfit episodes by folder with the reason, frames of idle beginnings and short stretches.

    broken counts episodes with holes between frames, of which each unbroken stretch is a demonstration.
    """

    unfit: Mapping[str, str] = field(default_factory=dict)
    broken: int = 0
    idle_frames: int = 0
    short_frames: int = 0

    def lines(self) -> list[str]:
        """Return it in words for a person, nothing where nothing was left out."""
        told = [f"left out {path}: {reason}" for path, reason in self.unfit.items()]
        counts = {
            "episodes have holes between frames; each of their unbroken stretches is a demonstration": self.broken,
            "frames of idle beginnings are left out": self.idle_frames,
            f"frames of stretches shorter than {SHORTEST} frames are left out": self.short_frames,
        }
        return told + [f"{count} {what}" for what, count in counts.items() if count]


@dataclass(frozen=True)
class Footage:
    """Mosaics (frames, H, W, 3) of all demonstrations in order, memory-mapped, these demonstrations, and the rest."""

    mosaics: Pixels
    demonstrations: tuple[Demonstration, ...]
    report: ReadingReport


def read_footage(episodes: Sequence[Path], mosaic: Mosaic, store: Path, config: ReadConfig) -> Footage:
    """Read episodes side by side into `store` (pixels.npy, reading.json, demonstrations.npz), or what it holds already.

    Unfit episodes are left out. Raises EpisodeError when none remains, an image is damaged or
    a process is killed, DiskError when the disk has no space.
    """
    pixels, table, notes = store / "pixels.npy", store / "demonstrations.npz", store / "reading.json"
    if not table.exists():
        judging = partial(judge, trim_idle=config.trim_idle)
        judged = list(
            tqdm(side_by_side(judging, episodes, config.workers), total=len(episodes), unit="episode", desc="judging")
        )
        read, report = _sorted(episodes, judged)
        ends = np.cumsum([len(lesson.plan) for lesson in read]).tolist()
        reserve(pixels, np.uint8, (ends[-1], mosaic.height, mosaic.width, 3))
        tasks = [(lesson, end - len(lesson.plan)) for lesson, end in zip(read, ends, strict=True)]
        done = side_by_side(partial(_draw, mosaic=mosaic, pixels=pixels), tasks, config.workers)
        for _ in tqdm(done, total=len(tasks), unit="episode", desc="reading"):
            pass
        with writing(store):
            write_json(notes, asdict(report))
            save_demonstrations([shown for lesson in read for shown in _demonstrations(lesson)], table)
    report = ReadingReport(**json.loads(notes.read_text(encoding="utf8"))) if notes.exists() else ReadingReport()
    return Footage(np.load(pixels, mmap_mode="r"), load_demonstrations(table), report)


def save_demonstrations(demonstrations: Sequence[Demonstration], path: Path) -> None:
    """Write demonstrations without pickling; the file is whole or not there."""
    about = [(d.name, d.instruction, d.seed, len(d.positions), d.open_end) for d in demonstrations]
    part = path.with_suffix(".part.npz")
    np.savez(
        part,
        about=np.array(json.dumps(about)),
        positions=np.concatenate([d.positions for d in demonstrations]),
        actions=np.concatenate([d.actions for d in demonstrations]),
    )
    part.replace(path)


def load_demonstrations(path: Path) -> tuple[Demonstration, ...]:
    """Read what `save_demonstrations` wrote."""
    with np.load(path, allow_pickle=False) as data:
        about, positions, actions = json.loads(str(data["about"])), data["positions"], data["actions"]
    stops = np.cumsum([length for _, _, _, length, *_ in about])
    parts = zip(about, np.split(positions, stops[:-1]), np.split(actions, stops[:-1]), strict=True)
    return tuple(
        Demonstration(name, text, seed, state, action, *rest) for (name, text, seed, _, *rest), state, action in parts
    )


def _sorted(episodes: Sequence[Path], judged: Sequence[Lesson | str]) -> tuple[list[Lesson], ReadingReport]:
    """The lessons, and what was left out. Raises EpisodeError when there is no lesson."""
    lessons = [one for one in judged if isinstance(one, Lesson)]
    unfit = {str(path): one for path, one in zip(episodes, judged, strict=True) if isinstance(one, str)}
    if not lessons:
        raise EpisodeError(f"none of {len(episodes)} episodes is fit to learn from: {'; '.join(unfit.values())}")
    return lessons, ReadingReport(
        unfit,
        broken=sum(lesson.holes > 0 for lesson in lessons),
        idle_frames=sum(lesson.idle_frames for lesson in lessons),
        short_frames=sum(lesson.short_frames for lesson in lessons),
    )


def _draw(task: tuple[Lesson, int], mosaic: Mosaic, pixels: Path) -> None:
    """Write the mosaics of an episode's frames to the rows of `pixels` from task's second on, one by one."""
    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)  # one of several processes; whoever called this one keeps its threads
    lesson, begin = task
    array = np.load(pixels, mmap_mode="r+")
    try:
        for row, images in zip(range(len(lesson.plan)), frame_images(lesson.directory, lesson.plan), strict=False):
            array[begin + row] = to_bytes(mosaic_pixels(images, mosaic))[0]
    except EpisodeError as error:
        raise EpisodeError(f"{lesson.directory}: {error}; move the episode away and give the command again") from error
    array.flush()


def _demonstrations(lesson: Lesson) -> list[Demonstration]:
    about, plan = lesson.provenance, lesson.plan
    known = lesson.directory.name, about.instruction, about.seed
    return [
        Demonstration(*known, plan.positions[rows], plan.actions[rows], open_end) for rows, open_end in lesson.stretches
    ]


def to_bytes(pixels: torch.Tensor) -> Pixels:
    """(B, 3, H, W) in [-1, 1] to (B, H, W, 3) uint8; exact for what came from bytes."""
    scaled = ((pixels + 1) * 127.5).round().clamp(0, 255).byte()
    return scaled.permute(0, 2, 3, 1).contiguous().numpy()


def to_unit(mosaics: Pixels) -> torch.Tensor:
    """(B, H, W, 3) uint8 to (B, 3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(np.array(mosaics)).permute(0, 3, 1, 2).float() / 127.5 - 1
