# SPDX-License-Identifier: Apache-2.0
"""Live streams, healthy and with every fault put in."""

import dataclasses

import numpy as np
import pytest

from imagewam_ros.control.watchdog import WatchdogConfig
from imagewam_ros.doctor_checks.finding import Level
from imagewam_ros.doctor_checks.streams import SILENT_S, TRACKED_S, Joints, Stream, check_streams, check_timing

MS = 1_000_000


def by_check(findings):
    return {finding.check: finding for finding in findings if finding.level is not Level.PASS}


def test_a_healthy_cell_has_no_complaints(healthy, robot):
    assert set(by_check(check_streams(healthy, robot))) == {"leader offset"}


def test_a_silent_camera_names_what_is_there(healthy, robot):
    cameras = {name: stream for name, stream in healthy.cameras.items() if name != "head"}
    found = by_check(check_streams(dataclasses.replace(healthy, cameras=cameras), robot))["camera head"]
    assert found.level is Level.FAIL
    assert "silent for 3 s" in found.found


def test_a_frame_of_another_camera_is_a_swap(healthy, robot):
    left, right = healthy.cameras["left_wrist"], healthy.cameras["right_wrist"]
    cameras = {**healthy.cameras, "left_wrist": dataclasses.replace(left, frame=right.frame)}
    found = by_check(check_streams(dataclasses.replace(healthy, cameras=cameras), robot))["camera left_wrist"]
    assert found.level is Level.FAIL
    assert "are two cameras swapped?" in found.remedy


@pytest.mark.parametrize(
    ("rate", "age_ms", "level", "text"),
    [
        (20, 10, Level.PASS, "20.0 Hz of 20, age 10 ms"),
        (20, 150, Level.WARN, "age 150 ms"),
        (20, 400, Level.FAIL, "age 400 ms"),
        (20, -50, Level.FAIL, "its clock is 50 ms ahead"),
        (17, 10, Level.WARN, "17.0 Hz of 20"),
        (8, 10, Level.FAIL, "8.0 Hz of 20"),
    ],
)
def test_rate_age_and_clock_are_judged(make_stream, rate, age_ms, level, text):
    (found,) = check_timing("camera", make_stream("image", rate, age_ms * MS), 20)
    assert found.level is level
    assert text in found.found


def test_a_stuck_driver_is_named(make_stream):
    short = make_stream("image", 20, seconds=0.1)
    (found,) = check_timing("camera", short, 20)
    assert (found.level, found.found) == (Level.FAIL, "only 2 messages")


def test_jitter_and_repeated_stamps_are_judged(make_stream):
    steady = make_stream("image", 20)
    shaken = steady.stamps_ns + np.where(np.arange(60) % 3 == 0, 35 * MS, 0)
    (found,) = check_timing("camera", Stream("image", shaken + MS, shaken), 20)
    assert found.level is Level.WARN
    twice = np.repeat(steady.stamps_ns, 2)
    (found,) = check_timing("camera", Stream("image", twice, twice), 20)
    assert (found.level, "do not grow" in found.found) == (Level.FAIL, True)


def test_shutters_far_apart_are_named(healthy, robot):
    late = healthy.cameras["head"]
    shifted = Stream(late.topic, late.arrivals_ns, late.stamps_ns + 2000 * MS, late.frame)
    heard = dataclasses.replace(healthy, cameras={**healthy.cameras, "head": shifted})
    assert by_check(check_streams(heard, robot))["camera skew"].level is Level.FAIL


def test_the_limits_are_the_executors():
    config = WatchdogConfig()
    assert (config.joint_state_timeout_s, config.tracking_delay_s) == (SILENT_S, TRACKED_S)


@pytest.mark.parametrize(
    ("part", "rate", "age_ms", "level", "text"),
    [
        ("arms", 1000, 1, Level.PASS, "1000.0 Hz, age 1 ms, silent for 1 ms at most"),
        ("arms", 25, 1, Level.PASS, "25.0 Hz"),
        ("arms", 15, 1, Level.WARN, "silent for 67 ms at most"),
        ("arms", 4, 1, Level.FAIL, "silent for 250 ms at most"),
        ("arms", 100, 150, Level.WARN, "age 150 ms"),
        ("arms", 100, 400, Level.FAIL, "age 400 ms"),
        ("arms", 100, -50, Level.FAIL, "its clock is ahead"),
        ("grippers", 30, 1, Level.PASS, "30.0 Hz"),
        ("grippers", 15, 1, Level.PASS, "15.0 Hz"),
        ("grippers", 8, 1, Level.WARN, "silent for 125 ms at most"),
        ("grippers", 4, 1, Level.FAIL, "silent for 250 ms at most"),
    ],
)
def test_joint_states_are_judged_by_what_the_executor_needs(
    healthy, robot, make_stream, part, rate, age_ms, level, text
):
    """Whatever the control rate is, and a slow gripper says nothing of the arms."""
    feedback = {**healthy.feedback, part: make_stream("joint_states", rate, age_ms * MS)}
    found = {f.check: f for f in check_streams(dataclasses.replace(healthy, feedback=feedback), robot)}
    mine, other = ("joint_states", "gripper states")[:: 1 if part == "arms" else -1]
    assert found[mine].level is level and text in found[mine].found
    assert found[other].level is Level.PASS
    assert "USB" not in found[mine].remedy


def test_one_silence_is_enough_for_a_fault(healthy, robot):
    steady = healthy.feedback["arms"]
    gap = dataclasses.replace(steady, stamps_ns=steady.stamps_ns + np.where(steady.stamps_ns > 101.5e9, 230 * MS, 0))
    found = by_check(check_streams(dataclasses.replace(healthy, feedback={"arms": gap}), robot))["joint_states"]
    assert found.level is Level.FAIL
    assert "the executor calls 0.2 s a fault (control.joint_state_timeout_s); raise the rate" in found.remedy


def with_joints(heard, names, positions):
    return dataclasses.replace(heard, joints=Joints(heard.joints.stream, names, positions))


def test_joint_states_are_judged_by_name_bounds_and_unit(healthy, robot):
    names, positions = healthy.joints.names, healthy.joints.positions
    misspelt = with_joints(healthy, ("left_wiast", *names[1:]), positions)
    assert "lacks left_waist" in by_check(check_streams(misspelt, robot))["joint_states"].found
    degrees = with_joints(healthy, names, positions * 57.3 + 90)
    assert "is it in degrees?" in by_check(check_streams(degrees, robot))["joint_states"].found
    silent = dataclasses.replace(healthy, joints=None)
    assert "joint_state_broadcaster" in by_check(check_streams(silent, robot))["joint_states"].remedy


def test_swapped_joint_values_show_where_bounds_differ(healthy, robot):
    positions = healthy.joints.positions.copy()
    positions[:, 1], positions[:, 2] = -1.0, 2.5
    assert "joint_states" not in by_check(check_streams(with_joints(healthy, robot.joint_names, positions), robot))
    swapped = with_joints(healthy, robot.joint_names, positions[:, [0, 2, 1, *range(3, 14)]])
    found = by_check(check_streams(swapped, robot))["joint_states"]
    assert found.level is Level.FAIL
    assert "swapped joints look like this too" in found.remedy


def test_a_leader_away_from_its_follower_is_named(healthy, robot):
    part = robot.arm_slice("left")
    positions = healthy.joints.positions[:, part].copy()
    leader = Joints(healthy.joints.stream, robot.joint_names[part], positions)
    found = by_check(check_streams(dataclasses.replace(healthy, leaders={"left": leader}), robot))
    assert "left leader" not in found
    positions[:, 3] += 0.4
    leader = dataclasses.replace(leader, positions=positions)
    found = by_check(check_streams(dataclasses.replace(healthy, leaders={"left": leader}), robot))["left leader"]
    assert found.found == "left_forearm_roll is 0.400 rad from its follower"
    other = dataclasses.replace(leader, names=tuple("abcdefg"))
    found = by_check(check_streams(dataclasses.replace(healthy, leaders={"left": other}), robot))["left leader"]
    assert found.level is Level.SKIP


def test_two_commanders_and_unreadable_messages_fail(healthy, robot):
    heard = dataclasses.replace(healthy, commanders={"c": ("executor", "other")}, complaints=("bad encoding",))
    found = by_check(check_streams(heard, robot))
    assert "c has 2 publishers: executor, other" in found["one commander"].found
    assert found["messages"].found == "bad encoding"
