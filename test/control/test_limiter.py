# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagewam_ros.control import checker
from imagewam_ros.control.braking import Motion
from imagewam_ros.control.limiter import Limiter
from imagewam_ros.control.tracking import smooth
from imagewam_ros.core.embodiment import Embodiment, Limits
from imagewam_ros.core.schema import Floats

T = 0.005
ONE = Limits(*(np.array([x]) for x in (-1.0, 1.0, 2.0, 10.0, 100.0)))
Reference = Callable[[float], tuple[float, float, float]]


def play(limiter: Limiter, reference: Reference, ticks: int, period_s: float = T) -> list[Motion]:
    """Follow a one-joint reference of time; the limiter starts where it is."""

    def at(tick: int) -> Motion:
        return Motion(*(np.array([x]) for x in reference(tick * period_s)))

    return [limiter.step(partial(lambda tick, ahead: at(tick + ahead), tick)) for tick in range(ticks)]


def violations(limits: Limits, sent: list[Motion], start: float, period_s: float = T) -> list[checker.Violation]:
    parts = [np.vstack([[[start if k == 0 else 0.0]], [m[k] for m in sent]]) for k in range(3)]
    return checker.check_log(checker.Log(round(period_s * 1e9), np.arange(len(sent) + 1), *parts), limits)


def limiter_at(position: float, limits: Limits = ONE, period_s: float = T) -> Limiter:
    limiter = Limiter(limits, period_s)
    limiter.reset(np.array([position]))
    return limiter


@pytest.mark.parametrize("rate_hz", [50.0, 200.0, 1000.0])
def test_admissible_reference_is_sent_unchanged(robot: Embodiment, rate_hz: float) -> None:
    trajectory, dt = smooth(robot, np.random.default_rng(0), share=0.7), 1 / rate_hz

    def derivative(time_s: float, order: int) -> Floats:
        phase = trajectory.phase + order * np.pi / 2
        waves = trajectory.amplitude * trajectory.omega**order * np.sin(trajectory.omega * time_s + phase)
        return waves.sum(axis=0) + (trajectory.middle if order == 0 else 0.0)

    limiter = Limiter(robot.limits, dt)
    limiter.state = Motion(*(derivative(0.0, k) for k in range(3)))
    for tick in range(int(3 * rate_hz)):
        sent = limiter.step(
            partial(lambda now, ahead: Motion(*(derivative((now + ahead) * dt, k) for k in range(3))), tick)
        )
        assert np.abs(sent.position - trajectory.at(np.array([(tick + 1) * dt]))[0]).max() <= 1e-9
        assert not limiter.limited.any()


def test_a_step_is_reached_inside_all_limits_and_then_followed() -> None:
    limiter = limiter_at(-0.5)
    sent = play(limiter, lambda t: (0.5, 0.0, 0.0), 300)
    assert sent[-1].position[0] == 0.5
    assert not limiter.limited.any()
    assert not violations(ONE, sent, -0.5)


def test_a_moving_reference_is_met_with_its_velocity_and_acceleration() -> None:
    limiter = limiter_at(0.0)
    sent = play(limiter, lambda t: (0.3 * np.sin(2 * t) + 0.2, 0.6 * np.cos(2 * t), -1.2 * np.sin(2 * t)), 200)
    t = 200 * T
    assert sent[-1].position[0] == pytest.approx(0.3 * np.sin(2 * t) + 0.2, abs=1e-9)
    assert not violations(ONE, sent, 0.0)


def test_a_reference_faster_than_the_limit_is_chased_at_the_limit() -> None:
    sent = play(limiter_at(-0.9), lambda t: (-0.9 + 5 * t, 5.0, 0.0), 150)
    assert max(m.velocity[0] for m in sent) > 1.95
    assert not violations(ONE, sent, -0.9)


@pytest.mark.parametrize("speed", [0.3, 1.0, 1.9])
def test_brakes_softly_before_a_position_bound(speed: float) -> None:
    limiter = limiter_at(0.0)
    sent = play(limiter, lambda t: (speed * t, speed, 0.0), 800)
    assert not violations(ONE, sent, 0.0)
    assert sent[-1].position[0] == pytest.approx(1.0, abs=1e-6)
    assert sent[-1].velocity[0] == pytest.approx(0.0, abs=1e-6)
    before = [m for m in sent if m.position[0] < 0.5]
    assert max(m.velocity[0] for m in before) > 0.9 * speed


def test_returns_from_the_bound_when_the_reference_does() -> None:
    limiter = limiter_at(0.0)
    sent = play(limiter, lambda t: (1.5 * np.sin(t), 1.5 * np.cos(t), -1.5 * np.sin(t)), 700)
    assert not violations(ONE, sent, 0.0)
    t = 700 * T
    assert sent[-1].position[0] == pytest.approx(1.5 * np.sin(t), abs=1e-6)


def test_late_ticks_are_limited_as_the_periods_that_passed() -> None:
    limiter, ticks, sent = limiter_at(-0.5), [0], [Motion(*(np.array([x]) for x in (-0.5, 0.0, 0.0)))]
    rng = np.random.default_rng(0)
    while ticks[-1] < 400:
        periods = int(rng.integers(1, 6))
        sent.append(limiter.step(lambda ahead: Motion(*(np.array([x]) for x in (0.7, 0.0, 0.0))), periods))
        ticks.append(ticks[-1] + periods)
    log = checker.Log(5_000_000, np.array(ticks), *(np.stack([m[k] for m in sent]) for k in range(3)))
    assert not checker.check_log(log, ONE)
    assert sent[-1].position[0] == 0.7


def test_brake_stops_from_full_speed_inside_all_limits() -> None:
    limiter = limiter_at(-0.9)
    sent = play(limiter, lambda t: (10.0, 0.0, 0.0), 80)
    while not limiter.at_rest:
        sent.append(limiter.brake())
    assert not violations(ONE, sent, -0.9)
    assert sent[-1].position[0] < 1.0


@given(
    st.lists(
        st.tuples(st.floats(-3, 3), st.floats(-5, 5), st.floats(-30, 30), st.integers(1, 60)), min_size=1, max_size=8
    ),
    st.sampled_from([0.001, 0.005, 0.02]),
)
@settings(max_examples=25, deadline=None)
def test_no_reference_however_wild_breaks_a_limit(
    pieces: list[tuple[float, float, float, int]], period_s: float
) -> None:
    limiter, sent = limiter_at(0.0, period_s=period_s), []
    for p, v, a, ticks in pieces:
        limiter.drop_plans()
        sent += play(limiter, lambda t, p=p, v=v, a=a: (p + t * (v + t * a / 2), v + t * a, a), ticks, period_s)
    while not limiter.at_rest:
        sent.append(limiter.brake())
    assert not violations(ONE, sent, 0.0, period_s)
