# SPDX-License-Identifier: Apache-2.0
"""Late chunks are followed better than by the two ways that controllers offer."""

import numpy as np
import pytest

from imagewam_ros.control import tracking
from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.schema import ActionChunk

ROWS = np.array([[0.0], [0.1], [0.4], [0.5], [0.3]])
CHUNK = ActionChunk(0, 100_000_000, ("a",), ROWS)


@pytest.mark.parametrize("latency_s", [0.1, 0.2])
def test_the_error_is_at_most_half_of_the_better_reference(
    robot: Embodiment, latency_s: float, capsys: pytest.CaptureFixture[str]
) -> None:
    errors = tracking.errors(robot, latency_s, seed=0, duration_s=8.0)
    with capsys.disabled():
        print(f"\n{latency_s * 1e3:.0f} ms:", ", ".join(f"{name} {error:.2e}" for name, error in errors.items()))
    assert tracking.ratio(errors) <= 0.5
    assert set(errors) == {"executor", "linear_on_arrival", "cubic_by_stamp", "linear_by_stamp"}


def test_chunks_that_disagree_are_joined_more_softly(robot: Embodiment) -> None:
    found = tracking.peaks(robot, 0.1, seed=0, duration_s=6.0)
    others = [peaks for name, peaks in found.items() if name != "executor"]
    assert found["executor"].acceleration < min(peaks.acceleration for peaks in others)
    assert found["executor"].velocity < min(peaks.velocity for peaks in others)


def test_the_trajectory_reaches_its_share_of_a_limit_and_no_more(robot: Embodiment) -> None:
    trajectory = tracking.smooth(robot, np.random.default_rng(0), 0.7)
    dt = 1e-3
    positions = trajectory.at(np.arange(0, 60, dt))
    limits = robot.limits
    for order, bound in ((1, limits.velocity), (2, limits.acceleration), (3, limits.jerk)):
        assert (np.abs(np.diff(positions, order, axis=0)) / dt**order / bound).max() <= 0.7 + 1e-6
    assert (positions > limits.lower).all()
    assert (positions < limits.upper).all()


def test_linear_on_arrival_plays_from_row_zero_when_it_arrives() -> None:
    arrival = 730_000_000
    assert tracking.linear_on_arrival(CHUNK, arrival, arrival).position == 0.0
    halfway = tracking.linear_on_arrival(CHUNK, arrival, arrival + 150_000_000)
    assert halfway.position == pytest.approx(0.25)
    assert halfway.velocity == pytest.approx(3.0)
    assert tracking.linear_on_arrival(CHUNK, arrival, arrival + 10**9).velocity == 0.0


def test_linear_by_stamp_plays_rows_when_they_are_due() -> None:
    assert tracking.linear_by_stamp(CHUNK, 10**12, CHUNK.due_ns(2)).position == pytest.approx(0.4)


def test_cubic_by_stamp_passes_the_rows_and_rests_at_both_ends() -> None:
    for row in range(5):
        assert tracking.cubic_by_stamp(CHUNK, 0, CHUNK.due_ns(row)).position == pytest.approx(ROWS[row, 0])
    first, last = CHUNK.due_ns(0), CHUNK.due_ns(4)
    for edge in (first + 1, last - 1):
        assert tracking.cubic_by_stamp(CHUNK, 0, edge).velocity == pytest.approx(0.0, abs=1e-5)
    for time_ns in range(first + 7_000_000, last, 13_000_000):
        h = 100_000
        a, b, c = (tracking.cubic_by_stamp(CHUNK, 0, time_ns + k * h) for k in (-1, 0, 1))
        assert (c.position - a.position) / (2e-9 * h) == pytest.approx(b.velocity, abs=1e-3)
    inner = CHUNK.due_ns(2)
    before, after = (tracking.cubic_by_stamp(CHUNK, 0, inner + k).acceleration for k in (-1, 1))
    assert before == pytest.approx(after, abs=1e-4)
