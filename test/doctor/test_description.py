# SPDX-License-Identifier: Apache-2.0
"""Robot YAML against URDF."""

import dataclasses

import pytest

pytest.importorskip("xacro", reason="needs xacro")

from imagewam_ros.control.braking import STOP_SHARE, longest_stop_s
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.doctor_checks.description import check_description, check_stop, parse
from imagewam_ros.doctor_checks.finding import Level
from imagewam_ros.kinematics.description import expand


@pytest.fixture(scope="module")
def urdf():
    return parse(expand())


def levels(findings):
    return {finding.check: finding.level for finding in findings}


def failure(findings):
    return next(finding.found for finding in findings if finding.level is Level.FAIL)


def change_joint(robot, **changes):
    left, right = robot.arms
    joints = (dataclasses.replace(left.joints[0], **changes), *left.joints[1:])
    return dataclasses.replace(robot, arms=(dataclasses.replace(left, joints=joints), right))


def test_the_shipped_robot_and_its_urdf_agree(robot, urdf):
    assert set(levels(check_description(robot, urdf)).values()) == {Level.PASS}


def test_two_swapped_joints_are_caught(robot, urdf, swap_joints):
    found = failure(check_description(swap_joints(robot, 1, 2), urdf))
    assert "left arm is not listed from base to wrist" in found
    assert "[1] left_elbow should be left_shoulder, [2] left_shoulder should be left_elbow" in found


def test_a_swap_of_names_alone_shows_in_order_and_limits(robot, urdf):
    left, right = robot.arms
    one, two = left.joints[1], left.joints[2]
    joints = (
        left.joints[0],
        dataclasses.replace(one, name=two.name),
        dataclasses.replace(two, name=one.name),
        *left.joints[3:],
    )
    wrong = dataclasses.replace(robot, arms=(dataclasses.replace(left, joints=joints), right))
    found = levels(check_description(wrong, urdf))
    assert found["URDF order"] is Level.FAIL
    assert found["URDF limits"] is Level.FAIL


def test_a_misspelt_joint_answers_with_the_nearest(robot, urdf):
    found = failure(check_description(change_joint(robot, name="left_wiast"), urdf))
    assert "did you mean 'left_waist'" in found


def test_another_limit_or_unit_is_named(robot, urdf):
    assert "left_waist upper 3.1, URDF 2.6" in failure(check_description(change_joint(robot, upper=3.1), urdf))
    assert "left_waist is in m, the URDF says revolute" in failure(
        check_description(change_joint(robot, unit="m"), urdf)
    )


def test_a_robot_may_keep_inside_what_its_urdf_allows(robot, urdf):
    findings = list(check_description(change_joint(robot, velocity=0.3, lower=-1.0, upper=1.0), urdf))
    assert set(levels(findings).values()) == {Level.PASS}
    assert "limits of 1 joints are inside the URDF's" in [finding.found for finding in findings]
    assert "left_waist lower -2.7, URDF -2.6" in failure(check_description(change_joint(robot, lower=-2.7), urdf))
    assert "left_waist velocity 9, URDF 2.5" in failure(check_description(change_joint(robot, velocity=9.0), urdf))


def test_an_absent_frame_is_a_warning(robot, urdf):
    camera = dataclasses.replace(robot.cameras[0], frame="head_optical")
    wrong = dataclasses.replace(robot, cameras=(camera, *robot.cameras[1:]))
    assert levels(check_description(wrong, urdf))["URDF frames"] is Level.WARN


def test_arms_that_take_long_to_stop_are_pointed_out(robot):
    """Still accelerating at 2.5 rad/s, then braking with 0.7 * 0.5 rad/s^2."""
    for changed, level in ((robot, Level.PASS), (change_joint(robot, acceleration=0.5), Level.WARN)):
        (finding,) = check_stop(longest_stop_s(changed.limits, STOP_SHARE))
        assert finding.level is level
    assert "the longest soft stop takes 7.2 s; the arms go on for so long" in finding.found


def test_what_is_no_urdf_is_refused():
    with pytest.raises(ConfigError, match="the robot description is not XML"):
        parse("<robot>")
