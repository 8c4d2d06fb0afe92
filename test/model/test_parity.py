# SPDX-License-Identifier: Apache-2.0
import argparse
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from imagewam_ros.core.errors import CheckpointError
from imagewam_ros.model import parity


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
