# SPDX-License-Identifier: Apache-2.0
"""Disk, shared memory, middleware settings, scheduling, clock."""

import dataclasses

import pytest

from imagewam_ros.core.paths import share_dir
from imagewam_ros.doctor_checks import machine
from imagewam_ros.doctor_checks.finding import Level

MB = 1_000_000
LOCAL = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


def by_check(findings):
    return {finding.check: finding for finding in findings}


def vga(robot):
    cameras = tuple(dataclasses.replace(c, width=640, height=480, rate_hz=30) for c in robot.cameras)
    return dataclasses.replace(robot, cameras=cameras)


def settings(environment, robot, receive_buffer=0):
    return by_check(machine.check_middleware({**LOCAL, **environment}, robot, receive_buffer))


def test_this_computer_can_be_looked_at(robot, tmp_path):
    findings = [
        *machine.check_disk(tmp_path, robot),
        *machine.check_shared_memory(*machine.shared_memory(tmp_path), cameras=3),
        *machine.check_scheduling(machine.governors(), machine.real_time_priority()),
        *machine.check_clock(machine.clock_state()),
    ]
    assert len(findings) >= 4
    assert machine.receive_buffer() >= 0


def test_a_disk_is_judged_by_the_minutes_it_lasts(robot, tmp_path):
    huge = dataclasses.replace(vga(robot), cameras=tuple(dataclasses.replace(c, rate_hz=1e9) for c in robot.cameras))
    found = by_check(machine.check_disk(tmp_path, huge))["disk"]
    assert found.level is Level.FAIL
    assert "0 min of raw images" in found.found


def test_dockers_default_of_shared_memory_is_enough_for_one_cell_and_too_little_when_littered(robot):
    assert by_check(machine.check_shared_memory(64 * MB, 64 * MB, 0, 3))["shared memory"].level is Level.PASS
    found = by_check(machine.check_shared_memory(64 * MB, 20 * MB, 0, 3))["shared memory"]
    assert found.level is Level.FAIL
    assert "--shm-size" in found.remedy
    found = by_check(machine.check_shared_memory(64 * MB, 20 * MB, 44 * MB, 3))
    assert found["shared memory"].level is Level.PASS
    assert "44 MB of Fast DDS segments" in found["stale segments"].found


def test_segments_in_shared_memory_are_counted(tmp_path):
    (tmp_path / "fastrtps_1234").write_bytes(b"0" * 1000)
    (tmp_path / "other").write_bytes(b"0" * 1000)
    assert machine.shared_memory(tmp_path)[2] == 1000


@pytest.mark.parametrize(
    ("environment", "level"),
    [
        ({}, Level.WARN),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}, Level.PASS),
        ({"ROS_LOCALHOST_ONLY": "1"}, Level.PASS),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF"}, Level.FAIL),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "local"}, Level.FAIL),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", "ROS_DISTRO": "humble"}, Level.WARN),
        ({"ROS_LOCALHOST_ONLY": "1", "ROS_DISTRO": "humble"}, Level.PASS),
    ],
)
def test_discovery_beyond_this_computer_is_pointed_out(robot, environment, level):
    assert by_check(machine.check_middleware(environment, robot, 0))["discovery"].level is level


def test_large_frames_need_a_fast_dds_profile(robot, tmp_path):
    assert settings({}, robot)["middleware"].level is Level.PASS
    found = settings({}, vga(robot))["middleware"]
    assert found.level is Level.WARN
    assert "default 512 KB" in found.found
    profile = tmp_path / "shm.xml"
    absent = settings({"FASTDDS_DEFAULT_PROFILES_FILE": str(profile)}, vga(robot))["middleware"]
    assert absent.level is Level.FAIL
    profile.touch()
    assert settings({"FASTDDS_DEFAULT_PROFILES_FILE": str(profile)}, vga(robot))["middleware"].level is Level.PASS
    small, large = (str(share_dir() / "fastdds" / name) for name in ("local.xml", "local_shm8.xml"))
    assert settings({"FASTDDS_DEFAULT_PROFILES_FILE": small}, vga(robot))["middleware"].level is Level.WARN
    assert settings({"FASTDDS_DEFAULT_PROFILES_FILE": large}, vga(robot))["middleware"].level is Level.PASS


@pytest.mark.parametrize(
    ("environment", "said"),
    [({}, True), ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}, False), ({"ROS_DISTRO": "humble"}, False)],
)
def test_a_fresh_terminal_is_told_that_our_own_processes_stay_here(robot, environment, said):
    found = by_check(machine.check_middleware(environment, robot, 0))["discovery"].found
    assert ("imagewam up and the launch file keep theirs on this computer" in found) is said


def test_who_knows_the_address_of_a_process_without_a_profile_is_named(robot):
    assert "until their profile is fastdds/local.xml" in settings(LOCAL, robot)["discovery"].found
    bound = LOCAL | {"FASTDDS_DEFAULT_PROFILES_FILE": str(share_dir() / "fastdds" / "local.xml")}
    assert settings(bound, robot)["discovery"].found == "nobody is looked for on other computers"


def test_cyclone_needs_buffers_and_zenoh_a_router(robot):
    cyclone = {"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"}
    assert "rmem_max" in settings(cyclone, vga(robot), 212_992)["middleware"].remedy
    assert settings(cyclone, vga(robot), 2**31 - 1)["middleware"].level is Level.PASS
    assert "rmw_zenohd" in settings({"RMW_IMPLEMENTATION": "rmw_zenoh_cpp"}, robot)["middleware"].remedy


@pytest.mark.parametrize(
    ("domain", "level"), [("", Level.PASS), ("7", Level.PASS), ("200", Level.FAIL), ("x", Level.FAIL)]
)
def test_the_domain_is_a_small_number(robot, domain, level):
    assert settings({"ROS_DOMAIN_ID": domain}, robot)["ROS domain"].level is level


def test_power_saving_and_missing_priority_are_pointed_out(tmp_path):
    governor = tmp_path / "cpu0" / "cpufreq" / "scaling_governor"
    governor.parent.mkdir(parents=True)
    governor.write_text("powersave\n")
    found = by_check(machine.check_scheduling(machine.governors(tmp_path), 0))
    assert found["CPU governor"].level is Level.WARN
    assert "limits.conf" in found["real-time priority"].remedy


def test_a_free_running_clock_is_pointed_out():
    assert by_check(machine.check_clock(5))["clock"].level is Level.WARN
    assert by_check(machine.check_clock(0))["clock"].level is Level.PASS
