# SPDX-License-Identifier: Apache-2.0
"""Distances between links, on shapes whose distance is known and on the cell."""

import numpy as np
import pytest

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.kinematics.chains import Chains
from imagewam_ros.kinematics.clearance import Clearance
from imagewam_ros.kinematics.description import expand

ROBOT = load_embodiment("sim_cell")
READY = np.array([0.0, 0.05, 1.85, 0.0, 1.24, 0.0, 0.04] * 2)


@pytest.fixture(scope="module")
def clearance():
    return Clearance(expand(), Chains(expand(), ROBOT))


def test_ready_pose_is_clear(clearance):
    assert clearance.nearest(READY).distance_m > 0.02


def test_pairs_leave_out_what_a_joint_joins_and_the_fingers_of_a_hand(clearance):
    pairs = {frozenset(pair) for pair in clearance.pairs}
    assert frozenset({"left_upper_arm_link", "left_forearm_link"}) not in pairs
    assert frozenset({"left_left_finger_link", "left_right_finger_link"}) not in pairs
    assert frozenset({"base_link", "left_base_link"}) not in pairs
    assert frozenset({"left_hand_link", "right_hand_link"}) in pairs
    assert frozenset({"left_hand_link", "left_upper_arm_link"}) in pairs


def test_arms_that_turn_to_each_other_meet(clearance):
    """Both waists turn inwards: the hands come nearer until they overlap."""
    found = []
    for turn in np.linspace(0, 1.5, 16):
        positions = READY.copy()
        positions[[0, 7]] = (-turn, turn)
        found.append(clearance.nearest(positions))
    assert found[0].distance_m > 0.02
    assert min(found).distance_m < 0
    crash = min(found)
    assert {crash.first.split("_")[0], crash.second.split("_")[0]} == {"left", "right"}


def test_distance_between_the_hands_is_the_gap_of_their_boxes(clearance):
    """With equal joints the arms are mirrored only in place: hands 0.5 m apart, boxes 0.12 m wide."""
    index = clearance.pairs.index(("left_hand_link", "right_hand_link"))
    assert clearance.distances(READY)[index] == pytest.approx(0.5 - 0.12, abs=1e-6)


def test_arm_folded_onto_its_own_base_is_found(clearance):
    positions = READY.copy()
    positions[1:3] = (-0.9, 2.8)
    positions[4] = 1.5
    nearest = clearance.nearest(positions)
    assert nearest.distance_m < 0
    assert nearest.first.startswith("left_")
    assert nearest.second.startswith("left_")
