# SPDX-License-Identifier: Apache-2.0
"""Episodes to one array of mosaics and the demonstrations beside it, as the live policy would see them."""

import json
import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from imagewam_ros.core.contract import Contract, Mosaic
from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import EmbodimentMismatch, EpisodeError
from imagewam_ros.data.dataset import Demonstration
from imagewam_ros.data.episode import FIRST_SEED, Provenance, find_episodes, read_provenance
from imagewam_ros.data.frames import read_frames
from imagewam_ros.data.interventions import lessons
from imagewam_ros.model.preprocess import mosaic_pixels

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Footage:
    """Mosaics (frames, H, W, 3) of all demonstrations in order, memory-mapped, and the demonstrations."""

    mosaics: Pixels
    demonstrations: tuple[Demonstration, ...]


def successful_episodes(roots: Sequence[Path]) -> dict[Path, Provenance]:
    """Return the episodes labelled success under `roots`.

    Raises EpisodeError when there is none, or one of a scene that evaluations use.
    """
    found = {path: read_provenance(path) for root in roots for path in find_episodes(root)}
    for path, about in found.items():
        if 0 <= about.seed < FIRST_SEED:
            raise EpisodeError(
                f"{path} was made from seed {about.seed}: seeds below {FIRST_SEED} are for evaluation, and no policy "
                "is tested on what it saw; leave the episode out or record it again with another --seed"
            )
    chosen = {path: about for path, about in found.items() if about.label == "success"}
    if not chosen:
        raise EpisodeError(f"none of {len(found)} episodes is labelled success; nothing to learn from")
    return chosen


def check_episodes(episodes: dict[Path, Provenance], contract: Contract, robot: Embodiment) -> None:
    """Raise EmbodimentMismatch, naming episode and field, when one does not fit contract and robot."""
    expected = {
        "joint_names": robot.joint_names,
        "period_ns": contract.period_ns,
        "first_row_offset_periods": contract.first_row_offset_periods,
    }
    for path, about in episodes.items():
        for name, wanted in expected.items():
            found = getattr(about, name)
            if wanted != found:
                raise EmbodimentMismatch(f"{path}: {name} is {found}, the others have {wanted}; leave it out")


def read_footage(episodes: Sequence[Path], mosaic: Mosaic, store: Path, workers: int = 2) -> Footage:
    """Read episodes side by side into `store` (pixels.npy, demonstrations.npz), or what it holds already."""
    pixels, table = store / "pixels.npy", store / "demonstrations.npz"
    if not table.exists():
        one = partial(_read, mosaic=mosaic)
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            bar = tqdm(pool.imap(one, episodes), total=len(episodes), unit="episode", desc="reading")
            read = [part for parts in bar for part in parts]
        frames = sum(len(mosaics) for mosaics, _ in read)
        array = np.lib.format.open_memmap(pixels, "w+", np.uint8, (frames, mosaic.height, mosaic.width, 3))
        np.concatenate([mosaics for mosaics, _ in read], out=array)
        array.flush()
        save_demonstrations([demonstration for _, demonstration in read], table)
    return Footage(np.load(pixels, mmap_mode="r"), load_demonstrations(table))


def save_demonstrations(demonstrations: Sequence[Demonstration], path: Path) -> None:
    """Write demonstrations without pickling; the file is whole or not there."""
    about = [(d.name, d.instruction, d.seed, len(d.positions), d.correction) for d in demonstrations]
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


def _read(directory: Path, mosaic: Mosaic) -> list[tuple[Pixels, Demonstration]]:
    """The whole episode, or each of its corrections."""
    torch.set_num_threads(1)
    frames = read_frames(directory)
    about, parts = frames.provenance, []
    for rows in lessons(frames.stamps_ns, frames.provenance.interventions):
        mosaics = np.empty((rows.stop - rows.start, mosaic.height, mosaic.width, 3), np.uint8)
        for place, row in enumerate(range(rows.start, rows.stop)):
            images = {name: images[row] for name, images in frames.images.items()}
            mosaics[place] = to_bytes(mosaic_pixels(images, mosaic))[0]
        known = (directory.name, about.instruction, about.seed)
        ends_early = bool(frames.provenance.interventions)
        parts.append((mosaics, Demonstration(*known, frames.positions[rows], frames.actions[rows], ends_early)))
    return parts


def to_bytes(pixels: torch.Tensor) -> Pixels:
    """(B, 3, H, W) in [-1, 1] to (B, H, W, 3) uint8; exact for what came from bytes."""
    scaled = ((pixels + 1) * 127.5).round().clamp(0, 255).byte()
    return scaled.permute(0, 2, 3, 1).contiguous().numpy()


def to_unit(mosaics: Pixels) -> torch.Tensor:
    """(B, H, W, 3) uint8 to (B, 3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(np.array(mosaics)).permute(0, 3, 1, 2).float() / 127.5 - 1
