# SPDX-License-Identifier: Apache-2.0
"""Episode to frames: what the policy would have been served live, and the action of each instant."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imagewam_ros.core.errors import EpisodeError
from imagewam_ros.core.schema import Floats
from imagewam_ros.core.sync import SyncConfig
from imagewam_ros.data.bag_streams import frame_images, plan_frames, read_streams
from imagewam_ros.data.episode import Provenance
from imagewam_ros.data.judge import RATE_TOLERANCE


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
    """Pair an episode's streams by the rule that serves the live policy, with all images in memory.

    A frame without an action is left out. Raises EpisodeError when a stream is missing or no
    frame remains, or when the frames are not one period apart.
    """
    streams = read_streams(directory)
    plan = plan_frames(streams, config)
    _check_rate(plan.stamps_ns, streams.provenance.period_ns, directory)
    images = list(frame_images(directory, plan))
    return Frames(
        provenance=streams.provenance,
        stamps_ns=plan.stamps_ns,
        images={name: np.stack([image[name] for image in images]) for name in plan.image_index},
        positions=plan.positions,
        actions=plan.actions,
    )


def _check_rate(stamps: NDArray[np.int64], period_ns: int, directory: Path) -> None:
    spacing = float(np.median(np.diff(stamps))) if len(stamps) > 1 else float(period_ns)
    if abs(spacing - period_ns) > RATE_TOLERANCE * period_ns:
        raise EpisodeError(
            f"{directory}: frames are {spacing / 1e6:.1f} ms apart, the policy's period is {period_ns / 1e6:.1f} ms; "
            "record at the policy's rate"
        )
