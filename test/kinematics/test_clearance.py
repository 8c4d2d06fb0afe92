# SPDX-License-Identifier: Apache-2.0
"""Distances between links, on shapes whose distance is known and on the cell."""

import time
from xml.etree import ElementTree

import numpy as np
import pinocchio as pin
import pytest
from fine_robot import HOME, fine_robot, finely_meshed, stand_in_urdf
from hypothesis import given, settings
from hypothesis import strategies as st

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.kinematics.chains import Chains
from imagewam_ros.kinematics.clearance import Clearance
from imagewam_ros.kinematics.description import expand

ROBOT = load_embodiment("sim_cell")
READY = np.array([0.0, 0.05, 1.85, 0.0, 1.24, 0.0, 0.04] * 2)


@pytest.fixture(scope="module")
def clearance():
    return Clearance(expand(), Chains(expand(), ROBOT))


def test_ready_pose_is_clear(clearance):
    assert clearance.nearest(READY).distance_m > 0.02


def test_pairs_leave_out_what_a_joint_joins_and_the_fingers_of_a_hand(clearance):
    pairs = {frozenset(pair) for pair in clearance.pairs}
    assert frozenset({"left_upper_arm_link", "left_forearm_link"}) not in pairs
    assert frozenset({"left_left_finger_link", "left_right_finger_link"}) not in pairs
    assert frozenset({"base_link", "left_base_link"}) not in pairs
    assert frozenset({"left_hand_link", "right_hand_link"}) in pairs
    assert frozenset({"left_hand_link", "left_upper_arm_link"}) in pairs


def test_arms_that_turn_to_each_other_meet(clearance):
    """Both waists turn inwards: the hands come nearer until they overlap."""
    found = []
    for turn in np.linspace(0, 1.5, 16):
        positions = READY.copy()
        positions[[0, 7]] = (-turn, turn)
        found.append(clearance.nearest(positions))
    assert found[0].distance_m > 0.02
    assert min(found).distance_m < 0
    crash = min(found)
    assert {crash.first.split("_")[0], crash.second.split("_")[0]} == {"left", "right"}


def test_distance_between_the_hands_is_the_gap_of_their_boxes(clearance):
    """With equal joints the arms are mirrored only in place: hands 0.5 m apart, boxes 0.12 m wide."""
    index = clearance.pairs.index(("left_hand_link", "right_hand_link"))
    assert clearance.distances(READY)[index] == pytest.approx(0.5 - 0.12, abs=1e-6)


def test_arm_folded_onto_its_own_base_is_found(clearance):
    positions = READY.copy()
    positions[1:3] = (-0.9, 2.8)
    positions[4] = 1.5
    nearest = clearance.nearest(positions)
    assert nearest.distance_m < 0
    assert nearest.first.startswith("left_")
    assert nearest.second.startswith("left_")


@pytest.fixture(scope="module")
def fine_urdf(tmp_path_factory):
    return finely_meshed(stand_in_urdf(), tmp_path_factory.mktemp("meshes"))


@pytest.fixture(scope="module")
def fine(fine_urdf):
    return Clearance(fine_urdf, Chains(fine_urdf, fine_robot()))


def near_home(seed, spread):
    """Anywhere around the pose at home, grippers anywhere."""
    robot, rng = fine_robot(), np.random.default_rng(seed)
    grip = rng.uniform(robot.limits.lower, robot.limits.upper)
    return np.where(robot.gripper_mask, grip, HOME + rng.uniform(-spread, spread, HOME.size))


def test_links_of_one_gripper_are_not_judged_against_each_other_but_against_all_others(fine):
    def mounted(link):
        return "robotiq" in link or "wrist_3" in link

    pairs = {frozenset(pair) for pair in fine.pairs}
    for first, second in fine.pairs:
        same_arm = first.split("_")[0] == second.split("_")[0]
        assert not (same_arm and mounted(first) and mounted(second)), (first, second)
    for end in ("knuckle_link", "inner_knuckle_link", "finger_link", "finger_tip_link"):
        for other in ("right_robotiq_85_right_finger_tip_link", "right_upper_arm_link", "left_forearm_link"):
            assert frozenset({f"left_robotiq_85_left_{end}", other}) in pairs
    assert len(fine.pairs) == 373


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 3.0), st.sampled_from([0.02, 0.06, 0.3]))
def test_asking_only_the_near_pairs_says_the_same_as_asking_all(fine, seed, spread, within_m):
    positions = near_home(seed, spread)
    every, near = fine.distances(positions), fine.distances(positions, within_m)
    unclear = np.abs(every - within_m) < 1e-5
    assert (np.isfinite(near) == (every < within_m))[~unclear].all()
    both = np.isfinite(near)
    assert np.allclose(near[both], every[both], atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_each_pair_may_have_its_own_bound(fine, seed):
    positions, bounds = near_home(seed, 1.0), np.random.default_rng(seed).choice([-np.inf, 0.02, 0.3], len(fine.pairs))
    found, every = fine.distances(positions, bounds), fine.distances(positions)
    assert (found[np.isfinite(found)] < bounds[np.isfinite(found)]).all()
    assert np.isfinite(found)[every < bounds - 1e-5].all()


def test_hulls_are_as_far_apart_as_the_meshes(fine, fine_urdf):
    """On convex meshes: pinocchio alone, without hulls and spheres."""
    model = pin.buildModelFromXML(fine_urdf)
    meshes = pin.buildGeomFromUrdfString(model, fine_urdf, pin.GeometryType.COLLISION, package_dirs=[])
    links = [model.frames[shape.parentFrame].name for shape in meshes.geometryObjects]
    positions = near_home(7, 0.8)
    configuration = Chains(fine_urdf, fine_robot()).configuration(positions)
    exact = fine.distances(positions)
    chosen = np.random.default_rng(0).permutation(np.flatnonzero(exact > 1e-3))[:40]
    for index in chosen:
        meshes.addCollisionPair(pin.CollisionPair(*(links.index(link) for link in fine.pairs[index])))
    data, found = model.createData(), meshes.createData()
    pin.computeDistances(model, data, meshes, found, configuration)
    assert np.allclose([result.min_distance for result in found.distanceResults], exact[chosen], atol=1e-4)


def test_a_flat_mesh_is_measured_as_it_is(tmp_path):
    path = tmp_path / "plate.obj"
    path.write_text("v -1 -1 0\nv 1 -1 0\nv 1 1 0\nv -1 1 0\nf 1 2 3\nf 1 3 4\n")
    root = ElementTree.fromstring(expand())
    plate = f"""<plate><link name="plate"><collision><geometry><mesh filename="file://{path}"/></geometry></collision></link>
      <joint name="plate_joint" type="fixed"><parent link="world"/><child link="plate"/><origin xyz="0 0 3"/></joint>
      </plate>"""
    root.extend(ElementTree.fromstring(plate))
    urdf = ElementTree.tostring(root, "unicode")
    clearance = Clearance(urdf, Chains(urdf, ROBOT))
    index = next(i for i, pair in enumerate(clearance.pairs) if set(pair) == {"plate", "left_hand_link"})
    height = Chains(urdf, ROBOT).pose(READY, "left_hand_link")[2, 3]
    assert clearance.distances(READY)[index] == pytest.approx(3 - height, abs=0.15)


@pytest.mark.usefixtures("uncollected")
def test_meshes_as_fine_as_the_vendors_are_affordable_at_200_hz(fine, capsys):
    """Processor time, so that other processes do not count."""
    poses, took_ms = [near_home(seed, 0.8) for seed in range(60)], {}
    for within_m in (np.inf, 0.06, 0.02):
        began_s = time.thread_time()
        for pose in poses:
            fine.distances(pose, within_m)
        took_ms[within_m] = (time.thread_time() - began_s) / len(poses) * 1e3
    with capsys.disabled():
        print("\n" + ", ".join(f"{ms:.3f} ms within {within_m} m" for within_m, ms in took_ms.items()))
    assert took_ms[0.06] < 1.0
    assert took_ms[np.inf] < 8.0
