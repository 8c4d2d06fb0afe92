# SPDX-License-Identifier: Apache-2.0
"""Kinematics for any joints inside the bounds: rigid, consistent with its derivative, one arm at a time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.kinematics.chains import Chains
from imagewam_ros.kinematics.clearance import Clearance
from imagewam_ros.kinematics.description import describe, expand

ROBOT = load_embodiment("sim_cell")
LIMITS = ROBOT.limits
SEEDS = st.integers(0, 10_000)


@pytest.fixture(scope="module")
def chains():
    return Chains(expand(), ROBOT)


@pytest.fixture(scope="module")
def clearance(chains):
    return Clearance(expand(), chains)


def anywhere(seed, share=1.0):
    middle, half = (LIMITS.lower + LIMITS.upper) / 2, (LIMITS.upper - LIMITS.lower) / 2
    return middle + share * half * np.random.default_rng(seed).uniform(-1, 1, 14)


@settings(max_examples=25)
@given(SEEDS)
def test_poses_are_rigid(chains, seed):
    for pose in chains.forward(anywhere(seed)).values():
        assert np.allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-9)
        assert np.linalg.det(pose[:3, :3]) == pytest.approx(1.0)
        assert pose[3].tolist() == [0, 0, 0, 1]


@settings(max_examples=25)
@given(SEEDS, st.sampled_from(["left", "right"]))
def test_the_jacobian_is_the_derivative_anywhere(chains, seed, side):
    positions, step = anywhere(seed, 0.95), 1e-6
    part = ROBOT.arm_slice(side)
    rates = np.zeros(14)
    rates[part.start : part.stop - 1] = np.random.default_rng(seed + 1).uniform(-1, 1, 6)
    after, before = (chains.forward(positions + sign * step * rates)[side] for sign in (1, -1))
    moved = (after[:3, 3] - before[:3, 3]) / (2 * step)
    spin = (after[:3, :3] - before[:3, :3]) @ chains.forward(positions)[side][:3, :3].T / (2 * step)
    turned = np.array([spin[2, 1], spin[0, 2], spin[1, 0]])
    wanted = chains.jacobian(side, positions) @ rates[part.start : part.stop - 1]
    assert np.allclose(np.concatenate([moved, turned]), wanted, atol=1e-4)


@settings(max_examples=25)
@given(SEEDS)
def test_one_arm_does_not_move_the_other(chains, seed):
    positions = anywhere(seed)
    other = positions.copy()
    other[ROBOT.arm_slice("right")] = anywhere(seed + 1)[ROBOT.arm_slice("right")]
    assert np.allclose(chains.forward(positions)["left"], chains.forward(other)["left"], atol=1e-12)


@settings(max_examples=25)
@given(SEEDS, st.sampled_from(["left", "right"]))
def test_the_gripper_does_not_move_its_tool(chains, seed, side):
    positions = anywhere(seed)
    closed = np.where(ROBOT.gripper_mask, LIMITS.lower, positions)
    assert np.allclose(chains.forward(positions)[side], chains.forward(closed)[side], atol=1e-12)


@settings(max_examples=15)
@given(SEEDS, st.sampled_from(["left", "right"]))
def test_solutions_stay_inside_the_bounds_and_say_their_error(chains, seed, side):
    goal = chains.forward(anywhere(seed))[side]
    found = chains.inverse(side, goal, anywhere(seed + 1, 0.5))
    assert (found.positions >= LIMITS.lower - 1e-12).all() and (found.positions <= LIMITS.upper + 1e-12).all()
    reached = chains.forward(found.positions)[side]
    assert found.converged == (found.error < 1e-4)
    assert np.abs(reached[:3, 3] - goal[:3, 3]).max() <= found.error + 1e-9


@settings(max_examples=15)
@given(SEEDS)
def test_a_pose_that_is_reached_already_costs_nothing(chains, seed):
    positions = anywhere(seed, 0.8)
    found = chains.inverse("left", chains.forward(positions)["left"], positions)
    assert found.converged and np.array_equal(found.positions, positions)


@settings(max_examples=15)
@given(SEEDS)
def test_asking_changes_nothing(chains, seed):
    positions = anywhere(seed)
    before = positions.copy()
    first = chains.forward(positions)["left"]
    chains.forward(anywhere(seed + 1))
    chains.jacobian("right", positions)
    assert np.array_equal(positions, before) and np.array_equal(first, chains.forward(positions)["left"])


@settings(max_examples=15)
@given(SEEDS)
def test_the_nearest_is_the_least_distance(clearance, seed):
    positions = anywhere(seed)
    distances, nearest = clearance.distances(positions), clearance.nearest(positions)
    assert nearest.distance_m == pytest.approx(distances.min(), abs=1e-5) and len(distances) == len(clearance.pairs)
    assert (nearest.first, nearest.second) in clearance.pairs


@settings(max_examples=15)
@given(SEEDS)
def test_distances_change_no_faster_than_the_links_can_move(clearance, seed):
    """Every link point is within 1.5 m of every joint axis, so 1 mrad in 12 joints moves it at most 18 mm."""
    positions = anywhere(seed, 0.9)
    moved = positions + 1e-3 * ~ROBOT.gripper_mask
    change = np.abs(clearance.distances(positions) - clearance.distances(moved))
    apart = clearance.distances(positions) > 0.02
    assert change[apart].max(initial=0.0) <= 2 * 0.018


def test_missing_description_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no such robot description: .*absent\.xacro; check the path or install"):
        expand(tmp_path / "absent.xacro")


@pytest.mark.parametrize("text", ["", "<robot", "<robot><xacro:nonsense/></robot>"])
def test_broken_description_is_named(tmp_path, text):
    path = tmp_path / "robot.urdf.xacro"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"xacro cannot expand .*robot\.urdf\.xacro"):
        expand(path)


def test_a_robot_describes_itself():
    assert describe(ROBOT) == expand()
