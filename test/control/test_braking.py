# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruckig import ControlInterface, InputParameter, Ruckig, Trajectory

from imagewam_ros.control.braking import Motion, Stop, longest_stop_s, plan_stop, stop_at, stop_extent
from imagewam_ros.core.embodiment import Limits

ACCELERATION, JERK = 12.0, 200.0
STATES = st.tuples(st.floats(-3, 3), st.floats(-2.5, 2.5), st.floats(-12, 12))


def planned(p: float, v: float, a: float) -> Stop:
    return plan_stop(Motion(*(np.array([x]) for x in (p, v, a))), np.array([ACCELERATION]), np.array([JERK]))


def ruckig_stop(p: float, v: float, a: float) -> Trajectory:
    given_, way = InputParameter(1), Trajectory(1)
    given_.control_interface = ControlInterface.Velocity
    given_.current_position, given_.current_velocity, given_.current_acceleration = [p], [v], [a]
    given_.target_velocity = given_.target_acceleration = [0.0]
    given_.max_acceleration, given_.max_jerk = [ACCELERATION], [JERK]
    Ruckig(1).calculate(given_, way)
    return way


@given(STATES)
@settings(max_examples=100, deadline=None)
def test_stop_is_the_one_that_ruckig_finds(state: tuple[float, float, float]) -> None:
    stop, way = planned(*state), ruckig_stop(*state)
    assert stop.duration_s == pytest.approx(way.duration, abs=1e-7)
    for share in (0.1, 0.5, 0.9):
        ours, theirs = stop_at(stop, share * way.duration), way.at_time(share * way.duration)
        assert np.allclose([x[0] for x in ours], [x[0] for x in theirs], atol=1e-5)


@given(STATES)
@settings(max_examples=60, deadline=None)
def test_extent_is_the_extreme_of_dense_samples(state: tuple[float, float, float]) -> None:
    stop = planned(*state)
    samples = [stop_at(stop, t).position[0] for t in np.linspace(0, stop.duration_s, 400)]
    low, high = stop_extent(stop)
    assert low[0] == pytest.approx(min(samples), abs=1e-4)
    assert high[0] == pytest.approx(max(samples), abs=1e-4)


def test_stop_ends_exactly_at_rest_and_stays() -> None:
    stop = planned(0.3, 1.2, -3.0)
    after, later = stop_at(stop, stop.duration_s + 1e-9), stop_at(stop, 100.0)
    assert after.velocity[0] == after.acceleration[0] == 0.0
    assert after.position[0] == later.position[0]


def test_at_rest_nothing_moves() -> None:
    stop = planned(0.3, 0.0, 0.0)
    assert stop.duration_s == 0.0
    assert stop_at(stop, np.inf).position[0] == 0.3


def test_brakes_that_are_already_too_hard_are_kept() -> None:
    stop = planned(0.0, 2.0, -20.0)
    samples = [stop_at(stop, t) for t in np.linspace(0, stop.duration_s, 200)]
    assert min(s.acceleration[0] for s in samples) == pytest.approx(-20.0)
    assert samples[-1].velocity[0] == pytest.approx(0.0, abs=1e-9)


@given(STATES, st.floats(0.05, 1.0))
def test_no_stop_takes_longer_than_the_longest(state: tuple[float, float, float], share: float) -> None:
    one = np.ones(1)
    limits = Limits(-4 * one, 4 * one, 2.5 * one, ACCELERATION * one, JERK * one)
    start = Motion(*(np.array([x]) for x in state))
    stop = plan_stop(start, share * limits.acceleration, share * limits.jerk)
    assert stop.duration_s <= longest_stop_s(limits, share) + 1e-9
