# SPDX-License-Identifier: Apache-2.0
"""Short recordings of a two-joint robot with two cameras, made to be converted."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from imagewam_ros.core.schema import JointState
from imagewam_ros.data.episode import EpisodeWriter, Provenance
from imagewam_ros.data.lerobot_convert import convert
from imagewam_ros.data.lerobot_judge import ConvertConfig
from imagewam_ros.data.report import EpisodeReport

PERIOD_NS = 50_000_000
JOINTS = ("left_waist", "right_waist")
CAMERAS = (("head", "head_camera/color/image_raw"), ("left_wrist", "left_wrist_camera/color/image_raw"))
START_NS = 1_700_000_000_000_000_000


def picture(camera: str, frame: int) -> np.ndarray:
    """Smooth, different for every camera and frame: survives a codec and tells them apart."""
    y, x = np.mgrid[0:48, 0:64]
    level = 20 + 5 * (frame % 40) + (15 if camera == "head" else 0)
    return np.stack([x * 2, y * 3, np.full_like(x, level)], axis=-1).astype(np.uint8)


def record(
    root: Path, name: str, frames: int = 30, label: str = "success", skip: tuple[int, ...] = (), **about: Any
) -> Path:
    """One episode: joints at 100 Hz on a line in time, idle for the first ten frames."""
    fields: dict[str, Any] = {
        "robot": "pair",
        "instruction": "lift the tray",
        "joint_names": JOINTS,
        "cameras": CAMERAS,
    }
    fields |= {"period_ns": PERIOD_NS, "first_row_offset_periods": 1.0}
    with EpisodeWriter(root / name, Provenance(**{**fields, **about})) as writer:
        for i in range(frames):
            stamp = START_NS + i * PERIOD_NS
            if i not in skip:
                for camera, _ in CAMERAS:
                    writer.image(camera, stamp, picture(camera, i))
            for part in range(5):
                at = i + part / 5
                value = max(at - 10, 0.0) / 100
                state = JointState(stamp + part * PERIOD_NS // 5, JOINTS, np.array([value, -value]), np.zeros(2))
                writer.joints(state)
            target = max(i + 1 - 10, 0.0) / 100
            writer.action(stamp, np.array([target, -target]))
        if label:
            writer.finish(label)
        else:
            writer._bag.close({"imagewam": json.dumps({**fields, **about})})
    return root / name


def run(root: Path, out: Path, **options: Any) -> list[EpisodeReport]:
    """Convert in this process."""
    return list(convert(root, out, ConvertConfig(**options), workers=1))
