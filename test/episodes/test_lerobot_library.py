# SPDX-License-Identifier: Apache-2.0
"""The lerobot library itself reads what we convert. Opt-in: it wants another torch than ours.

Make environments of their own with lerobot 0.4.4 and, for v2.1, lerobot 0.3.3, and say how to run
their Python: IMAGEWAM_LEROBOT_V30=/path/to/python IMAGEWAM_LEROBOT_V21=/path/to/python.
"""

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imagewam_ros.core.schema import JointState
from imagewam_ros.data.episode import EpisodeWriter, Provenance
from imagewam_ros.data.frames import Frames, read_frames
from imagewam_ros.data.lerobot_convert import convert
from imagewam_ros.data.lerobot_judge import ConvertConfig

PERIOD_NS = 50_000_000
JOINTS = ("left_waist", "right_waist")
CAMERAS = (("head", "head_camera/color/image_raw"), ("left_wrist", "left_wrist_camera/color/image_raw"))
SCRIPT = Path(__file__).parent / "read_with_lerobot.py"


CORRECTED_NS = (10**18 + 5 * PERIOD_NS, 10**18 + 12 * PERIOD_NS)
"""What the first episode says was corrected."""


def record(folder: Path, frames: int, task: str, **about: Any) -> Frames:
    y, x = np.mgrid[0:48, 0:64]
    with EpisodeWriter(folder, Provenance("pair", task, JOINTS, CAMERAS, PERIOD_NS, 1.0, **about)) as writer:
        for i in range(frames):
            stamp = 10**18 + i * PERIOD_NS + i % 3 * 100_000
            for number, (camera, _) in enumerate(CAMERAS):
                image = np.stack([x * 2, y * 3, np.full_like(x, 10 + 4 * i + 60 * number)], axis=-1)
                writer.image(camera, stamp, image.astype(np.uint8))
            writer.joints(JointState(stamp, JOINTS, np.array([i / 7, -i / 9]), np.zeros(2)))
            writer.action(stamp, np.array([(i + 1) / 7, -(i + 1) / 9]))
        writer.finish("success")
    return read_frames(folder)


@pytest.mark.parametrize("version", ["v3.0", "v2.1"])
def test_lerobot_reads_what_we_convert(tmp_path: Path, version: str) -> None:
    name = f"IMAGEWAM_LEROBOT_{version.replace('.', '').upper()}"
    if name not in os.environ:
        pytest.skip(f"{name} names no Python with lerobot")
    spans = ((CORRECTED_NS,), (), ())
    episodes = [
        record(tmp_path / "in" / f"episode_{i}", 23 + i, f"task {i % 2}", interventions=spans[i]) for i in range(3)
    ]
    list(convert(tmp_path / "in", tmp_path / "set", ConvertConfig(version=version), workers=1))
    command = [*shlex.split(os.environ[name]), str(SCRIPT), str(tmp_path / "set"), str(tmp_path / "read.npz")]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    compare(dict(np.load(tmp_path / "read.npz")), episodes)


def compare(read: dict[str, Any], episodes: list[Frames]) -> None:
    lengths = [len(episode) for episode in episodes]
    assert (int(read["fps"]), int(read["episodes"]), int(read["frames"])) == (20, len(episodes), sum(lengths))
    np.testing.assert_array_equal(read["episode_index"], np.repeat(np.arange(len(episodes)), lengths))
    stamps = np.concatenate([one.stamps_ns for one in episodes])
    fixed = (stamps >= CORRECTED_NS[0]) & (stamps <= CORRECTED_NS[1]) & (read["episode_index"] == 0)
    assert read["intervention"].dtype == bool and fixed.sum() == 8
    np.testing.assert_array_equal(read["intervention"].ravel(), fixed)
    np.testing.assert_array_equal(read["observation.stamp_ns"].ravel(), stamps)
    np.testing.assert_allclose(read["timestamp"], np.concatenate([np.arange(n) / 20 for n in lengths]), atol=1e-5)
    np.testing.assert_allclose(
        read["observation.state"], np.concatenate([one.positions for one in episodes]), atol=1e-6
    )
    actions = np.concatenate([one.actions for one in episodes])
    np.testing.assert_allclose(read["action"][:, 0], actions, atol=1e-6)
    inner = ~read["action_is_pad"][:, 1]
    np.testing.assert_allclose(read["action"][inner, 1], actions[np.flatnonzero(inner) + 1], atol=1e-6)
    assert int((~inner).sum()) == len(episodes)
    np.testing.assert_allclose(read["mean"], actions.mean(0), atol=1e-5)
    assert list(read["tasks"]) == [
        one.provenance.instruction for one, n in zip(episodes, lengths, strict=True) for _ in range(n)
    ]
    for camera, _ in CAMERAS:
        recorded = np.concatenate([one.images[camera] for one in episodes]).astype(int)
        difference = np.abs(read[f"observation.images.{camera}"].astype(int) - recorded)
        # the blue channel numbers the frames in steps of 4: a neighbour would be off by more
        assert difference[..., 2].mean(axis=(1, 2)).max() < 2, camera
        assert difference.mean() < 2.5, camera
