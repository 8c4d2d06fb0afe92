# SPDX-License-Identifier: Apache-2.0
"""What is told to a trajectory controller, played by quintics as the controller does."""

import itertools
from typing import Any

import numpy as np
import pytest

from imagewam_ros.control.horizon import Horizon, rolling_horizon
from imagewam_ros.core.schema import Command, Floats

MOVE = np.where(np.arange(14) % 7 == 6, 0.01, 0.5)


def quintic(horizon: Horizon, time_ns: int) -> tuple[Floats, Floats]:
    """Position and velocity as JTC's quintic segments give them, in its own formulas."""
    offsets = np.array(horizon.offsets_ns)
    at = min(max(time_ns - horizon.stamp_ns, 0), int(offsets[-1]))
    i = min(int(np.searchsorted(offsets, at, side="right")) - 1, len(offsets) - 2)
    h, s = (offsets[i + 1] - offsets[i]) * 1e-9, (at - offsets[i]) * 1e-9
    p0, p1, v0, v1 = horizon.position[i], horizon.position[i + 1], horizon.velocity[i], horizon.velocity[i + 1]
    a0, a1 = horizon.acceleration[i], horizon.acceleration[i + 1]
    c3 = (20 * (p1 - p0) - (8 * v1 + 12 * v0) * h - (3 * a0 - a1) * h**2) / (2 * h**3)
    c4 = (30 * (p0 - p1) + (14 * v1 + 16 * v0) * h + (3 * a0 - 2 * a1) * h**2) / (2 * h**4)
    c5 = (12 * (p1 - p0) - 6 * (v1 + v0) * h - (a0 - a1) * h**2) / (2 * h**5)
    position = p0 + v0 * s + a0 * s**2 / 2 + c3 * s**3 + c4 * s**4 + c5 * s**5
    return position, v0 + a0 * s + 3 * c3 * s**2 + 4 * c4 * s**3 + 5 * c5 * s**4


@pytest.fixture
def sent(player: Any, middle: Any) -> list[Command]:
    assert player.executor.accept(player.towards(middle + MOVE), player.now_ns).accepted
    player.run(0.6)
    return list(player.commands)


def test_it_starts_at_a_sent_point_in_the_past(player: Any, sent: list[Command]) -> None:
    horizon = rolling_horizon(sent[-2], sent[-1], player.robot.limits)
    assert horizon.stamp_ns == sent[-2].nominal_ns < sent[-1].nominal_ns
    assert horizon.offsets_ns[:2] == (0, sent[-1].nominal_ns - sent[-2].nominal_ns)
    assert np.array_equal(horizon.position[:2], [sent[-2].position, sent[-1].position])
    assert (np.diff(horizon.offsets_ns) > 0).all()


def test_it_ends_at_rest_inside_the_bounds(player: Any, sent: list[Command]) -> None:
    for before, present in itertools.pairwise(sent):
        horizon = rolling_horizon(before, present, player.robot.limits)
        assert not horizon.velocity[-1].any()
        assert not horizon.acceleration[-1].any()
        assert (horizon.position >= player.robot.limits.lower).all()
        assert (horizon.position <= player.robot.limits.upper).all()


def test_near_a_bound_it_brakes_with_all_that_the_limits_allow(player: Any) -> None:
    limits, v = player.robot.limits, 1.0
    stopping = v**2 / (2 * 12) + v * 12 / (2 * 200)
    position = np.where(np.arange(14) == 0, limits.upper - stopping - 1e-3, 0.02)
    velocity = np.where(np.arange(14) == 0, v, 0.0)
    now = Command(1, 10**9, 5_000_000, player.robot.joint_names, position, velocity, 0 * velocity)
    past = Command(0, 10**9 - 5_000_000, 5_000_000, player.robot.joint_names, position, velocity, 0 * velocity)
    assert rolling_horizon(past, now, limits).position[-1, 0] <= limits.upper[0]
    assert rolling_horizon(past, now, limits, share=1.0).position[-1, 0] <= limits.upper[0]


def test_the_stream_is_continuous_and_keeps_the_sent_motion(player: Any, sent: list[Command]) -> None:
    """Each message replaces the one before at any moment of a period, without a step."""
    limits = player.robot.limits
    horizons = [rolling_horizon(a, b, limits) for a, b in itertools.pairwise(sent)]
    for old, new, command in zip(horizons, horizons[1:], sent[1:], strict=False):
        position, velocity = quintic(new, command.nominal_ns)
        assert np.abs(position - quintic(old, command.nominal_ns)[0]).max() < 1e-9
        assert np.abs(velocity - command.velocity).max() < 1e-7
        assert np.abs(position - command.position).max() < 1e-12


def test_when_we_die_the_arm_plays_to_rest_inside_its_limits(player: Any, sent: list[Command]) -> None:
    horizon = rolling_horizon(sent[60], sent[61], player.robot.limits)
    times = range(horizon.stamp_ns, horizon.stamp_ns + horizon.offsets_ns[-1] + 50_000_000, 1_000_000)
    velocities = np.array([quintic(horizon, t)[1] for t in times])
    assert (np.abs(velocities) <= player.robot.limits.velocity).all()
    acceleration = np.abs(np.diff(velocities, axis=0)) / 1e-3
    assert (acceleration <= player.robot.limits.acceleration).all()
    assert np.abs(velocities[-1]).max() < 1e-9
