# SPDX-License-Identifier: Apache-2.0
import pytest

from imagewam_ros.control.grid import Advance, Grid

PERIOD = 5_000_000


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        (0, Advance(0)),
        (PERIOD // 2, Advance(0)),
        (3 * PERIOD // 4, Advance(1)),
        (PERIOD, Advance(1)),
        (PERIOD + PERIOD // 2, Advance(1)),
        (2 * PERIOD, Advance(2)),
        (3 * PERIOD, Advance(2, 0, PERIOD)),
        (20 * PERIOD, Advance(2, 0, 18 * PERIOD)),
        (21 * PERIOD, Advance(1, 20 * PERIOD)),
        (-PERIOD, Advance(0)),
        (-2 * PERIOD, Advance(1, -3 * PERIOD)),
        (10**18, Advance(1, 10**18 - PERIOD)),
    ],
)
def test_a_call_asks_for_whole_periods_or_a_new_grid(offset: int, expected: Advance) -> None:
    grid = Grid(10**12, PERIOD, 0.1, 0.01)
    assert grid.due(10**12 + offset) == expected
    assert grid.nominal_ns == 10**12


@pytest.mark.parametrize("offset", [PERIOD, 3 * PERIOD, 1_234_567_890, -7_000_000_001])
def test_moving_brings_the_grid_to_the_call(offset: int) -> None:
    grid = Grid(10**12, PERIOD, 0.1, 0.01)
    due = grid.due(10**12 + offset)
    grid.move(due, 10**12 + offset)
    assert grid.tick == due.periods
    assert abs(grid.nominal_ns - 10**12 - offset) < PERIOD


@pytest.mark.parametrize(("period", "catch_up_s", "most"), [(PERIOD, 0.1, 20), (10**6, 0.01, 10), (2 * 10**7, 0, 2)])
def test_as_much_is_made_up_for_as_was_asked(period: int, catch_up_s: float, most: int) -> None:
    late = int(0.1e9) // period
    assert Grid(0, period, 0.1, catch_up_s).due(late * period) == Advance(most, 0, (late - most) * period)


@pytest.mark.parametrize(
    ("offset", "elapsed", "jumps"),
    [
        (17 * PERIOD, PERIOD, True),
        (17 * PERIOD, 17 * PERIOD, False),
        (17 * PERIOD, 16 * PERIOD, False),
        (3 * PERIOD, PERIOD, True),
        (PERIOD, 0, False),
        (-PERIOD, PERIOD, False),
    ],
)
def test_a_clock_that_goes_on_faster_than_time_was_set(offset: int, elapsed: int, jumps: bool) -> None:
    due = Grid(10**12, PERIOD, 0.1, 0.01).due(10**12 + offset, elapsed)
    assert (due.jump_ns != 0) == jumps
    assert not jumps or due == Advance(1, offset - PERIOD)
