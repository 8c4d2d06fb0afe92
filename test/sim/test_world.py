# SPDX-License-Identifier: Apache-2.0
"""Poses, contacts and plans on a small world of two boxes, and the geometry of waypoints."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagewam_ros.sim.gl import mujoco
from imagewam_ros.sim.plan import CLOSED_M, OPEN_M, Segment, Waypoint, half_turn
from imagewam_ros.sim.world import World

XML = """
<mujoco><worldbody>
  <geom name="floor" type="plane" size="1 1 .1"/>
  <body name="a"><freejoint name="a_free"/><geom type="box" size=".1 .1 .1" mass="1"/></body>
  <body name="b" pos="5 0 5"><freejoint name="b_free"/><geom type="box" size=".1 .1 .1" mass="1"/></body>
</worldbody></mujoco>
"""
ANGLES = st.floats(-3.1, 3.1)
PLACES = st.tuples(st.floats(-2, 2), st.floats(-2, 2), st.floats(1, 2))


@pytest.fixture(scope="module")
def world():
    model = mujoco.MjModel.from_xml_string(XML)
    return World(model, mujoco.MjData(model))


@given(PLACES, ANGLES)
def test_what_is_placed_is_found_there(world, place, yaw):
    world.place("a", place, yaw)
    world.refresh()
    assert np.allclose(world.position("a"), place)
    assert world.yaw("a") == pytest.approx(yaw, abs=1e-6)
    assert world.tilt("a") == pytest.approx(0, abs=1e-6)


@given(ANGLES)
def test_rotation_is_a_turn_about_the_vertical(world, yaw):
    world.place("a", (0, 0, 1), yaw)
    world.refresh()
    c, s = math.cos(yaw), math.sin(yaw)
    assert np.allclose(world.rotation("a"), [[c, -s, 0], [s, c, 0], [0, 0, 1]], atol=1e-9)


@given(st.floats(0, math.pi))
def test_tilt_is_the_angle_to_the_vertical(world, angle):
    world.place("a", (0, 0, 1), 0.0)
    world.data.joint("a_free").qpos[3:] = (math.cos(angle / 2), math.sin(angle / 2), 0, 0)
    world.refresh()
    assert world.tilt("a") == pytest.approx(angle, abs=1e-6)


def test_placing_stops_what_moved(world):
    world.data.joint("a_free").qvel[:] = 3.0
    world.place("a", (0, 0, 1), 0.0)
    assert not world.data.joint("a_free").qvel.any()


def test_contacts_name_both_ways(world):
    world.place("a", (0, 0, 0.099), 0.0)
    world.place("b", (0, 0, 0.297), 0.0)
    world.refresh()
    assert world.touching("a") == {"world", "b"}
    assert world.touching("b") == {"a"}
    world.place("b", (1, 1, 1), 0.0)
    world.refresh()
    assert world.touching("b") == frozenset()


def test_poses_are_copies(world):
    world.refresh()
    position = world.position("a")
    position[:] = 99
    assert world.position("a").max() < 99


@given(PLACES, ANGLES)
def test_a_waypoint_points_straight_down(place, yaw):
    pose = Waypoint(np.array(place), yaw).pose()
    assert np.allclose(pose[:3, 3], place) and np.allclose(pose[3], [0, 0, 0, 1])
    rotation = pose[:3, :3]
    assert np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    assert np.allclose(rotation[:, 2], [0, 0, -1]), "the tool's z axis"


@given(ANGLES)
def test_fingers_close_along_the_turned_y_axis(yaw):
    rotation = Waypoint(np.zeros(3), yaw).pose()[:3, :3]
    assert np.allclose(rotation[:, 1], [-math.sin(yaw), math.cos(yaw), 0], atol=1e-12)


@given(st.floats(-50, 50))
def test_half_turns_grasp_the_same(angle):
    wrapped = half_turn(angle)
    assert -math.pi / 2 - 1e-9 <= wrapped <= math.pi / 2 + 1e-9
    turns = (angle - wrapped) / math.pi
    assert turns == pytest.approx(round(turns), abs=1e-9)


def test_defaults_are_an_open_hand():
    assert Waypoint(np.zeros(3), 0.0).gripper == OPEN_M > CLOSED_M
    assert Segment(1.0, None, None).left is None
