# SPDX-License-Identifier: Apache-2.0
"""The guard on distances: every pair by its own history, on two UR5e whose fingers touch."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fine_robot import HOME, fine_robot, finely_meshed, stand_in_urdf
from hypothesis import given, settings
from hypothesis import strategies as st

from imagewam_ros.control import checker
from imagewam_ros.control.braking import Motion
from imagewam_ros.control.executor import ExecutorConfig
from imagewam_ros.control.guard import Guard, GuardConfig
from imagewam_ros.control.timeline import Rows
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.schema import Floats
from imagewam_ros.kinematics.chains import Chains
from imagewam_ros.kinematics.clearance import Clearance

ROBOT = fine_robot()
STOP, SLOW = 0.02, 0.06
CONFIG = GuardConfig(speed_cap=0.0, stop_distance=STOP, slow_distance=SLOW)
CLOSED = np.where(ROBOT.gripper_mask, 0.8, HOME)
SEEDS = st.integers(0, 10_000)


@pytest.fixture(scope="module")
def urdf() -> str:
    return stand_in_urdf()


@pytest.fixture(scope="module")
def guard(urdf: str) -> Guard:
    return Guard(ROBOT, urdf, CONFIG)


@pytest.fixture(scope="module")
def clearance(urdf: str) -> Clearance:
    return Clearance(urdf, Chains(urdf, ROBOT))


def still(positions: Floats) -> Motion:
    return Motion(positions, np.zeros(positions.size), np.zeros(positions.size))


def turned_in(angle: float) -> Floats:
    """The pose at home with closed fingers, both arms turned towards each other."""
    return CLOSED + angle * ((np.arange(14) == 7) * 1.0 - (np.arange(14) == 0))


def anywhere(seed: int) -> Floats:
    return np.random.default_rng(seed).uniform(ROBOT.limits.lower, ROBOT.limits.upper)


def rows(start: Floats, end: Floats, count: int = 16) -> "dict[str, Rows]":
    """From start to end, a row every 50 ms, the first after `start`."""
    times = (1 + np.arange(count)) * 50_000_000
    path = start + (end - start) * np.linspace(0, 1, count + 1)[1:, None]
    return {arm.side: Rows(times, path[:, ROBOT.arm_slice(arm.side)]) for arm in ROBOT.arms}


def watched(guard: Guard, clearance: Clearance) -> "np.ndarray[Any, Any]":
    """Which pairs are no neighbours."""
    return np.array([pair not in guard.unwatched for pair in clearance.pairs])


def across(clearance: Clearance) -> "np.ndarray[Any, Any]":
    """Which pairs are of one link of each arm."""
    return np.array([a.split("_")[0] != b.split("_")[0] for a, b in clearance.pairs])


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_a_standing_robot_stands_wherever_it_is(guard: Guard, seed: int) -> None:
    positions = anywhere(seed)
    assert guard.veto(still(positions), still(positions)) == ""
    shaped = guard.shape(positions, 0, rows(positions, positions))
    for side, part in shaped.items():
        assert np.array_equal(part.positions, np.tile(positions[ROBOT.arm_slice(side)], (16, 1)))
        assert np.array_equal(part.times_ns, (1 + np.arange(16)) * 50_000_000)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.floats(1e-3, 0.2))
def test_a_motion_is_vetoed_exactly_where_a_pair_below_the_stop_distance_comes_nearer(
    guard: Guard, clearance: Clearance, seed: int, size: float
) -> None:
    here = anywhere(seed)
    there = here + size * np.random.default_rng(seed + 1).uniform(-1, 1, here.size)
    judged = watched(guard, clearance)
    before, after = clearance.distances(here)[judged], clearance.distances(there)[judged]
    veto = guard.veto(still(here), still(there))
    if ((after < STOP - 1e-4) & (after < before - 1e-4)).any():
        assert re.fullmatch(r"\w+ would stop -?\d+ mm from \w+ \(stop distance 20 mm\)", veto)
        first, second = (word for word in veto.split() if word.endswith("_link"))
        assert any({first, second} == set(pair) for pair in clearance.pairs)
    elif ((after >= STOP + 1e-4) | (after > before)).all():
        assert veto == ""


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_planned_rows_never_bring_a_pair_below_the_stop_distance_or_nearer_than_it_is(
    guard: Guard, clearance: Clearance, seed: int
) -> None:
    here = HOME if seed % 2 else anywhere(seed)
    shaped = guard.shape(here, 0, rows(here, anywhere(seed + 1)))
    path = np.vstack([here, np.hstack([part.positions for part in shaped.values()])])
    distances = np.array([clearance.distances(pose)[watched(guard, clearance)] for pose in path])
    assert (distances >= np.minimum(distances[0], STOP) - 1e-4).all()


def test_what_was_apart_once_may_not_come_as_near_as_it_began(guard: Guard, clearance: Clearance) -> None:
    turns = np.linspace(0, 1.5, 151)
    near = np.array([clearance.distances(turned_in(turn))[across(clearance)].min() for turn in turns])
    tight, free = turns[near < STOP - 5e-3][0], turns[near < SLOW][0]
    out, back = rows(turned_in(tight), turned_in(free), 8), rows(turned_in(free), turned_in(tight), 8)
    there = {
        side: Rows(
            np.concatenate([part.times_ns, 400_000_000 + back[side].times_ns]),
            np.vstack([part.positions, back[side].positions]),
        )
        for side, part in out.items()
    }
    shaped = guard.shape(turned_in(tight), 0, there)
    path = np.hstack([part.positions for part in shaped.values()])
    found = np.array([clearance.distances(pose)[across(clearance)].min() for pose in path])
    assert found[0] < STOP
    assert np.allclose(path[7], turned_in(free))
    assert (found[8:] >= STOP).all()


def test_closed_fingers_hide_nothing_and_stop_nothing(guard: Guard, clearance: Clearance) -> None:
    """Fingers that touch were the nearest pair; arms that close in must be stopped all the same."""
    assert guard.veto(still(HOME), still(CLOSED)) == ""
    assert guard.veto(still(CLOSED), still(HOME)) == ""
    stopped = None
    for turn in np.arange(0, 1.5, 0.01):
        if stopped := guard.veto(still(turned_in(turn)), still(turned_in(turn + 0.01))):
            break
    near = clearance.distances(turned_in(turn))[across(clearance)].min()
    assert stopped and STOP <= near < STOP + 0.02
    sides = {word.split("_")[0] for word in stopped.split() if word.endswith("_link")}
    assert sides == {"left", "right"}


def test_arms_that_are_sent_into_each_other_stop_at_the_distance(
    make_player: Any, urdf: str, clearance: Clearance
) -> None:
    player = type(make_player())(
        ROBOT, CLOSED, ExecutorConfig(absurd_jump_s=100.0, absurd_speed=100.0), guard=Guard(ROBOT, urdf, CONFIG)
    )
    for _ in range(8):
        player.executor.accept(player.towards(turned_in(1.3)), player.now_ns)
        player.run(0.4)
    player.run(2.5)
    assert checker.check(player.commands, ROBOT.limits) == []
    near = [clearance.distances(c.position, 0.1)[across(clearance)].min() for c in player.commands[::8]]
    assert STOP - 1e-3 <= min(near) < SLOW
    assert player.executor.at_rest


def test_rows_are_slow_between_the_two_distances(guard: Guard, clearance: Clearance) -> None:
    """Planned time grows as the room to the stop distance shrinks, and only for what approaches."""
    turns = np.linspace(0, 1.5, 301)
    near = np.array([clearance.distances(turned_in(turn))[across(clearance)].min() for turn in turns])
    first, middle = turns[near < SLOW + 0.01][0], turns[near < (STOP + SLOW) / 2][0]
    shaped = guard.shape(turned_in(first), 0, rows(turned_in(first), turned_in(middle)))["left"]
    spans = np.diff(np.concatenate([[0], shaped.times_ns]))
    assert spans[0] == pytest.approx(50_000_000)
    assert spans[-1] == pytest.approx(2 * 50_000_000, rel=0.1)
    back = guard.shape(turned_in(middle), 0, rows(turned_in(middle), turned_in(first)))["left"]
    assert back.times_ns[-1] == pytest.approx(16 * 50_000_000)


def test_neighbours_are_not_held_to_the_distance_and_named(urdf: str, guard: Guard, clearance: Clearance) -> None:
    """The outer links of a wrist are 24 mm apart however it turns."""
    wrist = ("left_wrist_1_link", "left_wrist_3_link")
    told = guard.check_cost()
    assert (
        "; near each other in every pose, so not watched: left_wrist_1_link and left_wrist_3_link, right_wrist" in told
    )
    assert guard.unwatched == (wrist, ("right_wrist_1_link", "right_wrist_3_link"))
    assert clearance.distances(HOME)[clearance.pairs.index(wrist)] < 0.03
    wide = Guard(ROBOT, urdf, replace(CONFIG, stop_distance=0.03))
    for turn in np.linspace(-3, 3, 25):
        assert "wrist_1" not in wide.veto(still(HOME), still(HOME + turn * (np.arange(14) == 4)))


def test_a_long_slow_distance_makes_no_neighbours(urdf: str, guard: Guard) -> None:
    assert Guard(ROBOT, urdf, replace(CONFIG, slow_distance=1.0)).unwatched == guard.unwatched


@pytest.mark.usefixtures("uncollected")
def test_the_guard_of_meshes_as_fine_as_the_vendors_keeps_200_hz(tmp_path: Path, urdf: str) -> None:
    told = Guard(ROBOT, finely_meshed(urdf, tmp_path)).check_cost()
    found = re.match(r"the guard takes (\d+\.\d\d) ms a tick and (\d+\.\d) ms a chunk", told)
    assert found and float(found[1]) < 2.0 and float(found[2]) < 15.0, told


def test_a_rate_that_the_guard_cannot_keep_is_refused(tmp_path: Path, urdf: str) -> None:
    """At 1000 Hz, with a slow distance that asks for nearly every pair."""
    hasty = Guard(
        replace(ROBOT, control_rate_hz=1000), finely_meshed(urdf, tmp_path), replace(CONFIG, slow_distance=1.0)
    )
    with pytest.raises(ConfigError) as refused:
        hasty.check_cost()
    assert re.fullmatch(
        r"the guard takes \d+\.\d\d ms a tick and \d+\.\d ms a chunk; robot 'ur5e' at 1000 Hz leaves it 0\.40 and "
        r"3\.0 ms\. Give the URDF simpler collision shapes, lower control_rate_hz, or set guard\.stop_distance to 0, "
        r"which leaves distances unwatched",
        str(refused.value),
    )


def test_without_distances_the_guard_still_says_what_it_takes(urdf: str) -> None:
    told = Guard(ROBOT, urdf, replace(CONFIG, stop_distance=0.0, slow_distance=0.0)).check_cost()
    assert re.fullmatch(r"the guard takes \d\.\d\d ms a tick and \d+\.\d ms a chunk", told)
