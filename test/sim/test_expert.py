# SPDX-License-Identifier: Apache-2.0
"""The expert speaks in chunks of joint targets and its demonstrations tell what it wanted."""

import numpy as np
import pytest

from imagewam_ros.core.errors import LimitViolation
from imagewam_ros.sim.cell import Cell
from imagewam_ros.sim.demonstration import demonstrate, follow
from imagewam_ros.sim.expert import PERIOD_NS, Expert
from imagewam_ros.sim.gl import BACKEND
from imagewam_ros.sim.plan import Segment, Waypoint, half_turn

needs_gl = pytest.mark.skipif(BACKEND == "disable", reason="no EGL or OSMesa library for off-screen rendering")


@pytest.fixture(scope="module")
def cell():
    cell = Cell()
    yield cell
    cell.close()


@pytest.fixture
def expert(cell):
    cell.reset(0)
    expert = Expert(cell)
    expert.start()
    return expert


def test_rows_of_a_chunk_are_the_targets_one_period_after_each_other(cell, expert):
    follow(cell, expert.curve)
    chunk = expert.chunk(4)
    assert chunk.stamp_ns == cell.time_ns == PERIOD_NS
    assert chunk.first_row_offset_periods == 1.0
    assert chunk.joint_names == cell.embodiment.joint_names
    for row in range(4):
        assert np.array_equal(chunk.positions[row], expert.curve.at(chunk.due_ns(row)))
    assert np.array_equal(chunk.positions[0], expert.act())


def test_expert_starts_where_the_arms_are(cell, expert):
    assert np.array_equal(expert.curve.at(cell.time_ns), cell.joint_state().position)


def test_chunk_past_the_end_repeats_the_last_target(expert):
    rows = expert.chunk(expert.steps + 5).positions
    assert np.array_equal(rows[-1], rows[expert.steps - 1])


def test_waypoint_out_of_reach_is_named():
    class Far:
        instructions, time_limit_s = ("reach for the wall",), 5.0

        def add_objects(self, spec):
            pass

        def place(self, world, rng):
            return self.instructions[0]

        def achieved(self, world, instruction):
            return False

        def plan(self, world, instruction):
            return (Segment(1.0, Waypoint(np.array([2.0, 0, 0.1]), 0), Waypoint(np.array([0.3, -0.2, 0.1]), 0)),)

    cell = Cell()
    cell.task = Far()
    cell.reset(0)
    with pytest.raises(LimitViolation, match=r"the left tool cannot reach .* bring the task's waypoint closer"):
        Expert(cell).start()


def test_half_turn_keeps_the_grasp():
    for angle in np.linspace(-7, 7, 50):
        wrapped = half_turn(angle)
        assert -np.pi / 2 <= wrapped < np.pi / 2
        assert np.isclose(np.sin(2 * (wrapped - angle)), 0, atol=1e-9)


@needs_gl
def test_demonstration_has_one_row_per_step(cell):
    demonstration = demonstrate(cell, 1_000_000)
    steps = len(demonstration.stamps_ns)
    assert demonstration.success
    assert np.array_equal(np.diff(demonstration.stamps_ns), np.full(steps - 1, PERIOD_NS))
    assert demonstration.positions.shape == demonstration.velocities.shape == demonstration.targets.shape == (steps, 14)
    for camera in cell.embodiment.cameras:
        assert demonstration.images[camera.name].shape == (steps, camera.height, camera.width, 3)
    assert 3.5 <= steps * PERIOD_NS / 1e9 <= 4.5


@needs_gl
def test_demonstration_depends_on_its_seed_alone(cell):
    first, second = demonstrate(cell, 7), demonstrate(Cell(), 7)
    assert np.array_equal(first.positions, second.positions)
    assert np.array_equal(first.images["head"], second.images["head"])


@needs_gl
def test_perturbation_is_executed_but_not_labelled(cell):
    plain = demonstrate(cell, 1_000_001, perturb=False)
    astray = demonstrate(cell, 1_000_001)
    apart = np.abs(astray.positions - plain.positions)
    assert np.array_equal(astray.targets, plain.targets)
    assert 0.01 < apart[:30].max() < 0.4
    assert apart[:30, [6, 13]].max() < 1e-3  # m; the hands shake a little, they are not led astray
