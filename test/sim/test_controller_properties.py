# SPDX-License-Identifier: Apache-2.0
"""What holds for any trajectory: continuity, bounds, order of joints, independence of the sampling."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagewam_ros.sim.controllers import ForwardController, JointTrajectoryController, Trajectory

MS = 1_000_000
NAMES = ("a", "b")
REST = np.zeros(2)
SEEDS = st.integers(0, 10_000)


def random_trajectory(seed, degree):
    """Points 10 to 90 ms apart with fields for the degree, at rest at the end."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 6))
    times = tuple(int(t) * MS for t in np.cumsum(rng.integers(10, 90, count)))
    positions, velocities, accelerations = rng.normal(size=(3, count, 2))
    velocities[-1] = accelerations[-1] = 0
    return Trajectory(
        NAMES,
        times,
        positions,
        velocities if degree > 1 else None,
        accelerations if degree > 3 else None,
        stamp_ns=100 * MS,
    )


def playing(trajectory, start=REST, **options):
    controller = JointTrajectoryController(NAMES, start, **options)
    assert controller.accept(trajectory, 100 * MS) is None
    controller.sample(100 * MS, start, REST)
    return controller


@settings(max_examples=25)
@given(SEEDS, st.sampled_from([1, 3, 5]))
def test_every_point_is_met_when_it_is_due(seed, degree):
    trajectory = random_trajectory(seed, degree)
    controller = playing(trajectory)
    for time_ns, position in zip(trajectory.times_ns, trajectory.positions, strict=True):
        assert np.allclose(controller.sample(100 * MS + time_ns, REST, REST), position, atol=1e-9)


@settings(max_examples=25)
@given(SEEDS, st.sampled_from([1, 3, 5]))
def test_targets_are_continuous(seed, degree):
    trajectory = random_trajectory(seed, degree)
    controller = playing(trajectory)
    times = np.arange(100, 100 + trajectory.times_ns[-1] // MS + 20, 0.5)
    path = np.array([controller.sample(round(t * MS), REST, REST) for t in times])
    assert np.abs(np.diff(path, axis=0)).max() < 0.3, "half a millisecond is no jump"


@settings(max_examples=25)
@given(SEEDS)
def test_lines_stay_between_their_ends(seed):
    trajectory = random_trajectory(seed, 1)
    controller = playing(trajectory)
    points = np.concatenate([REST[None], trajectory.positions])
    for t in range(100, 100 + trajectory.times_ns[-1] // MS + 50, 3):
        found = controller.sample(t * MS, REST, REST)
        assert (found >= points.min(0) - 1e-9).all() and (found <= points.max(0) + 1e-9).all()


@settings(max_examples=25)
@given(SEEDS, st.sampled_from([1, 3, 5]), st.integers(1, 7))
def test_the_rate_of_sampling_changes_nothing(seed, degree, step_ms):
    trajectory = random_trajectory(seed, degree)
    often, seldom = playing(trajectory), playing(trajectory)
    end = 100 + trajectory.times_ns[-1] // MS
    for t in range(100, end, step_ms):
        often.sample(t * MS, REST, REST)
    assert np.array_equal(often.sample(end * MS, REST, REST), seldom.sample(end * MS, REST, REST))


@settings(max_examples=25)
@given(SEEDS, st.sampled_from([1, 3, 5]))
def test_order_of_joints_does_not_matter(seed, degree):
    trajectory = random_trajectory(seed, degree)
    fields = (trajectory.positions, trajectory.velocities, trajectory.accelerations)
    swapped = Trajectory(
        NAMES[::-1], trajectory.times_ns, *(None if f is None else f[:, ::-1] for f in fields), trajectory.stamp_ns
    )
    first, second = playing(trajectory), playing(swapped)
    for t in range(100, 100 + trajectory.times_ns[-1] // MS + 10, 7):
        assert np.array_equal(first.sample(t * MS, REST, REST), second.sample(t * MS, REST, REST))


@settings(max_examples=25)
@given(SEEDS, st.sampled_from([3, 5]), st.integers(0, 80))
def test_handing_over_from_the_desired_state_is_smooth(seed, degree, at_ms):
    """A new trajectory in mid-motion: with interpolate_from_desired_state there is no jump at all."""
    trajectory = random_trajectory(seed, degree)
    controller = playing(trajectory, interpolate_from_desired_state=True)
    now = (100 + at_ms) * MS
    before = controller.sample(now, REST, REST)
    follower = Trajectory(NAMES, (200 * MS,), np.ones((1, 2)), np.zeros((1, 2)), stamp_ns=now)
    assert controller.accept(follower, now) is None
    after = controller.sample(now + MS // 1000, REST + 9, REST)
    assert np.allclose(before, after, atol=1e-2)


@settings(max_examples=25)
@given(SEEDS, st.sampled_from([1, 3, 5]), st.integers(0, 100_000))
def test_the_end_is_held(seed, degree, later_ms):
    trajectory = random_trajectory(seed, degree)
    controller = playing(trajectory)
    end = 100 * MS + trajectory.times_ns[-1]
    assert np.allclose(controller.sample(end + later_ms * MS, REST, REST), trajectory.positions[-1])


@settings(max_examples=25)
@given(st.lists(st.one_of(st.none(), st.tuples(st.floats(-3, 3), st.floats(-3, 3))), min_size=1, max_size=20))
def test_forward_controller_plays_the_last_good_command(commands):
    """Bad commands (here None) between good ones are as if they had never come."""
    controller, last = ForwardController(NAMES, REST), REST
    for i, command in enumerate(commands):
        if command is None:
            assert controller.accept(np.array([np.inf, 0.0])) is not None
        else:
            last = np.array(command)
            assert controller.accept(last) is None
        assert np.array_equal(controller.sample(i, REST, REST), last)


def test_targets_are_handed_out_as_values():
    controller = ForwardController(NAMES, REST)
    with pytest.raises(ValueError, match="read-only"):
        controller.sample(0, REST, REST)[0] = 1.0


@settings(max_examples=20)
@given(SEEDS)
def test_a_chain_of_short_trajectories_follows_one_long_one(seed):
    """As an executor streams: each tick a new trajectory of the next points, sampled before the next comes."""
    rng = np.random.default_rng(seed)
    amplitude, phase = rng.uniform(0.1, 0.5, 2), rng.uniform(0, 3, 2)

    def wanted(time_ms):
        return amplitude * np.sin(time_ms / 200 + phase)

    controller = JointTrajectoryController(NAMES, wanted(0), interpolate_from_desired_state=True)
    worst = 0.0
    for t in range(0, 300, 5):
        points = np.array([wanted(t + d) for d in (5, 10, 15, 20)])
        speeds = np.array([amplitude * np.cos((t + d) / 200 + phase) / 0.2 for d in (5, 10, 15, 20)])
        speeds[-1] = 0
        assert controller.accept(Trajectory(NAMES, (5 * MS, 10 * MS, 15 * MS, 20 * MS), points, speeds), t * MS) is None
        found = controller.sample(t * MS, wanted(t), REST)
        worst = max(worst, np.abs(found - wanted(t)).max())
    assert worst < 0.02
