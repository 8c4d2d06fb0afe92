# SPDX-License-Identifier: Apache-2.0
"""No limit is ever exceeded, whatever arrives and whenever; judged by the independent checker."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagewam_ros.control import campaign
from imagewam_ros.core.embodiment import Embodiment, load_embodiment
from imagewam_ros.core.schema import ActionChunk, Command


def passes(tally: campaign.Tally) -> None:
    assert tally.violations == 0, tally.first_violation
    assert tally.starved_ticks == 0
    assert tally.unstoppable == 0
    assert tally.velocity_jump <= 1e-6


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=8, deadline=None)
def test_any_life_keeps_every_limit(robot: Embodiment, seed: int) -> None:
    passes(campaign.run(robot, 300, seed))


@pytest.mark.slow
def test_a_campaign_of_a_hundred_thousand_ticks_keeps_every_limit(robot: Embodiment) -> None:
    tally = campaign.run(robot, 100_000, seed=0)
    passes(tally)
    assert tally.ticks >= 100_000
    assert tally.accepted > 100, "the campaign must move the arms"
    assert 1_000 < tally.limited_ticks < tally.ticks
    assert {"nan", "joints", "shape", "stale", "future", "order", "state", "bounds"} <= set(tally.refused)


@pytest.mark.soak
def test_a_million_ticks_keep_every_limit(robot: Embodiment) -> None:
    passes(campaign.run(robot, 1_000_000, seed=1))


def test_the_same_seed_is_the_same_campaign(robot: Embodiment) -> None:
    assert campaign.run(robot, 300, seed=5) == campaign.run(robot, 300, seed=5)


def test_a_state_that_must_pass_a_bound_can_not_stop(robot: Embodiment) -> None:
    upper, zero = robot.limits.upper, np.zeros(14)
    near = Command(0, 0, 5_000_000, robot.joint_names, upper - 1e-3, 0.5 * robot.limits.velocity, zero)
    far = Command(0, 0, 5_000_000, robot.joint_names, upper * 0.5, zero, zero)
    assert not campaign.can_stop(near, robot.limits)
    assert campaign.can_stop(far, robot.limits)


def test_arms_can_stop_wherever_their_bounds_are() -> None:
    robot = load_embodiment("aloha")
    assert (robot.limits.lower[robot.gripper_mask] > 0).all(), "else this shows nothing"
    zero, middle = np.zeros(14), (robot.limits.lower + robot.limits.upper) / 2
    assert campaign.can_stop(Command(0, 0, 5_000_000, robot.joint_names, middle, zero, zero), robot.limits)
    slow = np.where(robot.gripper_mask, 0.01, 0.0)
    assert campaign.can_stop(Command(0, 0, 5_000_000, robot.joint_names, middle, -slow, zero), robot.limits)
    beyond = Command(0, 0, 5_000_000, robot.joint_names, robot.limits.upper + 0.01, zero, zero)
    assert not campaign.can_stop(beyond, robot.limits)


def test_damage_is_of_every_kind(robot: Embodiment) -> None:
    rng = np.random.default_rng(0)
    chunk = ActionChunk(10**12, 50_000_000, robot.joint_names, np.zeros((16, 14)))
    spoilt = [campaign.damaged(chunk, rng) for _ in range(300)]
    assert None in spoilt
    alive = [c for c in spoilt if c is not None]
    assert any(np.isnan(c.positions).any() for c in alive)
    assert any(c.positions.shape[1] == 13 for c in alive)
    assert {c.stamp_ns > chunk.stamp_ns for c in alive} == {True, False}
    assert {int(c.source) for c in alive} >= {0, 3}
