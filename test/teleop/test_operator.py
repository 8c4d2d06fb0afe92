# SPDX-License-Identifier: Apache-2.0
"""Rolling the present motion out into a chunk."""

import numpy as np
import pytest

from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.schema import Source
from imagewam_ros.teleop.operator import ChunkConfig, ChunkMaker


@pytest.fixture
def maker(robot):
    return ChunkMaker(robot, ChunkConfig(rate_hz=50, rows=10, fade_s=0.05), Source.TELEOP)


def test_rows_follow_the_velocity_and_come_to_rest(maker, ready):
    velocity = np.full(14, 0.1)
    chunk = maker.make(7, ready, velocity, ("left", "right"))
    travelled = chunk.positions - ready
    assert chunk.period_ns == 20_000_000
    assert chunk.due_ns(0) == 7 + 20_000_000
    assert np.allclose(travelled[0], 0.1 * 0.05 * (1 - np.exp(-0.4)))
    assert np.all(np.diff(travelled, axis=0) > 0)
    assert np.all(travelled[-1] < 0.1 * 0.05)
    assert np.all(np.diff(travelled, axis=0)[-1] < 0.1 * 0.02 * 0.05)


def test_rows_stay_inside_the_bounds(maker, robot):
    chunk = maker.make(0, robot.limits.upper, np.full(14, 2.0), ("left", "right"))
    assert np.all(chunk.positions <= robot.limits.upper)


def test_a_chunk_of_one_arm_names_only_that_arm(maker, robot, ready):
    chunk = maker.make(0, ready, np.zeros(14), ("right",))
    assert chunk.joint_names == robot.joint_names[7:]
    assert np.array_equal(chunk.positions[0], ready[7:])


def test_chunks_are_numbered_and_say_who_made_them(maker, ready):
    chunks = [maker.make(i, ready, np.zeros(14), ("left", "right")) for i in range(3)]
    assert [chunk.sequence for chunk in chunks] == [1, 2, 3]
    assert {chunk.source for chunk in chunks} == {Source.TELEOP}


def test_absurd_shapes_are_refused():
    with pytest.raises(ConfigError, match="rate_hz must be 10 to 200, found 1"):
        ChunkConfig(rate_hz=1)
    with pytest.raises(ConfigError, match="rows must be at least 2 and fade_s positive, found 1 and 0.05"):
        ChunkConfig(rows=1)
