# SPDX-License-Identifier: Apache-2.0
"""Checkpoints with random weights whose vectors are tool poses and scaled grippers, as released ones have."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from small_checkpoint import cell_contract, small_checkpoint

from imagewam_ros.core.contract import Contract, Denoising
from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.schema import Floats
from imagewam_ros.core.spaces import GripperScale, Part, PoseFormat
from imagewam_ros.core.stats import Statistics
from imagewam_ros.kinematics.chains import Chains
from imagewam_ros.kinematics.description import describe
from imagewam_ros.kinematics.poses import numbers

ROBOT = load_embodiment("sim_cell")
CHAINS = Chains(describe(ROBOT), ROBOT)
READY = np.array([0.0, 0.05, 1.85, 0.0, 1.24, 0.0, 0.02] * 2)
GRIP = GripperScale((-1.0,), (1.0,), 0.0, 0.04)
INTERNDATA = tuple(
    part for side in ("left", "right") for part in (Part(side, pose=PoseFormat("wxyz")), Part(side, gripper=GRIP))
)
LIBERO_STATE = (
    Part("left", pose=PoseFormat("rotvec")),
    Part("left", gripper=GripperScale((0.0, 0.0), (0.04, -0.04), 0.0, 0.04)),
)
LIBERO_ACTION = (
    Part("left", pose=PoseFormat("rotvec", delta=True, step_m=0.05, step_rad=0.5)),
    Part("left", gripper=GripperScale((0.0,), (1.0,), 0.0, 0.04, threshold=0.5)),
)


def around(middle: Floats, spread: float) -> Statistics:
    """Statistics of data that stay near `middle`."""
    return Statistics.of(middle + spread * np.random.default_rng(0).normal(size=(200, middle.size)))


def tools(spread: float) -> Statistics:
    """InternData's vectors near the ready posture; both the state's and the action's quaternion are written as -q."""
    middle = []
    for side in ("left", "right"):
        pose = numbers(CHAINS.forward(READY)[side], PoseFormat("wxyz"))
        middle += [*pose[:3], *-pose[3:], 0.0]
    return around(np.array(middle), spread)


def bimanual_checkpoint(directory: Path, spread: float = 0.002, padded_dims: tuple[int, ...] = ()) -> Path:
    """Both tools and grippers in InternData's way; the actions seen in training lie within some `spread`."""
    contract = replace(cell_contract(ROBOT), relative=(False,) * 14, state=INTERNDATA, action=INTERNDATA)
    contract = replace(contract, denoising=Denoising(time_grid="bfloat16"))
    statistics = {"state": tools(0.05), "action": tools(spread)}
    return small_checkpoint(directory, contract, statistics, padded_dims)


def left_arm_contract(state: tuple[Part, ...], action: tuple[Part, ...]) -> Contract:
    """Contract of a policy that commands the cell's left arm alone."""
    left = ROBOT.arms[0].members
    names, units = (tuple(getattr(joint, name) for joint in left) for name in ("name", "unit"))
    plain = replace(cell_contract(ROBOT), joint_names=names, joint_units=units, relative=(False,) * 7)
    return replace(plain, state=state, action=action)


def one_arm_checkpoint(directory: Path) -> Path:
    """Steps of the left tool and a gripper of two states, in LIBERO's way."""
    contract = left_arm_contract(LIBERO_STATE, LIBERO_ACTION)
    mosaic = replace(contract.mosaic, tiles=contract.mosaic.tiles[:2])
    contract = replace(contract, mosaic=mosaic, normalisation="minmax")
    statistics = {"state": around(np.zeros(8), 1.0), "action": around(np.array([0.0] * 6 + [0.5]), 0.1)}
    return small_checkpoint(directory, contract, statistics)
