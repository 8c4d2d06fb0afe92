# SPDX-License-Identifier: Apache-2.0
"""Gripper conventions there and back, honest names for every number, and contradictions refused."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagewam_ros.core.config import build
from imagewam_ros.core.contract import Contract
from imagewam_ros.core.errors import ConfigError, EmbodimentMismatch
from imagewam_ros.core.spaces import GripperScale, JointSpace, Part, PoseFormat, names, units

NUMBER = st.floats(-100, 100).map(lambda x: round(x, 3))
PAIR = st.tuples(NUMBER, NUMBER).filter(lambda pair: abs(pair[0] - pair[1]) > 0.01)
PANDA = GripperScale((0.0, 0.0), (0.04, -0.04), 0.0, 0.08)
"""Two mirrored fingers in the model, one width on the robot."""


@pytest.mark.parametrize(
    ("scale", "model", "robot"),
    [
        (GripperScale((-1.0,), (1.0,), 0.0, 0.04), 0.0, 0.02),  # -1 closed, 1 open; m
        (GripperScale((0.0,), (1.0,), 0.0, 0.04), 0.25, 0.01),  # 0..1
        (GripperScale((1.0,), (-1.0,), 0.0, 0.04), -1.0, 0.04),  # inverted
        (GripperScale((0.0,), (1.0,), 0.8, 0.0), 1.0, 0.0),  # a robot that closes upwards, rad
        (GripperScale((0.0,), (1.0,), 0.0, 100.0), 0.3, 30.0),  # per cent
        (GripperScale((0.0,), (1.0,), 0.0, 0.04, threshold=0.5), 0.49, 0.0),  # two states
        (GripperScale((0.0,), (1.0,), 0.0, 0.04, threshold=0.5), 0.51, 0.04),
    ],
)
def test_conventions(scale, model, robot):
    assert scale.to_robot(np.array([model])) == pytest.approx(robot)
    if scale.threshold is None:
        assert scale.to_model(np.array(robot)) == pytest.approx([model])


@given(PAIR, PAIR, st.floats(0, 1))
def test_there_and_back_is_the_same(model, robot, share):
    scale = GripperScale(model[:1], model[1:], *robot)
    position = robot[0] + share * (robot[1] - robot[0])
    there = scale.to_robot(scale.to_model(np.array(position)))
    assert there == pytest.approx(position, abs=1e-9 * max(map(abs, robot)))


@given(PAIR, PAIR, st.floats(-1e3, 1e3), st.none() | st.floats(0.1, 0.9))
def test_no_command_goes_beyond_closed_and_open(model, robot, value, threshold):
    command = GripperScale(model[:1], model[1:], *robot, threshold=threshold).to_robot(np.array([value]))
    assert min(robot) - 1e-9 <= command <= max(robot) + 1e-9


def test_fingers_are_averaged_and_rows_kept():
    values = np.array([[0.04, -0.04], [0.0, 0.0], [0.03, -0.01]])
    assert PANDA.to_robot(values) == pytest.approx([0.08, 0.0, 0.04])
    assert PANDA.to_model(np.array([0.08, 0.0])) == pytest.approx(np.array([[0.04, -0.04], [0.0, 0.0]]))


def test_a_measured_opening_beyond_its_range_is_not_cut():
    assert PANDA.to_model(np.array(0.088))[0] == pytest.approx(0.044)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: GripperScale((0.0,), (1.0, 2.0), 0, 1), "closed has 1 numbers, opened 2; give pairs"),
        (lambda: GripperScale((), (), 0, 1), "closed has 0 numbers"),
        (lambda: GripperScale((0.0, 1.0), (1.0, 1.0), 0, 1), "the same for number 1; say what tells them apart"),
        (lambda: GripperScale((0.0,), (1.0,), 2, 2), "the same for the robot"),
        (lambda: GripperScale((0.0,), (1.0,), 0, 1, threshold=1.0), "threshold must lie between 0 closed and 1 open"),
        (lambda: PoseFormat("xywz"), "unknown rotation 'xywz'; did you mean 'xyzw'"),
        (lambda: PoseFormat("xyzw", delta=True), "a delta pose turns by a rotvec, found 'xyzw'"),
        (lambda: PoseFormat("rotvec", delta=True, step_m=0.0), "step_m and step_rad must be positive"),
        (lambda: Part("middle", joints=6), "unknown side 'middle'"),
        (lambda: Part("left"), "a part of the left arm must be one of joints, pose and gripper"),
        (lambda: Part("left", joints=6, pose=PoseFormat("xyzw")), "must be one of joints, pose and gripper"),
    ],
)
def test_contradictions_are_refused(make, text):
    with pytest.raises(ConfigError, match=text):
        make()


ACTION = (
    Part("left", pose=PoseFormat("rotvec", delta=True, step_m=0.05, step_rad=0.5)),
    Part("left", gripper=GripperScale((0.0,), (1.0,), 0.0, 0.04)),
)
STATE = (Part("left", pose=PoseFormat("wxyz")), Part("left", gripper=PANDA))


def test_every_number_has_a_name_and_a_unit():
    assert names(ACTION) == ("left_dx", "left_dy", "left_dz", "left_drx", "left_dry", "left_drz", "left_gripper")
    assert names(STATE)[3:] == ("left_qw", "left_qx", "left_qy", "left_qz", "left_gripper_1", "left_gripper_2")
    assert units(STATE) == ("m",) * 3 + ("1",) * 6 and units(ACTION) == ("1",) * 7
    assert names([Part("right", joints=2)]) == ("right_joint_1", "right_joint_2")
    assert units([Part("right", joints=1), Part("right", pose=PoseFormat("rotvec"))]) == (
        *["rad"],
        *"mmm",
        *["rad"] * 3,
    )


@pytest.fixture
def one_arm(contract, robot):
    left = robot.arms[0].members
    tiles = contract.mosaic.tiles[:2]
    return dataclasses.replace(
        contract,
        joint_names=tuple(joint.name for joint in left),
        joint_units=tuple(joint.unit for joint in left),
        relative=(False,) * 7,
        mosaic=dataclasses.replace(contract.mosaic, tiles=tiles),
        state=STATE,
        action=ACTION,
    )


def test_parts_survive_their_file(one_arm, robot):
    again = build(Contract, json.loads(json.dumps(one_arm.to_dict())), "config.json")
    assert again == one_arm and again.hash == one_arm.hash
    one_arm.check(robot)


def test_parts_change_the_hash_and_their_absence_does_not(one_arm, contract):
    other = dataclasses.replace(one_arm, state=(Part("left", pose=PoseFormat("xyzw")), STATE[1]))
    assert other.hash != one_arm.hash
    assert "state" not in contract.to_dict() and "action" not in contract.to_dict()


def test_one_arm_of_another_robot_is_refused(one_arm, robot):
    names_ = ("left_base", *one_arm.joint_names[1:])
    with pytest.raises(EmbodimentMismatch, match=r"joint_names: \[0\] 'left_base' against 'left_waist'"):
        dataclasses.replace(one_arm, joint_names=names_).check(robot)
    blind = dataclasses.replace(robot, cameras=robot.cameras[1:])
    with pytest.raises(EmbodimentMismatch, match=r"only checkpoint: \['head'\]"):
        one_arm.check(blind)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"state": ()}, "state and action parts go together"),
        ({"state": (Part("right", joints=6),)}, "state speaks of right, action of left"),
        ({"action": (ACTION[0], ACTION[0])}, "action: the left arm needs its joints or its pose once"),
        ({"state": (STATE[0], STATE[1], STATE[1])}, "state: the left arm needs .* its gripper at most once"),
        ({"action": (ACTION[1],)}, "action: the left arm needs its joints or its pose once"),
        ({"state": (ACTION[0], STATE[1])}, "a state is no delta"),
        ({"relative": (True,) * 7}, "relative joints and parts do not go together"),
    ],
)
def test_vectors_that_contradict_each_other_are_refused(one_arm, change, text):
    with pytest.raises(ConfigError, match=text):
        dataclasses.replace(one_arm, **change)


def test_joints_are_the_joints_but_for_the_relative_ones():
    space = JointSpace((True, False))
    positions, rows = np.array([1.0, 5.0]), np.array([[0.1, 4.0], [0.2, 3.0]])
    assert np.array_equal(space.state(positions), positions) and space.joints == 2
    assert np.allclose(space.targets(rows, positions), [[1.1, 4.0], [1.2, 3.0]])
    assert np.allclose(space.actions(space.targets(rows, positions), positions), rows)
