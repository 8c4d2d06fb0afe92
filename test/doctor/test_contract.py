# SPDX-License-Identifier: Apache-2.0
"""The contract against the robot."""

import dataclasses
import json

import pytest

from imagewam_ros.core.errors import CheckpointError
from imagewam_ros.core.spaces import GripperScale, Part, PoseFormat
from imagewam_ros.core.stats import Statistics
from imagewam_ros.doctor_checks.contract import check_contract, read_promise
from imagewam_ros.doctor_checks.finding import Level


def by_check(findings):
    return {finding.check: finding for finding in findings}


def write(promise, folder):
    config = {"schema": 1, "contract": promise.contract.to_dict(), "model": {}}
    (folder / "config.json").write_text(json.dumps(config))
    stats = {key: value.to_dict() for key, value in promise.statistics.items()}
    (folder / "stats.json").write_text(json.dumps(stats))


def test_a_fitting_checkpoint_passes_and_is_read_from_disk(promise, robot, tmp_path):
    write(promise, tmp_path)
    found = read_promise(tmp_path)
    assert found.contract == promise.contract
    assert {finding.level for finding in check_contract(found, robot)} == {Level.PASS}


def test_two_swapped_joints_are_caught(promise, robot, swap_joints):
    found = by_check(check_contract(promise, swap_joints(robot, 1, 2)))["joint order"]
    assert found.level is Level.FAIL
    assert "[1] left_shoulder, robot left_elbow, [2] left_elbow, robot left_shoulder" in found.found


def test_other_joints_and_units_are_named(promise, robot):
    names = ("l0", *robot.joint_names[1:])
    units = ("m", *promise.contract.joint_units[1:])
    other = promise._replace(contract=dataclasses.replace(promise.contract, joint_names=names))
    assert (
        "contract lacks ['left_waist'], robot lacks ['l0']"
        in by_check(check_contract(other, robot))["joint names"].found
    )
    other = promise._replace(contract=dataclasses.replace(promise.contract, joint_units=units))
    assert "left_waist in m, robot rad" in by_check(check_contract(other, robot))["units"].found


def test_data_in_degrees_is_recognised(promise, robot):
    state = promise.statistics["state"]
    degrees = Statistics(**{name: getattr(state, name) * 57.3 for name in state.__dataclass_fields__})
    found = by_check(check_contract(promise._replace(statistics={"state": degrees}), robot))["training data"]
    assert found.level is Level.FAIL
    assert "looks like degrees" in found.found


def test_missing_extra_small_and_slow_cameras_are_named(promise, robot):
    fewer = dataclasses.replace(robot, cameras=robot.cameras[:2])
    assert by_check(check_contract(promise, fewer))["cameras"].found == "contract lacks none, robot lacks right_wrist"
    poor = dataclasses.replace(robot.cameras[0], width=32, rate_hz=10)
    found = by_check(check_contract(promise, dataclasses.replace(robot, cameras=(poor, *robot.cameras[1:]))))
    assert "head 32x128 for a tile of 64x64" in found["camera sizes"].found
    assert "slower than the contract's 20 Hz: head 10 Hz" in found["camera rates"].found


def test_half_a_checkpoint_is_refused(promise, tmp_path):
    write(promise, tmp_path)
    (tmp_path / "stats.json").unlink()
    with pytest.raises(CheckpointError, match="is not a whole checkpoint"):
        read_promise(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="train or copy it again"):
        read_promise(tmp_path)


def test_vectors_of_one_arm_are_named_and_its_joints_and_cameras_suffice(promise, robot, contract):
    pose, opening = Part("left", pose=PoseFormat("wxyz")), Part("left", gripper=GripperScale((0.0,), (1.0,), 0, 0.04))
    one_arm = dataclasses.replace(
        contract,
        joint_names=robot.joint_names[:7],
        joint_units=contract.joint_units[:7],
        relative=(False,) * 7,
        mosaic=dataclasses.replace(contract.mosaic, tiles=contract.mosaic.tiles[:2]),
        state=(pose, opening),
        action=(pose, opening),
    )
    found = by_check(check_contract(promise._replace(contract=one_arm), robot))
    assert {finding.level for finding in found.values()} == {Level.PASS}
    assert "action left_x, left_y, left_z, left_qw," in found["vectors"].found
    fewer = dataclasses.replace(robot, cameras=robot.cameras[1:])
    found = by_check(check_contract(promise._replace(contract=one_arm), fewer))["cameras"]
    assert found.level is Level.FAIL and found.found.endswith("robot lacks head")
