# SPDX-License-Identifier: Apache-2.0
"""`imagewam doctor` as a user calls it, with no graph running."""

import json

import pytest
import yaml

pytest.importorskip("xacro", reason="needs xacro")

from imagewam_ros.cli import main
from imagewam_ros.core.paths import share_dir


@pytest.fixture
def robot_yaml(tmp_path):
    """Path of a copy of the shipped robot YAML after an edit."""

    def write(edit):
        data = yaml.safe_load((share_dir() / "config" / "robots" / "sim_cell.yaml").read_text())
        edit(data)
        path = tmp_path / "robot.yaml"
        path.write_text(yaml.safe_dump(data))
        return str(path)

    return write


def doctor(capsys, *arguments):
    code = main(["doctor", "--live", "never", "--policy", "none", *arguments])
    return code, capsys.readouterr().out


def test_the_shipped_robot_passes_on_one_page(capsys):
    code, out = doctor(capsys)
    assert code == 0
    assert "PASS URDF limits" in out
    assert "SKIP live" in out
    assert len(out.splitlines()) < 50


def test_two_swapped_joint_names_fail(capsys, robot_yaml):
    def swap(data):
        joints = data["arms"][0]["joints"]
        joints[1]["name"], joints[2]["name"] = joints[2]["name"], joints[1]["name"]

    code, out = doctor(capsys, "--robot", robot_yaml(swap))
    assert code == 1
    assert "FAIL URDF order" in out
    assert "[1] left_elbow should be left_shoulder" in out


def test_json_is_one_object(capsys, robot_yaml):
    def widen(data):
        data["arms"][1]["joints"][0]["upper"] = 9.0

    code, out = doctor(capsys, "--json", "--robot", robot_yaml(widen))
    data = json.loads(out)
    assert (code, data["level"]) == (1, "fail")
    failed = [finding for finding in data["findings"] if finding["level"] == "fail"]
    assert failed[0]["check"] == "URDF limits"
    assert "right_waist upper 9, URDF 2.6" in failed[0]["found"]
    assert failed[0]["remedy"]


def test_a_checkpoint_that_is_not_there_fails_only_when_asked_for(capsys, tmp_path):
    code, out = doctor(capsys, "--policy", str(tmp_path / "absent"))
    assert code == 1
    assert "no checkpoint directory" in out


def test_absurd_arguments_are_refused(capsys):
    assert main(["doctor", "--seconds", "0"]) == 2
    assert "seconds must be positive and folder exist" in capsys.readouterr().err
