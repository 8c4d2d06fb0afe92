# SPDX-License-Identifier: Apache-2.0
import argparse
import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from imagewam_ros.core.errors import CheckpointError
from imagewam_ros.model import parity
from imagewam_ros.model.reference import match
from imagewam_ros.model.reference_flux2 import Flux2Reference
from imagewam_ros.model.reference_omnigen2 import OmniGen2Reference


def run(*words):
    parser = argparse.ArgumentParser()
    parity.add_arguments(parser)
    return parity.run(parser.parse_args([str(word) for word in words]))


@pytest.fixture
def copy(data, tmp_path):
    target = tmp_path / "flux2_tiny"
    shutil.copytree(data / "flux2_tiny", target)
    return target


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("flux2_tiny", "42 compared (0 outside), 17 inputs, 0 unknown: PASS"),
        ("ovis_u1_tiny", "59 compared (0 outside), 20 inputs, 0 unknown: PASS"),
        ("omnigen2_tiny", "81 compared (0 outside), 20 inputs, 0 unknown: PASS"),
        ("ovis_cond_tiny", "10 compared (0 outside), 3 inputs, 0 unknown: PASS"),
    ],
)
def test_network_agrees_with_the_authors(data, name, counts, capsys):
    assert run(data / name) == 0
    assert counts in capsys.readouterr().out


def test_json_has_every_row(data, capsys):
    assert run(data / "flux2_tiny", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    names = set(load_file(data / "flux2_tiny" / "expected.safetensors"))
    assert {row["name"] for row in report["rows"]} | set(report["inputs"]) == names
    assert report["passed"] and all(row["passed"] for row in report["rows"])


def test_changed_tensor_is_a_mismatch(copy, capsys):
    tensors = load_file(copy / "expected.safetensors")
    tensors["prefix_v"][0, 0, 0, 0] += 0.1
    tensors["actions_steps4_shiftdefault"] = tensors["actions_steps4_shiftdefault"][:, :4].contiguous()
    save_file(tensors, copy / "expected.safetensors")
    assert run(copy) == 1
    assert "2 outside" in capsys.readouterr().out


def test_unknown_tensor_fails(copy, capsys):
    tensors = load_file(copy / "expected.safetensors")
    save_file({**tensors, "mystery": torch.zeros(1)}, copy / "expected.safetensors")
    assert run(copy) == 1
    assert "unknown tensor mystery" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["expected.safetensors", "checkpoint.pt", "ae.safetensors"])
def test_truncated_file_is_unreadable(copy, name, capsys):
    (copy / name).write_bytes((copy / name).read_bytes()[:1000])
    assert run(copy) == 2
    assert name in capsys.readouterr().err


@pytest.mark.parametrize("name", ["config.json", "expected.safetensors", "checkpoint.pt"])
def test_missing_file_is_unreadable(copy, name, capsys):
    (copy / name).unlink()
    assert run(copy) == 2
    assert "no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "rounded"),
    [
        ("flux2_tiny", {"grad_action_linear1_weight", "grad_double_img_qkv_weight"}),
        ("omnigen2_tiny", {"altpack_actions_steps10_shiftdefault"}),
        ("ovis_u1_tiny", set()),
    ],
)
def test_beyond_what_is_asked_the_stored_tensor_is_too(data, name, rounded):
    """Everything is within 1e-5 and 1e-6 but what the reference itself has rounded farther away from float64."""
    report = parity.run_parity(data / name)
    beyond = {row.name: row for row in report.rows if row.relative > row.tolerance}
    assert set(beyond) <= rounded and report.passed
    for row in beyond.values():
        assert row.theirs > row.tolerance and row.relative <= 2 * row.tolerance
    assert {row.tolerance for row in report.rows} <= {0.0, 1e-6, 1e-5, 1.5}


def test_float64_judges_every_tensor_when_asked(data, capsys):
    assert run(data / "flux2_tiny", "--float64", "--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert all((row["ours"] is None) == (row["tolerance"] in (0.0, 1.5)) for row in rows.values())
    assert rows["grad_action_linear1_weight"]["theirs"] == pytest.approx(2.09e-5, rel=0.02)
    assert rows["actions_steps10_shiftdefault"]["ours"] < 1e-6


def test_our_float64_is_as_near_as_the_references_rounding(data, capsys):
    """Only the two gradients whose stored values are themselves farther away are outside."""
    assert run(data / "flux2_tiny", "--dtype", "float64") == 1
    out = capsys.readouterr().out
    assert "42 compared (2 outside)" in out


def test_a_mistake_is_not_rounding():
    row = parity.Row("grad_x", (1,), 0.0, relative=1.9e-5, tolerance=1e-5)
    assert not row.passed and not replace(row, ours=1e-6, theirs=0.9e-5).passed
    assert replace(row, ours=1e-6, theirs=1.1e-5).passed
    assert not replace(row, ours=1e-9, theirs=0.5, relative=2.1e-5).passed


def test_other_hardware_allows_for_large_angles_alone(data):
    reference = OmniGen2Reference(data / "omnigen2_tiny", other_hardware=True)
    rules = reference.rules()
    names = ("joint_pred_video", "goal_image_steps4", "joint_loss_video", "actions_steps10_shiftdefault", "prefix_k")
    allowed = {name: match(name, rules)[0].tolerance for name in names}
    assert allowed["joint_pred_video"] == allowed["goal_image_steps4"] == allowed["joint_loss_video"] == 2e-2
    assert allowed["actions_steps10_shiftdefault"] == 1e-6 and allowed["prefix_k"] == 1e-5
    flux2 = Flux2Reference(data / "flux2_tiny", other_hardware=True)
    assert match("joint_pred_video", flux2.rules())[0].tolerance == 1e-5


def test_unknown_device_is_named(data, capsys):
    assert run(data / "flux2_tiny", "--device", "tpu") == 2
    assert "unknown device 'tpu'; use auto, cpu, cuda or cuda:N" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("{}", "names no variant"),
        ('{"variant": "flux3"}', "unknown variant 'flux3'; did you mean 'flux2'"),
        ('{"variant": "flux2"}', "lacks 'hidden'"),
    ],
)
def test_wrong_config_is_unreadable(copy, text, message, capsys):
    (copy / "config.json").write_text(text)
    assert run(copy) == 2
    assert message in capsys.readouterr().err


def test_other_dimensions_are_a_clear_refusal(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "single": 4}))
    with pytest.raises(CheckpointError, match=r"missing video\.single_blocks\.3\.linear1\.weight"):
        parity.run_parity(copy)
