# SPDX-License-Identifier: Apache-2.0
"""Kinematics against finite differences, against MuJoCo, and there and back."""

import dataclasses
from xml.etree import ElementTree

import numpy as np
import pinocchio as pin
import pytest
from fine_robot import HOME, fine_robot, stand_in_urdf

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.kinematics.chains import TOLERANCE, Chains
from imagewam_ros.kinematics.description import expand

ROBOT = load_embodiment("sim_cell")
READY = np.array([0.0, 0.05, 1.85, 0.0, 1.24, 0.0, 0.04] * 2)


@pytest.fixture(scope="module")
def chains():
    return Chains(expand(), ROBOT)


def random_positions(seed):
    rng = np.random.default_rng(seed)
    return READY + rng.uniform(-0.4, 0.4, 14) * ~ROBOT.gripper_mask


def test_forward_kinematics_equal_mujocos(chains):
    mujoco = pytest.importorskip("mujoco")
    model = mujoco.MjModel.from_xml_string(expand())
    data = mujoco.MjData(model)
    for seed in range(5):
        positions = random_positions(seed)
        for name, value in zip(ROBOT.joint_names, positions, strict=True):
            data.joint(name).qpos[0] = value
        mujoco.mj_forward(model, data)
        for side in ("left", "right"):
            # MuJoCo merges fixed links by default, so compare a link that moves.
            pose = chains.pose(positions, f"{side}_hand_link")
            assert np.allclose(pose[:3, 3], data.body(f"{side}_hand_link").xpos, atol=1e-9)
            assert np.allclose(pose[:3, :3], data.body(f"{side}_hand_link").xmat.reshape(3, 3), atol=1e-9)


def test_jacobian_equals_finite_differences(chains):
    positions, step = random_positions(1), 1e-6
    for arm in ROBOT.arms:
        jacobian = chains.jacobian(arm.side, positions)
        assert jacobian.shape == (6, 6)
        first = ROBOT.arm_slice(arm.side).start
        for i in range(6):
            moved = positions.copy()
            moved[first + i] += step
            before, after = chains.forward(positions)[arm.side], chains.forward(moved)[arm.side]
            turn = pin.log3(after[:3, :3] @ before[:3, :3].T)
            difference = np.concatenate([after[:3, 3] - before[:3, 3], turn]) / step
            assert np.allclose(jacobian[:, i], difference, atol=1e-5)


def test_inverse_undoes_forward(chains):
    for seed in range(20):
        goal = chains.forward(random_positions(seed))
        for side in ("left", "right"):
            solution = chains.inverse(side, goal[side], READY)
            assert solution.converged
            assert solution.error < TOLERANCE
            assert np.allclose(chains.forward(solution.positions)[side], goal[side], atol=1e-3)


def test_inverse_moves_one_arm_only_and_copies(chains):
    goal = chains.forward(random_positions(2))["left"]
    start = READY.copy()
    solution = chains.inverse("left", goal, start)
    assert np.array_equal(start, READY)
    assert np.array_equal(solution.positions[6:], READY[6:])


def test_inverse_out_of_reach_stays_inside_the_bounds_and_says_so(chains):
    goal = np.eye(4)
    goal[:3, 3] = (3, 0, 0)
    solution = chains.inverse("right", goal, READY)
    assert not solution.converged
    assert solution.error > 1
    assert (solution.positions >= ROBOT.limits.lower).all()
    assert (solution.positions <= ROBOT.limits.upper).all()


def test_both_fingers_move_with_the_gripper(chains):
    opened, closed = READY.copy(), READY.copy()
    closed[6] = 0
    for finger in ("left", "right"):
        frame = f"left_{finger}_finger_link"
        moved = chains.pose(opened, frame)[:3, 3] - chains.pose(closed, frame)[:3, 3]
        assert np.linalg.norm(moved) == pytest.approx(0.04)


def test_unknown_frame_names_the_nearest(chains):
    with pytest.raises(ConfigError, match="unknown frame 'left_tool1'; did you mean 'left_tool0'"):
        chains.pose(READY, "left_tool1")


def test_joint_that_the_urdf_lacks_is_named():
    left = ROBOT.arms[0]
    renamed = dataclasses.replace(
        left, joints=(dataclasses.replace(left.joints[0], name="left_wiast"), *left.joints[1:])
    )
    robot = dataclasses.replace(ROBOT, arms=(renamed, ROBOT.arms[1]))
    with pytest.raises(ConfigError, match="URDF and robot 'sim_cell' differ: unknown joint 'left_wiast'; did you"):
        Chains(expand(), robot)


def test_joint_that_turns_without_end_is_the_same_joint(chains):
    urdf = expand().replace('name="left_waist" type="revolute"', 'name="left_waist" type="continuous"')
    endless = Chains(urdf, ROBOT)
    for seed in range(3):
        positions = random_positions(seed)
        for side in ("left", "right"):
            assert np.allclose(endless.forward(positions)[side], chains.forward(positions)[side])
            assert np.allclose(endless.jacobian(side, positions), chains.jacobian(side, positions))
        goal = chains.forward(positions)["left"]
        assert endless.inverse("left", goal, READY).converged


def turned(axis, angle):
    """Rodrigues' formula."""
    cross = np.cross(np.eye(3), axis)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def placements(urdf, angles):
    """{link: (4, 4) in the root} by walking the URDF: an oracle that knows joint types, axes and mimics itself."""
    root = ElementTree.fromstring(urdf)
    joints = {joint.get("name"): joint for joint in root.findall("joint")}

    def value(name):
        mimic = joints[name].find("mimic")
        if mimic is None:
            return angles.get(name, 0.0)
        return float(mimic.get("multiplier", 1)) * value(mimic.get("joint")) + float(mimic.get("offset", 0))

    def numbers(element, key, default):
        return np.array([float(x) for x in (default if element is None else element.get(key, default)).split()])

    def moved(joint):
        origin, axis = joint.find("origin"), numbers(joint.find("axis"), "xyz", "1 0 0")
        pose, motion = np.eye(4), np.eye(4)
        roll, pitch, yaw = numbers(origin, "rpy", "0 0 0")
        pose[:3, :3] = turned([0, 0, 1], yaw) @ turned([0, 1, 0], pitch) @ turned([1, 0, 0], roll)
        pose[:3, 3] = numbers(origin, "xyz", "0 0 0")
        if joint.get("type") in ("revolute", "continuous"):
            motion[:3, :3] = turned(axis, value(joint.get("name")))
        elif joint.get("type") == "prismatic":
            motion[:3, 3] = axis * value(joint.get("name"))
        return pose @ motion

    parents = {j.find("child").get("link"): (j.find("parent").get("link"), j) for j in joints.values()}

    def place(link):
        return np.eye(4) if link not in parents else place(parents[link][0]) @ moved(parents[link][1])

    return {link.get("name"): place(link.get("name")) for link in root.findall("link")}


@pytest.mark.parametrize("grip", [0.0, 0.4, 0.8])
def test_links_that_mimic_without_end_are_where_the_urdf_puts_them(grip):
    urdf, robot = stand_in_urdf(), fine_robot()
    assert urdf.count('type="continuous"') == 8
    chains, positions = Chains(urdf, robot), HOME.copy()
    positions[robot.gripper_mask] = grip
    for link, pose in placements(urdf, dict(zip(robot.joint_names, positions, strict=True))).items():
        found = chains.pose(positions, link)
        assert np.allclose(found, pose, atol=1e-9), link
        assert np.linalg.det(found[:3, :3]) == pytest.approx(1)


MIMICS = """<robot name="r"><link name="a"/><link name="b"/><link name="c"/><link name="d"/>
  <joint name="one" type="continuous"><parent link="a"/><child link="b"/><origin xyz="0 0 1"/><axis xyz="0 1 0"/>
    <mimic joint="left_waist" multiplier="2" offset="0.3"/></joint>
  <joint name="two" type="continuous"><parent link="b"/><child link="c"/><axis xyz="1 0 0"/>
    <mimic joint="one" multiplier="-0.5" offset="0.1"/></joint>
  <joint name="three" type="revolute"><parent link="c"/><child link="d"/><axis xyz="0 0 1"/>
    <limit lower="-1" upper="1" effort="1" velocity="1"/><mimic joint="{leader}" offset="0.2"/></joint></robot>"""


def with_mimics(leader):
    """The cell with a tail of three joints on its base that mimic, one of them `leader`."""
    tail = ElementTree.fromstring(MIMICS.format(leader=leader))
    root = ElementTree.fromstring(expand())
    root.extend(tail)
    hang = '<joint name="hang" type="fixed"><parent link="base_link"/><child link="a"/></joint>'
    root.append(ElementTree.fromstring(hang))
    return ElementTree.tostring(root, "unicode")


def test_a_joint_may_mimic_one_that_mimics():
    urdf, positions = with_mimics("two"), random_positions(3)
    expected = placements(urdf, dict(zip(ROBOT.joint_names, positions, strict=True)))
    assert np.allclose(Chains(urdf, ROBOT).pose(positions, "d"), expected["d"], atol=1e-9)


@pytest.mark.parametrize(
    ("leader", "text"),
    [
        ("tow", "URDF: joint 'three' mimics an unknown joint 'tow'; did you mean 'two'"),
        ("three", "URDF: joint 'three' mimics itself by way of 'three'; let one of them lead"),
    ],
)
def test_a_joint_that_mimics_nothing_that_moves_is_named(leader, text):
    with pytest.raises(ConfigError, match=text):
        Chains(with_mimics(leader), ROBOT)
