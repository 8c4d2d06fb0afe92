# SPDX-License-Identifier: Apache-2.0
"""Tool poses to joints and back: exact where they can be reached, continuous, refused where they cannot."""

import os
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pinocchio as pin
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_contract import small_contract

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import ConfigError, LimitViolation
from imagewam_ros.core.spaces import GripperScale, Part, PoseFormat
from imagewam_ros.kinematics.arm_space import ArmSpace
from imagewam_ros.kinematics.chains import Chains
from imagewam_ros.kinematics.description import describe
from imagewam_ros.kinematics.poses import delta, matrix, numbers, stepped

STAND_INS = Path(__file__).parent / "stand_ins"
SEEDS = st.integers(0, 10_000)
GRIP = GripperScale((-1.0,), (1.0,), 0.0, 0.04)
LIBERO = PoseFormat("rotvec", delta=True, step_m=0.05, step_rad=0.5)
ROWS = 16


PI = np.pi
UR5E = {
    "shoulder_pan_joint": ((0, 0, 0.1625), (0, 0, 0)),
    "shoulder_lift_joint": ((0, 0, 0), (PI / 2, 0, 0)),
    "elbow_joint": ((-0.425, 0, 0), (0, 0, 0)),
    "wrist_1_joint": ((-0.3922, 0, 0.1333), (0, 0, 0)),
    "wrist_2_joint": ((0, -0.0997, 0), (PI / 2, 0, 0)),
    "wrist_3_joint": ((0, 0.0996, 0), (PI / 2, PI, PI)),
}
"""Origin and roll, pitch, yaw of each joint (Source: ur_description, config/ur5e/default_kinematics.yaml)."""


def ur5e(urdf):
    """The preset on its stand-in, its arms given the vendor's lengths."""
    tree = ElementTree.fromstring(urdf)
    for side in ("left", "right"):
        for name, (xyz, rpy) in UR5E.items():
            joint = tree.find(f"joint[@name='{side}_{name}']")
            joint.find("origin").attrib.update(xyz=" ".join(map(str, xyz)), rpy=" ".join(map(str, rpy)))
            joint.find("axis").set("xyz", "0 0 1")
    return ElementTree.tostring(tree, encoding="unicode")


@pytest.fixture(scope="module", params=["sim_cell", "ur5e"])
def chains(request):
    """Our own cell, and a UR preset without the vendor's package."""
    robot = load_embodiment(request.param)
    if request.param == "sim_cell":
        return Chains(describe(robot), robot)
    pytest.importorskip("ament_index_python", reason="xacro needs it to find packages")
    prefixes = [os.environ.get("AMENT_PREFIX_PATH", ""), str(STAND_INS)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AMENT_PREFIX_PATH", os.pathsep.join(filter(None, prefixes)))
        return Chains(ur5e(describe(robot, {"hardware": "mock"})), robot)


def space(chains, form, means=(None, None), sides=("left", "right"), **changes):
    """Both arms as InternData has them: pose, gripper, pose, gripper."""
    robot = chains.embodiment
    action = tuple(part for side in sides for part in (Part(side, pose=form), Part(side, gripper=GRIP)))
    state = tuple(
        Part(part.side, pose=PoseFormat("rotvec")) if part.pose and part.pose.delta else part for part in action
    )
    changes = {"relative": (False,) * len(robot.joints), "state": state, "action": action} | changes
    contract = small_contract(robot, **changes)
    return ArmSpace(contract, robot, chains, means)


def posture(chains, seed):
    """Arms bent, away from bounds and from the stretched elbow."""
    robot, rng = chains.embodiment, np.random.default_rng(seed)
    bent = [0.0, 0.05, 1.85, 0.0, 1.24, 0.0] if robot.name == "sim_cell" else [0.3, -1.4, 1.6, -1.6, -1.5, 0.2]
    positions = np.array([*bent, 0.02] * 2)
    return positions + rng.uniform(-0.25, 0.25, positions.size) * ~robot.gripper_mask


def path(chains, seed, rows=ROWS):
    """A smooth way (rows, joints) that ends up to 0.3 rad from its beginning, grippers included."""
    start, rng = posture(chains, seed), np.random.default_rng(seed + 1)
    goal = rng.uniform(-0.3, 0.3, start.size) * ~chains.embodiment.gripper_mask
    goal += rng.uniform(-0.02, 0.02, start.size) * chains.embodiment.gripper_mask
    share = (1 - np.cos(np.linspace(0, np.pi, rows + 1))) / 2
    return start + share[:, None] * goal


@pytest.mark.parametrize("form", [PoseFormat("xyzw"), PoseFormat("wxyz"), PoseFormat("rotvec"), LIBERO])
@settings(max_examples=10, deadline=None)
@given(seed=SEEDS)
def test_poses_of_a_path_give_the_path(chains, form, seed):
    """FK(IK(pose)) is the pose within 1e-6, and the joints are those that made it."""
    way, mapping = path(chains, seed), space(chains, form)
    actions = mapping.actions(way[1:], way[0])
    targets = mapping.targets(actions, way[0])
    for found, wanted in zip(targets, way[1:], strict=True):
        for side in ("left", "right"):
            a, b = chains.forward(found)[side], chains.forward(wanted)[side]
            assert np.abs(a[:3, 3] - b[:3, 3]).max() < 1e-6
            assert np.linalg.norm(pin.log3(a[:3, :3].T @ b[:3, :3])) < 1e-6
    assert np.allclose(targets, way[1:], atol=1e-5)
    assert np.abs(np.diff(np.vstack([way[:1], targets]), axis=0)).max() < 0.1
    assert np.allclose(mapping.actions(targets, way[0]), actions, atol=1e-6)


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, length=st.floats(0.05, 20))
def test_length_and_sign_of_a_quaternion_do_not_matter(chains, seed, length):
    way, mapping = path(chains, seed, rows=2), space(chains, PoseFormat("xyzw"))
    actions = mapping.actions(way[1:], way[0])
    scaled = actions.copy()
    scaled[:, 3:7] *= length
    scaled[1, 11:15] *= -length
    assert np.allclose(mapping.targets(scaled, way[0]), mapping.targets(actions, way[0]), atol=1e-6)


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS)
def test_orders_of_a_quaternion_are_the_same_pose(chains, seed):
    positions = posture(chains, seed)
    xyzw, wxyz = (space(chains, PoseFormat(order)).state(positions) for order in ("xyzw", "wxyz"))
    assert np.allclose(xyzw[[0, 1, 2, 6, 3, 4, 5, 7]], wxyz[:8])
    pose = chains.forward(positions)["left"]
    assert np.allclose(pin.Quaternion(pose[:3, :3]).matrix(), pin.Quaternion(*wxyz[3:7]).matrix())
    turned = space(chains, PoseFormat("rotvec")).state(positions)
    assert np.allclose(pin.exp3(turned[3:6]), pose[:3, :3]) and np.allclose(turned[:3], pose[:3, 3])


@pytest.mark.parametrize("rotation", ["xyzw", "wxyz", "rotvec"])
def test_poses_are_written_as_the_training_data_wrote_them(chains, rotation):
    """Either sign of a quaternion, and a turn of more than pi, as the mean of the data has it."""
    positions = posture(chains, 3)
    plain = space(chains, PoseFormat(rotation)).state(positions)
    other = plain.reshape(2, -1).copy()
    for arm in other:
        turn = arm[3:-1]
        arm[3:-1] = turn * (1 - 2 * PI / np.linalg.norm(turn)) if rotation == "rotvec" else -turn
    for written in (plain, other.flatten()):
        mapping = space(chains, PoseFormat(rotation), (written + 0.1, written + 0.1))
        assert np.allclose(mapping.state(positions), written)
        assert np.allclose(mapping.actions(np.array([positions] * 2), positions), written)


def test_grippers_pass_through_their_scale(chains):
    way, mapping = path(chains, 5, rows=1), space(chains, PoseFormat("xyzw"))
    actions = mapping.actions(way[1:], way[0])
    actions[0, 7], actions[0, 15] = -1.0, 0.5
    targets = mapping.targets(actions, way[0])
    assert targets[0, 6] == 0.0 and targets[0, 13] == pytest.approx(0.03)
    assert mapping.state(way[0])[[7, 15]] == pytest.approx((way[0][[6, 13]] - 0.02) / 0.02)


def test_pose_is_of_the_tool_and_in_the_frame_that_the_contract_names(chains):
    if chains.embodiment.name != "sim_cell":
        pytest.skip("frames of the cell")
    form = PoseFormat("wxyz", frame="left_base_link", tool="left_hand_link")
    mapping, way = space(chains, form, sides=("left",), **one_arm(chains)), path(chains, 8, rows=4)
    base, hand = chains.pose(way[0], "left_base_link"), chains.pose(way[0], "left_hand_link")
    assert np.allclose(matrix(mapping.state(way[0])[:7], form), np.linalg.inv(base) @ hand)
    assert np.allclose(mapping.targets(mapping.actions(way[1:, :7], way[0]), way[0]), way[1:, :7], atol=1e-5)


def one_arm(chains):
    names = chains.embodiment.joint_names[:7]
    return {"joint_names": names, "joint_units": ("rad",) * 6 + ("m",), "relative": (False,) * 7}


def test_deltas_add_up_along_the_axes_of_the_frame(chains):
    """One step is step_m along x and step_rad about z, numbers beyond 1 are cut."""
    mapping, start = space(chains, LIBERO), posture(chains, 2)
    actions = np.zeros((2, 14))
    actions[:, 0], actions[:, 5] = (0.5, 3.0), (0.2, 0.0)
    before = chains.forward(start)["left"]
    reached = [chains.forward(row)["left"] for row in mapping.targets(actions, start)]
    assert np.allclose(reached[0][:3, 3] - before[:3, 3], [0.025, 0, 0], atol=1e-6)
    assert np.allclose(reached[1][:3, 3] - before[:3, 3], [0.075, 0, 0], atol=1e-6)
    assert np.allclose(reached[1][:3, :3], pin.exp3(np.array([0, 0, 0.1])) @ before[:3, :3], atol=1e-6)


@settings(max_examples=25)
@given(SEEDS)
def test_a_delta_undoes_a_step(seed):
    rng = np.random.default_rng(seed)
    pose = matrix(rng.normal(size=7), PoseFormat("xyzw"))
    step = rng.uniform(-1, 1, 6)
    assert np.allclose(delta(pose, stepped(pose, step, LIBERO), LIBERO), step)


@settings(max_examples=25)
@given(SEEDS, st.sampled_from(["xyzw", "wxyz", "rotvec"]))
def test_numbers_undo_a_matrix(seed, rotation):
    rng, form = np.random.default_rng(seed), PoseFormat(rotation)
    pose = matrix(rng.normal(size=6 if rotation == "rotvec" else 7), form)
    near = rng.normal(size=6 if rotation == "rotvec" else 7)
    for written in (numbers(pose, form), numbers(pose, form, near)):
        assert np.allclose(matrix(written, form), pose)
    if rotation != "rotvec":
        assert np.linalg.norm(numbers(pose, form)[3:]) == pytest.approx(1)
        assert numbers(pose, form, near)[3:] @ near[3:] >= 0


def test_no_turn_is_written_as_no_turn():
    assert numbers(np.eye(4), PoseFormat("rotvec"), np.ones(6)).tolist() == [0] * 6


def test_out_of_reach_is_refused_by_row_and_arm(chains):
    way, mapping = path(chains, 1, rows=4), space(chains, PoseFormat("xyzw"))
    actions = mapping.actions(way[1:], way[0])
    actions[2, 8] += 3.0
    with pytest.raises(
        LimitViolation, match=r"row 2: the right tool cannot reach \[.*\] m in the URDF's root; .* off. Are"
    ):
        mapping.targets(actions, way[0])


def test_bounds_are_kept_and_a_pose_behind_them_is_refused(chains):
    """The last wrist joint alone turns the tool about its axis: one more than its bound allows is out of reach."""
    start = posture(chains, 4)
    mapping, limits = space(chains, PoseFormat("xyzw")), chains.embodiment.limits
    beyond = start.copy()
    start[5], beyond[5] = limits.upper[5] - 0.05, limits.upper[5] + 0.2
    actions = mapping.actions(np.array([beyond]), start)
    with pytest.raises(LimitViolation, match="row 0: (the left tool cannot reach|joint left_.* would have to turn)"):
        mapping.targets(actions, start)
    at_bound = np.where(np.arange(14) == 5, limits.upper[5], start)
    found = mapping.targets(mapping.actions(np.array([at_bound]), start), start)[0]
    assert (found <= limits.upper + 1e-12).all() and np.allclose(found, at_bound, atol=1e-5)


def test_jump_to_another_branch_is_refused(chains):
    way, mapping = path(chains, 6, rows=3), space(chains, PoseFormat("xyzw"))
    jumped = way[1:].copy()
    jumped[2, 0] += 0.9
    with pytest.raises(LimitViolation, match=r"row 2: joint left_\w+ would have to turn by 0.\d\d rad within one row"):
        mapping.targets(mapping.actions(jumped, way[0]), way[0])


@pytest.mark.parametrize(("value", "text"), [(np.nan, "is not finite; check the weights"), (0.0, "has length 0.0e")])
def test_numbers_that_are_no_pose_are_refused(chains, value, text):
    mapping, start = space(chains, PoseFormat("xyzw")), posture(chains, 0)
    actions = mapping.actions(start[None], start)
    actions[0, 3:7] = value
    with pytest.raises(LimitViolation, match=text):
        mapping.targets(actions, start)


def test_frames_that_move_or_belong_elsewhere_are_refused(chains):
    frame = "left_tool0"
    with pytest.raises(ConfigError, match=f"frame '{frame}' moves with the joints; poses need a frame that stands"):
        space(chains, PoseFormat("xyzw", frame=frame))
    with pytest.raises(ConfigError, match="tool 'left_tool0' does not move with the right tool; name a frame on its"):
        space(chains, PoseFormat("xyzw", tool=frame))
    with pytest.raises(ConfigError, match="unknown frame 'left_tool1'; did you mean 'left_tool0'"):
        space(chains, PoseFormat("xyzw", tool="left_tool1"))


def test_other_numbers_of_joints_and_statistics_are_refused(chains):
    seven = (Part("left", joints=7), Part("right", joints=7))
    robot = chains.embodiment
    contract = small_contract(robot, relative=(False,) * 14, state=seven, action=seven)
    with pytest.raises(ConfigError, match=f"left arm has 7 joints, that of robot '{robot.name}' 6; choose the robot"):
        ArmSpace(contract, robot)
    with pytest.raises(ConfigError, match="action has 16 numbers, its statistics 14; both must come from the same"):
        space(chains, PoseFormat("xyzw"), (None, np.zeros(14)))


def test_joints_with_scaled_grippers_need_no_kinematics(chains):
    """RoboTwin's vectors: six joints in rad and a gripper of 0 closed to 1 open, per arm."""
    robot, positions = chains.embodiment, posture(chains, 1)
    unit = GripperScale((0.0,), (1.0,), 0.0, 0.04)
    parts = tuple(part for side in ("left", "right") for part in (Part(side, joints=6), Part(side, gripper=unit)))
    mapping = ArmSpace(small_contract(robot, relative=(False,) * 14, state=parts, action=parts), robot)
    state = mapping.state(positions)
    assert np.allclose(state[[6, 13]], 0.5) and np.allclose(np.delete(state, [6, 13]), np.delete(positions, [6, 13]))
    assert np.allclose(mapping.targets(np.array([state, state]), positions), positions)
    assert np.allclose(mapping.actions(np.array([positions]), positions), state)
