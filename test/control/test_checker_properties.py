# SPDX-License-Identifier: Apache-2.0
"""The judge never accuses a motion that keeps the limits, and finds every one that does not."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagewam_ros.control.checker import check
from imagewam_ros.core.embodiment import Limits
from imagewam_ros.core.schema import Command, frozen

PERIOD_NS = 5_000_000
NAMES = ("a", "b")
LIMITS = Limits(*(frozen(v) for v in ([-2.0, -2.0], [2.0, 2.0], [1.0, 2.0], [5.0, 8.0], [60.0, 90.0])))


def motion(share=0.95, ticks=200, frequency=None, phase=0.0):
    """Sines whose largest derivative reaches `share` of a limit: every command states the true derivatives."""
    time = np.arange(ticks)[:, None] * PERIOD_NS * 1e-9
    w = np.array([3.0, 4.0]) if frequency is None else np.asarray(frequency)
    amplitude = share * np.min(
        [LIMITS.velocity / w, LIMITS.acceleration / w**2, LIMITS.jerk / w**3, LIMITS.upper - 0 * w], axis=0
    )
    angle = w * time + phase
    rows = amplitude * np.sin(angle), amplitude * w * np.cos(angle), -amplitude * w**2 * np.sin(angle)
    return [Command(i, 10**9 + i * PERIOD_NS, PERIOD_NS, NAMES, *(part[i] for part in rows)) for i in range(ticks)]


def quantities(commands):
    return {violation.quantity for violation in check(commands, LIMITS)}


@settings(max_examples=25)
@given(st.floats(0.01, 0.99), st.floats(0.3, 12), st.floats(0.3, 12), st.floats(0, 6.3))
def test_a_motion_inside_the_limits_is_never_accused(share, first, second, phase):
    assert check(motion(share, frequency=(first, second), phase=phase), LIMITS) == []


@settings(max_examples=25)
@given(st.floats(0.3, 0.99), st.integers(0, 1000))
def test_lost_ticks_of_a_good_motion_are_no_violation(share, seed):
    commands = motion(share)
    kept = np.random.default_rng(seed).random(len(commands)) < 0.7
    assert check([c for c, keep in zip(commands, kept, strict=True) if keep], LIMITS) == []


@settings(max_examples=15)
@given(st.floats(1.1, 3.0), st.floats(0.5, 10))
def test_a_motion_beyond_a_limit_is_always_found(share, frequency):
    """At least one of velocity, acceleration or jerk is exceeded, measured and stated alike."""
    found = quantities(motion(share, ticks=600, frequency=(frequency, frequency)))
    assert found & {"velocity", "acceleration", "jerk", "above upper", "below lower"}


@pytest.mark.parametrize(
    ("part", "value", "quantity"),
    [
        ("position", 2.5, "above upper"),
        ("position", -2.5, "below lower"),
        ("velocity", 1.5, "stated velocity"),
        ("acceleration", 6.0, "stated acceleration"),
        ("position", np.nan, "position"),
    ],
)
def test_one_bad_value_is_found_with_its_tick_and_joint(part, value, quantity):
    commands = motion()
    row = getattr(commands[50], part).copy()
    row[0] = value
    commands[50] = dataclasses.replace(commands[50], **{part: row})
    hits = [v for v in check(commands, LIMITS) if v.quantity == quantity]
    assert [(v.tick, v.joint) for v in hits] == [(50, 0)]


def test_a_lying_velocity_and_a_lying_acceleration_are_found():
    commands = motion(0.5)
    still = [dataclasses.replace(c, velocity=0 * c.velocity) for c in commands]
    assert "position against stated velocity" in quantities(still)
    calm = [dataclasses.replace(c, acceleration=0 * c.acceleration) for c in commands]
    assert "velocity against stated acceleration" in quantities(calm)


def test_a_jump_of_the_position_is_found_as_velocity():
    commands = motion(0.5)
    moved = [dataclasses.replace(c, position=c.position + (0.2 if c.tick >= 80 else 0)) for c in commands]
    hits = [v for v in check(moved, LIMITS) if v.quantity == "velocity"]
    assert {v.tick for v in hits} == {80}


@pytest.mark.parametrize("swap", [(10, 9), (10, 10)])
def test_ticks_must_rise(swap):
    commands = motion(0.5, ticks=20)
    at, tick = swap
    commands[at + 1] = dataclasses.replace(commands[at + 1], tick=tick)
    (violation,) = check(commands, LIMITS)
    assert violation.quantity == "tick order" and violation.limit == at + 1


def test_a_command_heard_twice_counts_once():
    commands = motion(0.9, ticks=50)
    doubled = [c for command in commands for c in (command, command)]
    assert check(doubled, LIMITS) == []


@settings(max_examples=15)
@given(st.integers(0, 10**17))
def test_the_nominal_time_is_not_believed(start):
    """Only ticks and the period count, so a clock that was set cannot hide or invent a violation."""
    moved = [dataclasses.replace(c, nominal_ns=start - 7 * c.tick) for c in motion(0.9)]
    assert check(moved, LIMITS) == []


def test_tolerance_is_relative_to_the_limit():
    commands = motion(0.5)
    fast = dataclasses.replace(commands[3], velocity=np.array([1.0005, 0.0]))
    commands[3] = fast
    assert "stated velocity" in quantities(commands)
    assert "stated velocity" not in {v.quantity for v in check(commands, LIMITS, tolerance=1e-3)}


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_short_logs_are_judged_as_far_as_they_go(count):
    assert check(motion(ticks=5)[:count], LIMITS) == []
