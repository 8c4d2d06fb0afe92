# SPDX-License-Identifier: Apache-2.0
"""Values are copies, read-only, and place rows in time."""

import numpy as np
import pytest

from imagewam_ros.core.schema import ActionChunk, JointState, Observation


@pytest.mark.parametrize(("offset", "first_ns"), [(1.0, 1_050), (0.0, 1_000), (0.5, 1_025)])
def test_rows_are_due_on_the_observation_grid(offset: float, first_ns: int) -> None:
    chunk = ActionChunk(1_000, 50, ("a",), np.zeros((3, 1)), first_row_offset_periods=offset)
    assert [chunk.due_ns(row) for row in range(chunk.rows)] == [first_ns, first_ns + 50, first_ns + 100]


def test_values_are_copies_and_read_only() -> None:
    positions = np.zeros((2, 1))
    chunk = ActionChunk(0, 1, ("a",), positions)
    positions[0] = 7.0
    assert chunk.positions[0, 0] == 0.0
    with pytest.raises(ValueError, match="read-only"):
        chunk.positions[0, 0] = 1.0


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="expected 2 dimensions, found shape"):
        ActionChunk(0, 1, ("a",), np.zeros(3))
    with pytest.raises(ValueError, match="2 joint names, 1 positions, 1 velocities"):
        JointState(0, ("a", "b"), np.zeros(1), np.zeros(1))


def test_observation_holds_its_own_mappings() -> None:
    ages = {"head": 1}
    observation = Observation(0, {}, np.zeros(2), "lift", ages_ns=ages)
    ages["head"] = 9
    assert observation.ages_ns["head"] == 1
