# SPDX-License-Identifier: Apache-2.0
"""Small real episodes of a two-joint robot with two cameras."""

from pathlib import Path

import numpy as np
import pytest

from imagewam_ros.core.schema import JointState
from imagewam_ros.data.episode import EpisodeWriter, Provenance

PERIOD_NS = 50_000_000
JOINTS = ("left_waist", "right_waist")


class Rig:
    """Makes episodes whose every value is a function of its index."""

    period_ns = PERIOD_NS
    joint_names = JOINTS

    def __init__(self, root: Path) -> None:
        self.root = root

    def provenance(self, seed: int = 7, period_ns: int = PERIOD_NS) -> Provenance:
        cameras = (("head", "head_camera/image"), ("left_wrist", "left_wrist_camera/image"))
        return Provenance("pair", "wave", JOINTS, cameras, period_ns, 1.0, seed=seed)

    def write(self, writer: EpisodeWriter, frames: int) -> None:
        """Joints at twice the frame rate."""
        rng = np.random.default_rng(writer.provenance.seed)
        for i in range(frames):
            stamp = i * PERIOD_NS
            for camera in ("head", "left_wrist"):
                writer.image(camera, stamp, rng.integers(0, 256, (8, 12, 3), dtype=np.uint8))
            for half in (0, 1):
                position = np.array([i + half / 2, -i - half / 2])
                writer.joints(JointState(stamp + half * PERIOD_NS // 2, JOINTS, position, np.ones(2)))
            writer.action(stamp, np.array([i + 1.0, -i - 1.0]))

    def record(self, name: str = "episode_0", frames: int = 5, label: str = "success", seed: int = 7) -> Path:
        with EpisodeWriter(self.root / name, self.provenance(seed)) as writer:
            self.write(writer, frames)
            writer.finish(label)
        return self.root / name

    def writer(self, name: str = "episode_0", **about: int) -> EpisodeWriter:
        return EpisodeWriter(self.root / name, self.provenance(**about))


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)
