# SPDX-License-Identifier: Apache-2.0
"""Episode to frames: what the policy would have been served live, and the action of each instant."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imagewam_ros.core.errors import EpisodeError
from imagewam_ros.core.schema import Floats, Image, JointState
from imagewam_ros.core.sync import SyncConfig, frames, nearest
from imagewam_ros.data.episode import EpisodeReader, Provenance

RATE_TOLERANCE = 0.1
"""The frames' median spacing may differ from the policy's period by this part of it."""


@dataclass(frozen=True)
class Frames:
    """All frames of one episode, oldest first.

    stamps_ns (N,); images by camera, each (N, H, W, 3) uint8 RGB; positions and actions
    (N, joints) in rad or m, in the provenance's joint order.
    """

    provenance: Provenance
    stamps_ns: NDArray[np.int64]
    images: Mapping[str, NDArray[np.uint8]]
    positions: Floats
    actions: Floats

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.stamps_ns)


def read_frames(directory: Path, config: SyncConfig | None = None) -> Frames:
    """Pair an episode's streams by the rule that serves the live policy.

    A frame without an action within half a period is left out. Raises EpisodeError when a
    stream is missing or no frame remains, or when the frames are not one period apart.
    """
    reader = EpisodeReader(directory)
    about = reader.provenance
    images: dict[str, list[tuple[int, Image]]] = {name: [] for name, _ in about.cameras}
    states: dict[str, list[JointState]] = {"joints": [], "action": []}
    for sample in reader.samples():
        if isinstance(sample.value, JointState):
            states[sample.stream].append(sample.value)
        else:
            images[sample.stream].append((sample.stamp_ns, sample.value))
    silent = [name for name, samples in {**images, **states}.items() if not samples]
    if silent:
        raise EpisodeError(f"{directory} holds no samples of {', '.join(silent)}; was the topic recorded?")
    joint_stamps, positions = _in_order(states["joints"], about, directory)
    action_stamps, actions = _in_order(states["action"], about, directory)
    stamps = {name: [stamp for stamp, _ in samples] for name, samples in images.items()}
    paired = frames(stamps, joint_stamps, positions, config or SyncConfig())
    shutters = np.array([frame.stamp_ns for frame in paired], dtype=np.int64)
    acted = nearest(action_stamps, shutters, about.period_ns // 2)
    kept = [(frame, int(row)) for frame, row in zip(paired, acted, strict=True) if row >= 0]
    if not kept:
        raise EpisodeError(
            f"{directory} has no frame with all cameras, joints and an action; are the stamps in one clock?"
        )
    shutters = shutters[acted >= 0]
    _check_rate(shutters, about.period_ns, directory)
    return Frames(
        provenance=about,
        stamps_ns=shutters,
        images={name: np.stack([images[name][frame.image_index[name]][1] for frame, _ in kept]) for name in images},
        positions=np.stack([frame.positions for frame, _ in kept]),
        actions=actions[[row for _, row in kept]],
    )


def _in_order(states: list[JointState], about: Provenance, directory: Path) -> tuple[NDArray[np.int64], Floats]:
    """Stamps (samples,) and positions (samples, joints) in the provenance's joint order."""
    names = states[0].joint_names
    missing = [name for name in about.joint_names if name not in names]
    if missing:
        raise EpisodeError(f"{directory}: joints {', '.join(missing)} are missing; found {', '.join(names)}")
    order = [names.index(name) for name in about.joint_names]
    stamps = np.array([state.stamp_ns for state in states], dtype=np.int64)
    return stamps, np.stack([state.position[order] for state in states])


def _check_rate(stamps: NDArray[np.int64], period_ns: int, directory: Path) -> None:
    spacing = float(np.median(np.diff(stamps))) if len(stamps) > 1 else float(period_ns)
    if abs(spacing - period_ns) > RATE_TOLERANCE * period_ns:
        raise EpisodeError(
            f"{directory}: frames are {spacing / 1e6:.1f} ms apart, the policy's period is {period_ns / 1e6:.1f} ms; "
            "record at the policy's rate"
        )
