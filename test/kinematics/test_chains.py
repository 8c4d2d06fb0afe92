# SPDX-License-Identifier: Apache-2.0
"""Kinematics against finite differences, against MuJoCo, and there and back."""

import dataclasses

import numpy as np
import pinocchio as pin
import pytest

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.kinematics.chains import TOLERANCE, Chains
from imagewam_ros.kinematics.description import expand

ROBOT = load_embodiment("sim_cell")
READY = np.array([0.0, 0.05, 1.85, 0.0, 1.24, 0.0, 0.04] * 2)


@pytest.fixture(scope="module")
def chains():
    return Chains(expand(), ROBOT)


def random_positions(seed):
    rng = np.random.default_rng(seed)
    return READY + rng.uniform(-0.4, 0.4, 14) * ~ROBOT.gripper_mask


def test_forward_kinematics_equal_mujocos(chains):
    mujoco = pytest.importorskip("mujoco")
    model = mujoco.MjModel.from_xml_string(expand())
    data = mujoco.MjData(model)
    for seed in range(5):
        positions = random_positions(seed)
        for name, value in zip(ROBOT.joint_names, positions, strict=True):
            data.joint(name).qpos[0] = value
        mujoco.mj_forward(model, data)
        for side in ("left", "right"):
            # MuJoCo merges fixed links by default, so compare a link that moves.
            pose = chains.pose(positions, f"{side}_hand_link")
            assert np.allclose(pose[:3, 3], data.body(f"{side}_hand_link").xpos, atol=1e-9)
            assert np.allclose(pose[:3, :3], data.body(f"{side}_hand_link").xmat.reshape(3, 3), atol=1e-9)


def test_jacobian_equals_finite_differences(chains):
    positions, step = random_positions(1), 1e-6
    for arm in ROBOT.arms:
        jacobian = chains.jacobian(arm.side, positions)
        assert jacobian.shape == (6, 6)
        first = ROBOT.arm_slice(arm.side).start
        for i in range(6):
            moved = positions.copy()
            moved[first + i] += step
            before, after = chains.forward(positions)[arm.side], chains.forward(moved)[arm.side]
            turn = pin.log3(after[:3, :3] @ before[:3, :3].T)
            difference = np.concatenate([after[:3, 3] - before[:3, 3], turn]) / step
            assert np.allclose(jacobian[:, i], difference, atol=1e-5)


def test_inverse_undoes_forward(chains):
    for seed in range(20):
        goal = chains.forward(random_positions(seed))
        for side in ("left", "right"):
            solution = chains.inverse(side, goal[side], READY)
            assert solution.converged
            assert solution.error < TOLERANCE
            assert np.allclose(chains.forward(solution.positions)[side], goal[side], atol=1e-3)


def test_inverse_moves_one_arm_only_and_copies(chains):
    goal = chains.forward(random_positions(2))["left"]
    start = READY.copy()
    solution = chains.inverse("left", goal, start)
    assert np.array_equal(start, READY)
    assert np.array_equal(solution.positions[6:], READY[6:])


def test_inverse_out_of_reach_stays_inside_the_bounds_and_says_so(chains):
    goal = np.eye(4)
    goal[:3, 3] = (3, 0, 0)
    solution = chains.inverse("right", goal, READY)
    assert not solution.converged
    assert solution.error > 1
    assert (solution.positions >= ROBOT.limits.lower).all()
    assert (solution.positions <= ROBOT.limits.upper).all()


def test_both_fingers_move_with_the_gripper(chains):
    opened, closed = READY.copy(), READY.copy()
    closed[6] = 0
    for finger in ("left", "right"):
        frame = f"left_{finger}_finger_link"
        moved = chains.pose(opened, frame)[:3, 3] - chains.pose(closed, frame)[:3, 3]
        assert np.linalg.norm(moved) == pytest.approx(0.04)


def test_unknown_frame_names_the_nearest(chains):
    with pytest.raises(ConfigError, match="unknown frame 'left_tool1'; did you mean 'left_tool0'"):
        chains.pose(READY, "left_tool1")


def test_joint_that_the_urdf_lacks_is_named():
    left = ROBOT.arms[0]
    renamed = dataclasses.replace(
        left, joints=(dataclasses.replace(left.joints[0], name="left_wiast"), *left.joints[1:])
    )
    robot = dataclasses.replace(ROBOT, arms=(renamed, ROBOT.arms[1]))
    with pytest.raises(ConfigError, match="URDF and robot 'sim_cell' differ: unknown joint 'left_wiast'; did you"):
        Chains(expand(), robot)


def test_joint_that_turns_without_end_is_the_same_joint(chains):
    urdf = expand().replace('name="left_waist" type="revolute"', 'name="left_waist" type="continuous"')
    endless = Chains(urdf, ROBOT)
    for seed in range(3):
        positions = random_positions(seed)
        for side in ("left", "right"):
            assert np.allclose(endless.forward(positions)[side], chains.forward(positions)[side])
            assert np.allclose(endless.jacobian(side, positions), chains.jacobian(side, positions))
        goal = chains.forward(positions)["left"]
        assert endless.inverse("left", goal, READY).converged
