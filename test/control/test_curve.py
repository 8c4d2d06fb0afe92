# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from imagewam_ros.control.braking import Motion
from imagewam_ros.control.curve import ENERGY, Curve, _segment_energies, braking_curve, fit
from imagewam_ros.core.schema import Floats

SPACING_NS = 50_000_000
A, J = np.array([12.0, 12.0]), np.array([200.0, 200.0])


def start(p: float = 0.0, v: float = 0.0, a: float = 0.0) -> Motion:
    return Motion(*(np.array([x, -x]) for x in (p, v, a)))


def fitted(begin: Motion, rows: Floats, first_ns: int = SPACING_NS, cutoff_hz: float = 4.0) -> Curve:
    times = first_ns + np.arange(len(rows)) * SPACING_NS
    return fit(begin, 0, times, rows, SPACING_NS, cutoff_hz, A, J)


def pair(values: Floats) -> Floats:
    return np.stack([values, -values], axis=1)


@pytest.mark.parametrize("first_ns", [1_000_000, 12_000_000, SPACING_NS, 170_000_000])
def test_starts_in_the_given_state(first_ns: int) -> None:
    begin = start(0.3, 0.7, -2.0)
    found = fitted(begin, pair(np.random.default_rng(0).normal(size=16)), first_ns).at(0)
    for ours, given in zip(found, begin, strict=True):
        assert np.allclose(ours, given, atol=1e-12)


def test_position_velocity_and_acceleration_are_continuous_everywhere() -> None:
    curve = fitted(start(0.1, 0.5, 1.0), pair(np.random.default_rng(1).normal(size=16) * 0.1))
    for knot in (*curve.knots_ns, curve.rest_ns):
        before, after = curve.at(knot - 1), curve.at(knot + 1)
        for k, bound in enumerate((1e-6, 1e-5, 1e-2)):
            assert np.abs(before[k] - after[k]).max() < bound


def test_velocity_and_acceleration_are_the_derivatives_of_position() -> None:
    curve = fitted(start(0.1, 0.5, 1.0), pair(np.sin(np.arange(16) * 0.2)))
    h = 100_000
    for time_ns in range(h, curve.rest_ns, 7_300_000):
        a, b, c = (curve.at(time_ns + k * h) for k in (-1, 0, 1))
        assert np.allclose((c.position - a.position) / (2e-9 * h), b.velocity, atol=1e-4)
        assert np.allclose((c.velocity - a.velocity) / (2e-9 * h), b.acceleration, atol=2e-2)


def test_constant_acceleration_passes_exactly_whatever_the_smoothing() -> None:
    t = np.arange(1, 17) * 0.05
    for cutoff_hz in (0.5, 4.0, 50.0):
        curve = fitted(start(0.2, 0.4, 0.6), pair(0.2 + 0.4 * t + 0.3 * t * t), cutoff_hz=cutoff_hz)
        for time_s in (0.03, 0.31, 0.79):
            assert curve.at(round(time_s * 1e9)).position[0] == pytest.approx(0.2 + 0.4 * time_s + 0.3 * time_s**2)


def test_weak_smoothing_meets_every_row() -> None:
    rows = pair(np.random.default_rng(2).normal(size=16) * 0.1)
    curve = fitted(start(), rows, cutoff_hz=200.0)
    for i, row in enumerate(rows):
        assert np.allclose(curve.at((i + 1) * SPACING_NS).position, row, atol=1e-6)


def test_slow_motion_passes_and_noise_does_not_become_jerk() -> None:
    t = np.arange(1, 33) * 0.05
    omega = 2 * np.pi * 0.5
    slow = 0.3 * np.sin(omega * t)
    begin = start(0.0, 0.3 * omega, 0.0)
    noise = np.random.default_rng(3).normal(size=t.size) * 2e-3
    clean, noisy = fitted(begin, pair(slow)), fitted(begin, pair(slow + noise))
    exact = fitted(begin, pair(slow + noise), cutoff_hz=200.0)
    middle_ns = range(200_000_000, 1_200_000_000, 10_000_000)
    assert max(abs(clean.at(n).position[0] - 0.3 * np.sin(omega * n * 1e-9)) for n in middle_ns) < 1e-4

    def peak(curve: Curve) -> float:
        return max(abs(curve.at(n).acceleration[0]) for n in middle_ns)

    assert peak(noisy) < 1.5 * peak(clean) < 0.5 * peak(exact)


def test_rests_after_the_last_row() -> None:
    curve = fitted(start(), pair(np.linspace(0.05, 0.8, 16)))
    assert curve.at(curve.last_row_ns).velocity[0] > 0.5
    rest = curve.at(curve.rest_ns)
    assert not rest.velocity.any() and not rest.acceleration.any()
    assert np.array_equal(curve.at(curve.rest_ns + 10**10).position, rest.position)


def test_rows_of_the_past_are_passed_over() -> None:
    rows = pair(np.linspace(0.0, 0.8, 17))
    whole = fit(start(), 0, np.arange(1, 18) * SPACING_NS - 3 * SPACING_NS, rows, SPACING_NS, 4.0, A, J)
    assert len(whole.knots_ns) == 1 + 17 - 3


def test_without_rows_it_brakes() -> None:
    curve = fit(start(0.0, 1.0), 0, np.array([-5]), np.zeros((1, 2)), SPACING_NS, 4.0, A, J)
    same = braking_curve(start(0.0, 1.0), 0, A, J)
    assert curve.rest_ns == same.rest_ns
    assert np.array_equal(curve.at(60_000_000).position, same.at(60_000_000).position)


def test_before_its_beginning_a_stop_stands_in_its_first_state() -> None:
    first = Motion(np.array([0.2]), np.array([0.5]), np.array([0.0]))
    curve = braking_curve(first, 1_000_000, np.ones(1), np.ones(1))
    for found, wanted in zip(curve.at(0), first, strict=True):
        np.testing.assert_allclose(found, wanted)


def test_energy_is_the_integral_of_the_squared_jerk() -> None:
    rng = np.random.default_rng(4)
    h, x = 0.7, rng.normal(size=6)
    (block,) = _segment_energies(np.array([h]))
    p0, v0, a0, p1, v1, a1 = x
    boundary = np.array([[h**3, h**4, h**5], [3 * h**2, 4 * h**3, 5 * h**4], [6 * h, 12 * h**2, 20 * h**3]])
    c = np.linalg.solve(boundary, [p1 - p0 - v0 * h - a0 * h * h / 2, v1 - v0 - a0 * h, a1 - a0])
    s = np.linspace(0, h, 20001)
    jerk = 6 * c[0] + 24 * c[1] * s + 60 * c[2] * s**2
    assert x @ block @ x == pytest.approx(np.trapezoid(jerk**2, s), rel=1e-6)
    assert np.allclose(ENERGY, ENERGY.T)


def test_no_other_curve_through_the_same_knots_is_smoother() -> None:
    """The solution is stationary: moving any inner state raises jerk plus distance."""
    curve = fitted(start(0.1, 0.2, 0.3), pair(np.random.default_rng(5).normal(size=6) * 0.1))
    times = [(k - curve.knots_ns[0]) / SPACING_NS for k in curve.knots_ns]
    unit = SPACING_NS * 1e-9
    states = np.array([[curve.at(k)[i][0] * unit**i for i in range(3)] for k in curve.knots_ns])
    rows = np.random.default_rng(5).normal(size=6) * 0.1
    weight = (2 * np.pi * 4.0 * unit) ** 6

    def cost(x: Floats) -> float:
        blocks = _segment_energies(np.diff(times))
        jerk = sum(np.r_[x[i], x[i + 1]] @ blocks[i] @ np.r_[x[i], x[i + 1]] for i in range(len(blocks)))
        return float(jerk + weight * np.sum((x[1:, 0] - rows) ** 2))

    best = cost(states)
    for i in range(1, 7):
        for k in range(3):
            for sign in (-1e-3, 1e-3):
                moved = states.copy()
                moved[i, k] += sign
                assert cost(moved) > best
