# SPDX-License-Identifier: Apache-2.0
"""A contract that fits a robot: its joints, arms relative and grippers absolute, its cameras side by side."""

from typing import Any

from imagewam_ros.core.contract import Contract, Mosaic, Tile
from imagewam_ros.core.embodiment import Embodiment


def small_contract(robot: Embodiment, tile: int = 64, **changes: Any) -> Contract:
    """Return a contract of 16 rows of 50 ms with square tiles of `tile` pixels."""
    tiles = tuple(Tile(name, 0, tile * i, tile, tile) for i, name in enumerate(robot.camera_names))
    fields: dict[str, Any] = {
        "variant": "flux2",
        "joint_names": robot.joint_names,
        "joint_units": tuple(joint.unit for joint in robot.joints),
        "relative": tuple(not gripper for gripper in robot.gripper_mask.tolist()),
        "mosaic": Mosaic(tile, tile * len(tiles), tiles),
        "period_ns": 50_000_000,
        "horizon": 16,
        "first_row_offset_periods": 1.0,
        "text_length": 32,
    }
    return Contract(**fields | changes)
