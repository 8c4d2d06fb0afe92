# SPDX-License-Identifier: Apache-2.0
"""Exposure and swapped cameras."""

import dataclasses

import numpy as np
import pytest

from imagewam_ros.doctor_checks.finding import Level
from imagewam_ros.doctor_checks.pictures import check_exposure, check_pictures, check_swap


def swap(heard):
    images = dict(heard.images)
    images["left_wrist"], images["right_wrist"] = images["right_wrist"], images["left_wrist"]
    return dataclasses.replace(heard, images=images)


def test_a_healthy_cell_passes(healthy, robot):
    assert {finding.level for finding in check_pictures(healthy, robot)} == {Level.PASS}


def test_swapped_wrist_cameras_are_caught_by_the_arm_that_moves(healthy, robot):
    (found,) = check_swap(swap(healthy), robot)
    assert found.level is Level.FAIL
    assert "the left arm moved" in found.found
    assert "look swapped" in found.found


def test_no_or_two_moving_arms_prove_nothing(healthy, robot):
    still = dataclasses.replace(healthy.joints, positions=healthy.joints.positions * 0)
    (found,) = check_swap(dataclasses.replace(healthy, joints=still), robot)
    assert (found.level, found.found) == (Level.SKIP, "neither arm moved")
    positions = healthy.joints.positions.copy()
    positions[:, 7] = positions[:, 0]
    both = dataclasses.replace(healthy.joints, positions=positions)
    (found,) = check_swap(dataclasses.replace(healthy, joints=both), robot)
    assert found.found == "both arms moved"


def test_wrist_cameras_that_change_alike_are_no_proof(healthy, robot):
    images = {**healthy.images, "right_wrist": healthy.images["left_wrist"]}
    (found,) = check_swap(dataclasses.replace(healthy, images=images), robot)
    assert found.level is Level.WARN


def test_one_device_on_two_topics_is_caught(healthy, robot):
    images = {**healthy.images, "right_wrist": healthy.images["head"]}
    found = [f for f in check_pictures(dataclasses.replace(healthy, images=images), robot) if f.level is Level.FAIL]
    assert found[0].found == "head and right_wrist show the same picture"


@pytest.mark.parametrize(
    ("low", "high", "level"),
    [(0, 1, Level.FAIL), (0, 30, Level.WARN), (225, 256, Level.WARN), (30, 220, Level.PASS)],
)
def test_exposure_is_judged(low, high, level):
    image = np.random.default_rng(0).integers(low, high, (32, 32, 1), dtype=np.uint8).repeat(3, axis=2)
    (found,) = check_exposure("head", image)
    assert found.level is level
