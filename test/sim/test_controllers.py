# SPDX-License-Identifier: Apache-2.0
"""The controllers keep the rules that a robot's own controllers keep."""

import numpy as np
import pytest

from imagewam_ros.sim.controllers import ForwardController, JointTrajectoryController, Trajectory

NAMES = ("a", "b")
MS = 1_000_000
HERE = np.array([0.1, -0.2])
REST = np.zeros(2)


def trajectory(**changes):
    values = {
        "joint_names": NAMES,
        "times_ns": (50 * MS, 100 * MS, 150 * MS),
        "positions": np.array([[0.2, -0.1], [0.4, 0.1], [0.5, 0.2]]),
    }
    return Trajectory(**{**values, **changes})


def play(controller, times_ms, measured=HERE, velocity=REST):
    return np.array([controller.sample(round(t * MS), measured, velocity) for t in times_ms])


def test_forward_controller_holds_its_last_command_for_ever():
    controller = ForwardController(NAMES, HERE)
    assert np.array_equal(controller.sample(0, REST, REST), HERE)
    assert controller.accept(np.array([1.0, 2.0])) is None
    for hour in (1, 10):
        assert np.array_equal(controller.sample(hour * 3600 * 1000 * MS, REST, REST), [1.0, 2.0])


@pytest.mark.parametrize(
    ("command", "reason"), [(np.zeros(3), "does not match number of joints"), (np.array([0, np.nan]), "non-finite")]
)
def test_forward_controller_keeps_its_command_when_the_next_is_bad(command, reason):
    controller = ForwardController(NAMES, HERE)
    assert reason in controller.accept(command)
    assert np.array_equal(controller.sample(1, REST, REST), HERE)


def test_forward_controller_copies_the_command():
    controller, command = ForwardController(NAMES, HERE), np.array([1.0, 2.0])
    controller.accept(command)
    command[:] = 9
    assert np.array_equal(controller.sample(0, REST, REST), [1.0, 2.0])


def test_trajectory_controller_stays_where_it_started_until_told():
    assert np.array_equal(play(JointTrajectoryController(NAMES, HERE), [0, 999])[-1], HERE)


def test_trajectory_is_played_to_its_end_and_held():
    controller = JointTrajectoryController(NAMES, HERE)
    assert controller.accept(trajectory(), 0) is None
    found = play(controller, [0, 25, 50, 75, 100, 150, 10_000])
    expected = [HERE, [0.15, -0.15], [0.2, -0.1], [0.3, 0.0], [0.4, 0.1], [0.5, 0.2], [0.5, 0.2]]
    assert np.allclose(found, expected)


def test_zero_stamp_starts_at_the_first_sample_not_at_receipt():
    controller = JointTrajectoryController(NAMES, HERE)
    controller.accept(trajectory(), 0)
    assert np.allclose(play(controller, [500, 600])[-1], [0.4, 0.1])


def test_stamp_in_the_past_skips_what_is_over():
    controller = JointTrajectoryController(NAMES, HERE)
    controller.accept(trajectory(stamp_ns=1000 * MS), 1075 * MS)
    assert np.allclose(play(controller, [1075])[0], [0.3, 0.0])


def test_new_trajectory_replaces_the_running_one_at_once():
    controller = JointTrajectoryController(NAMES, HERE)
    controller.accept(trajectory(stamp_ns=1), 0)
    play(controller, [0, 50, 75])
    controller.accept(trajectory(stamp_ns=75 * MS, positions=np.zeros((3, 2))), 75 * MS)
    measured = np.array([0.28, -0.02])
    found = play(controller, [75, 100, 125, 150], measured)
    assert np.allclose(found, [measured, measured / 2, [0, 0], [0, 0]])


def test_interpolation_from_the_desired_state_ignores_the_measured_one():
    controller = JointTrajectoryController(NAMES, HERE, interpolate_from_desired_state=True)
    controller.accept(trajectory(stamp_ns=1), 0)
    play(controller, [10, 50, 75])
    controller.accept(trajectory(stamp_ns=80 * MS), 80 * MS)
    assert np.allclose(play(controller, [80], measured=REST)[0], [0.3, 0.0], atol=0.02)


def test_joint_order_is_by_name():
    controller = JointTrajectoryController(NAMES, HERE)
    controller.accept(trajectory(joint_names=("b", "a")), 0)
    assert np.allclose(play(controller, [0, 100])[-1], [0.1, 0.4])


@pytest.mark.parametrize("degree", [3, 5])
def test_fields_choose_the_polynomial(degree):
    """A polynomial of the segment's degree sampled at the points comes back between them."""
    rng = np.random.default_rng(degree)
    polynomials = [np.polynomial.Polynomial(rng.normal(size=degree + 1), (0, 0.15)) for _ in NAMES]
    times_ms = (0, 50, 100, 150)

    def field(order):
        return np.array([[p.deriv(order)(t / 1e3) if order else p(t / 1e3) for p in polynomials] for t in times_ms])

    controller = JointTrajectoryController(NAMES, HERE, allow_nonzero_velocity_at_trajectory_end=True)
    accelerations = field(2) if degree == 5 else None
    refused = controller.accept(
        trajectory(
            times_ns=tuple(t * MS for t in times_ms),
            positions=field(0),
            velocities=field(1),
            accelerations=accelerations,
        ),
        0,
    )
    assert refused is None
    assert np.allclose(
        play(controller, [0, 20, 77, 130]), [[p(t / 1e3) for p in polynomials] for t in (0, 20, 77, 130)]
    )


def test_cubic_start_takes_up_the_measured_velocity():
    controller = JointTrajectoryController(NAMES, HERE)
    controller.accept(trajectory(velocities=np.zeros((3, 2))), 0)
    first, second = play(controller, [0, 0.01], velocity=np.array([2.0, -1.0]))
    assert np.allclose((second - first) / 1e-5, [2.0, -1.0], atol=0.01)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"joint_names": ("a", "c")}, "don't match the controller joints: a, c"),
        ({"joint_names": ("a",)}, "don't match"),
        ({"times_ns": (), "positions": np.zeros((0, 2))}, "empty trajectory"),
        ({"times_ns": (0, 0, 1)}, "not strictly increasing"),
        ({"positions": np.zeros((3, 3))}, "expected 3 points of 2 finite values"),
        ({"positions": np.full((3, 2), np.nan)}, "expected 3 points of 2 finite values"),
        ({"velocities": np.zeros((2, 2))}, "expected 3 points of 2 finite values"),
        ({"velocities": np.ones((3, 2))}, "velocity of last trajectory point is not zero"),
        ({"stamp_ns": 800 * MS}, "ends in the past"),
    ],
)
def test_bad_trajectory_is_refused_and_the_running_one_goes_on(changes, reason):
    controller = JointTrajectoryController(NAMES, HERE)
    controller.accept(trajectory(stamp_ns=900 * MS), 900 * MS)
    play(controller, [900])
    assert reason in controller.accept(trajectory(**changes), 1000 * MS)
    assert np.allclose(play(controller, [1000])[0], [0.4, 0.1])
