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
        (3 * PERIOD, Advance(3)),
        (20 * PERIOD, Advance(20)),
        (21 * PERIOD, Advance(1, 20 * PERIOD)),
        (-PERIOD, Advance(0)),
        (-2 * PERIOD, Advance(1, -3 * PERIOD)),
        (10**18, Advance(1, 10**18 - PERIOD)),
    ],
)
def test_a_call_asks_for_whole_periods_or_a_new_grid(offset: int, expected: Advance) -> None:
    grid = Grid(10**12, PERIOD, 0.1)
    assert grid.due(10**12 + offset) == expected
    assert grid.nominal_ns == 10**12


@pytest.mark.parametrize("offset", [PERIOD, 3 * PERIOD, 1_234_567_890, -7_000_000_001])
def test_moving_brings_the_grid_to_the_call(offset: int) -> None:
    grid = Grid(10**12, PERIOD, 0.1)
    due = grid.due(10**12 + offset)
    grid.move(due)
    assert grid.tick == due.periods
    assert abs(grid.nominal_ns - 10**12 - offset) < PERIOD
