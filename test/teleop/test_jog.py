# SPDX-License-Identifier: Apache-2.0
"""Sticks without a step, and chunks that fade to rest inside the bounds."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.schema import Source
from imagewam_ros.teleop.jog import Jog, Stick
from imagewam_ros.teleop.operator import ChunkConfig, ChunkMaker

ROBOT = load_embodiment("sim_cell")
LIMITS = ROBOT.limits
STICKS = st.builds(Stick, st.floats(0, 0.5), st.floats(0, 1))
VALUES = st.floats(-1, 1)


@given(STICKS, VALUES)
def test_a_stick_is_odd_and_bounded(stick, value):
    assert stick.shaped(-value) == -stick.shaped(value)
    assert abs(stick.shaped(value)) <= 1
    assert stick.shaped(value) * value >= 0


@given(STICKS, VALUES, VALUES)
def test_more_deflection_is_never_less_wish(stick, first, second):
    low, high = sorted((first, second))
    assert stick.shaped(low) <= stick.shaped(high) + 1e-12


@given(STICKS)
def test_full_deflection_is_one_and_the_dead_zone_is_zero(stick):
    assert stick.shaped(1.0) == pytest.approx(1.0) and stick.shaped(5.0) == pytest.approx(1.0)
    assert stick.shaped(stick.dead) == 0.0
    assert stick.shaped(math.nextafter(stick.dead, 2)) < 1e-6, "no step at the edge"


def test_rest_wishes_nothing_and_shares_nothing():
    first, second = Jog.rest(), Jog.rest()
    first.linear[0, 0] = 1.0
    first.enabled[0] = True
    assert not second.linear.any() and not second.enabled.any()


INSIDE = st.lists(st.floats(0.0, 1.0), min_size=14, max_size=14).map(
    lambda shares: LIMITS.lower + np.array(shares) * (LIMITS.upper - LIMITS.lower)
)
SPEEDS = st.lists(st.floats(-3, 3), min_size=14, max_size=14).map(np.array)
SIDES = st.sampled_from([("left",), ("right",), ("left", "right")])


def made(position, velocity, sides=("left", "right"), **config):
    return ChunkMaker(ROBOT, ChunkConfig(**config), Source.TELEOP).make(10**9, position, velocity, sides)


@given(INSIDE, SPEEDS, SIDES)
def test_rows_stay_inside_the_bounds(position, velocity, sides):
    chunk = made(position, velocity, sides)
    index = [ROBOT.joint_names.index(name) for name in chunk.joint_names]
    assert (chunk.positions >= LIMITS.lower[index] - 1e-12).all()
    assert (chunk.positions <= LIMITS.upper[index] + 1e-12).all()
    assert len(index) == 7 * len(sides)


@given(INSIDE, SPEEDS)
def test_motion_fades_and_never_turns_back(position, velocity):
    chunk = made(position, velocity, rows=12)
    steps = np.diff(np.vstack([position, chunk.positions]), axis=0)
    assert (steps * velocity >= -1e-9).all()
    assert (np.abs(np.diff(steps, axis=0)) <= np.abs(steps[:-1]) + 1e-9).all()
    reach = np.abs(velocity) * 0.05
    assert (np.abs(chunk.positions - position) <= reach + 1e-9).all(), "at most velocity times fade_s in all"


@given(INSIDE, SPEEDS, SIDES)
def test_the_left_out_arm_is_not_named(position, velocity, sides):
    chunk = made(position, velocity, sides)
    assert {name.split("_")[0] for name in chunk.joint_names} == set(sides)


def test_the_present_velocity_is_met_at_first():
    """With short periods the first row is one period of the present velocity away."""
    position = (LIMITS.lower + LIMITS.upper) / 2
    chunk = made(position, np.full(14, 0.1), rate_hz=200.0, fade_s=5.0)
    assert np.allclose(chunk.positions[0] - position, 0.1 / 200, rtol=1e-3)


def test_chunks_are_numbered_and_signed():
    maker = ChunkMaker(ROBOT, ChunkConfig(), Source.TELEOP)
    middle = (LIMITS.lower + LIMITS.upper) / 2
    numbers = [maker.make(i, middle, np.zeros(14), ("left",)) for i in (5, 6)]
    assert [chunk.sequence for chunk in numbers] == [1, 2]
    assert {chunk.source for chunk in numbers} == {Source.TELEOP}
    assert numbers[1].stamp_ns == numbers[1].ready_ns == 6
    assert np.allclose(numbers[0].positions, middle[:7]), "no velocity, no motion"


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"rate_hz": 5.0}, "rate_hz must be 10 to 200, found 5.0"),
        ({"rate_hz": 500.0}, "rate_hz must be 10 to 200, found 500.0"),
        ({"rows": 1}, "rows must be at least 2 and fade_s positive, found 1 and 0.05"),
        ({"fade_s": 0.0}, "rows must be at least 2 and fade_s positive, found 6 and 0.0"),
    ],
)
def test_impossible_chunks_are_refused(config, text):
    with pytest.raises(ConfigError, match=text):
        ChunkConfig(**config)
