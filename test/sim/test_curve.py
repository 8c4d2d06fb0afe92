# SPDX-License-Identifier: Apache-2.0
"""Curves pass through their rows, at rest at both ends and without a kink."""

import numpy as np

from imagewam_ros.sim.curve import Curve, minimum_jerk

PERIOD_NS = 50_000_000
ROWS = np.random.default_rng(0).normal(size=(12, 3)).cumsum(0)


def sampled(curve, step_ns):
    return np.array([curve.at(t) for t in range(curve.start_ns, curve.end_ns + 1, step_ns)])


def test_curve_passes_through_its_rows_and_stays_at_the_ends():
    curve = Curve(7, PERIOD_NS, ROWS)
    assert np.allclose(sampled(curve, PERIOD_NS), ROWS)
    assert np.array_equal(curve.at(0), ROWS[0])
    assert np.array_equal(curve.at(10**12), ROWS[-1])


def test_curve_is_twice_continuously_differentiable_and_starts_at_rest():
    step_s = 1e-3
    velocity = np.diff(sampled(Curve(0, PERIOD_NS, ROWS), 1_000_000), axis=0) / step_s
    acceleration = np.diff(velocity, axis=0) / step_s
    assert np.abs(velocity[[0, -1]]).max() < 0.02 * np.abs(velocity).max()
    largest_jump = np.abs(np.diff(acceleration, axis=0)).max()
    assert largest_jump < 0.1 * np.abs(acceleration).max()


def test_curve_of_a_straight_minimum_jerk_move_is_that_move():
    s = np.linspace(0, 1, 21)
    curve = Curve(0, PERIOD_NS, minimum_jerk(s)[:, None])
    fine = np.linspace(0, 1, 201)
    assert np.allclose(sampled(curve, 5_000_000)[:, 0], minimum_jerk(fine), atol=1e-4)


def test_one_row_is_a_point():
    curve = Curve(0, PERIOD_NS, ROWS[:1])
    assert np.array_equal(curve.at(123), ROWS[0])
    assert curve.end_ns == 0


def test_what_the_curve_hands_out_is_a_copy():
    curve = Curve(0, PERIOD_NS, ROWS)
    curve.at(0)[:] = 99
    assert np.array_equal(curve.at(0), ROWS[0])


def test_minimum_jerk_goes_from_rest_to_rest():
    s = np.linspace(0, 1, 1001)
    travelled = minimum_jerk(s)
    assert travelled[0] == 0
    assert travelled[-1] == 1
    assert np.allclose(travelled + travelled[::-1], 1)
    assert np.isclose(np.gradient(travelled, s).max(), 1.875, atol=1e-3)
    assert np.array_equal(minimum_jerk([-1, 2]), [0, 1])
