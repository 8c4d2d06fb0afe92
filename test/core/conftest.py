# SPDX-License-Identifier: Apache-2.0
"""Values that the core tests share."""

import pytest

from imagewam_ros.core.contract import Contract, Mosaic, Tile
from imagewam_ros.core.embodiment import Embodiment, load_embodiment


@pytest.fixture
def robot() -> Embodiment:
    return load_embodiment("sim_cell")


@pytest.fixture
def contract(robot: Embodiment) -> Contract:
    tiles = tuple(Tile(name, 0, 64 * i, 64, 64) for i, name in enumerate(robot.camera_names))
    return Contract(
        variant="flux2",
        joint_names=robot.joint_names,
        joint_units=tuple(joint.unit for joint in robot.joints),
        relative=tuple(not gripper for gripper in robot.gripper_mask.tolist()),
        mosaic=Mosaic(64, 192, tiles),
        period_ns=50_000_000,
        horizon=16,
        first_row_offset_periods=1.0,
        text_length=32,
    )
