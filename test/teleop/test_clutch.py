# SPDX-License-Identifier: Apache-2.0
"""The match-first clutch."""

import numpy as np
import pytest

from imagewam_ros.core.errors import ConfigError
from imagewam_ros.teleop.clutch import ClutchConfig, MatchClutch
from imagewam_ros.teleop.operator import Clutch

MS = 1_000_000


@pytest.fixture
def clutch(robot):
    return MatchClutch(robot, np.ones(14, dtype=bool), ClutchConfig())


def run(clutch, start_ms, stop_ms, leader, follower, age_ns=0):
    for now_ms in range(start_ms, stop_ms, 20):
        clutch.update(now_ms * MS, leader, age_ns, follower)


@pytest.fixture
def engaged(clutch, ready):
    clutch.arm()
    run(clutch, 0, 400, ready, ready)
    assert clutch.state is Clutch.ENGAGED
    return clutch


def test_nothing_engages_before_it_is_armed(clutch, ready):
    run(clutch, 0, 1000, ready, ready)
    assert (clutch.state, clutch.reason) == (Clutch.RELEASED, "not armed")


def test_it_engages_when_the_leader_has_matched_for_the_settling_time(clutch, ready):
    clutch.arm()
    run(clutch, 0, 300, ready + 0.005, ready)
    assert clutch.state is Clutch.MATCHING
    run(clutch, 300, 320, ready + 0.005, ready)
    assert clutch.state is Clutch.ENGAGED


def test_an_offset_is_named_with_its_joint_and_limit(clutch, ready):
    clutch.arm()
    leader = ready.copy()
    leader[9] += 0.3
    run(clutch, 0, 1000, leader, ready)
    assert clutch.state is Clutch.MATCHING
    assert "right_elbow 0.300 rad from its follower (limit 0.100); move the leader there" in clutch.reason


def test_passing_by_does_not_engage(clutch, ready):
    clutch.arm()
    for now_ms in range(0, 2000, 20):
        away = ready + (0.05 if now_ms % 200 else 0.15) * np.where(np.arange(14) == 2, 1, 0)
        clutch.update(now_ms * MS, away, 0, ready)
    assert clutch.state is Clutch.MATCHING


def test_grippers_have_a_tolerance_of_their_own(clutch, ready):
    clutch.arm()
    leader = ready.copy()
    leader[6] = 0.035
    run(clutch, 0, 1000, leader, ready)
    assert "left_gripper 0.015 m from its follower (limit 0.010)" in clutch.reason


@pytest.mark.parametrize(
    ("leader_change", "age_ns", "follower_change", "reason"),
    [
        (0.0, 250 * MS, 0.0, r"leader silent for 0.25 s \(limit 0.20 s\)"),
        (0.4, 0, 0.0, r"leader left_elbow 0.400 rad jumped \(limit 0.30 rad\)"),
        (0.0, 0, -0.9, r"follower left_elbow 0.900 rad behind its leader \(limit 0.80 rad\)"),
    ],
)
def test_a_fault_lets_go_and_asks_to_match_again(engaged, ready, leader_change, age_ns, follower_change, reason):
    elbow = np.where(np.arange(14) == 2, 1.0, 0.0)
    engaged.update(400 * MS, ready + leader_change * elbow, age_ns, ready + follower_change * elbow)
    assert engaged.state is Clutch.MATCHING
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(engaged.reason)
    run(engaged, 420, 800, ready, ready)
    assert engaged.state is Clutch.ENGAGED


def test_without_a_leader_it_waits(engaged, ready):
    engaged.update(400 * MS, None, 0, ready)
    assert "no leader joint states yet" in engaged.reason
    assert engaged.state is Clutch.MATCHING


def test_release_needs_arming_again(engaged, ready):
    engaged.release("operator let go")
    run(engaged, 400, 1000, ready, ready)
    assert (engaged.state, engaged.reason) == (Clutch.RELEASED, "operator let go")
    engaged.interrupt("ignored")
    assert engaged.reason == "operator let go"


def test_absurd_tolerances_are_refused():
    with pytest.raises(ConfigError, match="match_rad must be positive and below slip_rad, found 1.0 and 0.8"):
        ClutchConfig(match_rad=1.0)
    with pytest.raises(ConfigError, match=r"match_gripper must be in \(0, 1\]"):
        ClutchConfig(match_gripper=2.0)
