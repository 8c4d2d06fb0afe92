# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that were cut, flipped, mixed up or made with bad intent: refused by name, and nothing runs."""

import json
import pickle
import shutil
import struct

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from imagewam_ros.core.errors import CheckpointError, ConfigError, ImageWamError
from imagewam_ros.model.checkpoint import load_checkpoint, load_weights, read_config, save_checkpoint


@pytest.fixture(scope="module")
def saved(small_model, contract, statistics, tmp_path_factory):
    directory = tmp_path_factory.mktemp("faults") / "policy"
    save_checkpoint(directory, small_model, contract, statistics)
    return directory


@pytest.fixture
def copy(saved, tmp_path):
    """A checkpoint to spoil; its encoders, which are large and stay whole, are links."""
    folder = tmp_path / "policy"
    folder.mkdir()
    for path in saved.iterdir():
        if path.is_dir():
            (folder / path.name).symlink_to(path)
        else:
            shutil.copy(path, folder)
    return folder


def change(path, *keys, value):
    """Set data[keys[0]][keys[1]]... of a JSON file."""
    data = json.loads(path.read_text())
    place = data
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    path.write_text(json.dumps(data))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_weights_cut_anywhere_are_refused(saved, small_model, tmp_path_factory, data):
    content = (saved / "model.safetensors").read_bytes()
    path = tmp_path_factory.mktemp("cut") / "model.safetensors"
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a readable .* copy it again"):
        load_weights(small_model.network, path, torch.device("cpu"), torch.float32)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_config_cut_anywhere_is_refused(saved, tmp_path_factory, data):
    text = (saved / "config.json").read_text().rstrip()
    folder = tmp_path_factory.mktemp("cut")
    (folder / "config.json").write_text(text[: data.draw(st.integers(0, len(text) - 1))])
    with pytest.raises(CheckpointError, match=r"config\.json is not valid JSON"):
        read_config(folder)


def test_a_header_that_claims_a_huge_size_is_refused(copy):
    path = copy / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 2**60) + path.read_bytes()[8:])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a readable safetensors file"):
        load_checkpoint(copy)


class Payload:
    def __reduce__(self):
        return (open, ("executed", "w"))


@pytest.mark.parametrize("write", [pickle.dumps, None], ids=["pickle", "torch"])
def test_pickled_code_in_place_of_weights_never_runs(copy, write, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    if write is None:
        torch.save({"w": Payload()}, copy / "model.safetensors")
    else:
        (copy / "model.safetensors").write_bytes(write(Payload()))
    with pytest.raises(CheckpointError, match="is not a readable safetensors file"):
        load_checkpoint(copy)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("variant", ["omnigen2", "ovis_u1"])
def test_the_weights_of_another_variant_are_refused(copy, variant):
    """The numbers of another backbone do not even read; with its own defaults the weights do not fit."""
    change(copy / "config.json", "model", "variant", value=variant)
    with pytest.raises(ConfigError, match=r"config\.json: model\.network: unknown key"):
        load_checkpoint(copy)
    change(copy / "config.json", "model", "network", value={})
    change(copy / "config.json", "model", "text", value={})
    with pytest.raises(ImageWamError):
        load_checkpoint(copy)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("single", 3, r"missing video\.single_blocks\.2\.\S+"),
        ("single", 1, r"unexpected video\.single_blocks\.1\.\S+"),
        ("text_dim", 32, r"video\.txt_in\.weight is \[32, 24\], expected \[32, 32\]"),
        ("action_dim", 7, r"action\.action_encoder\.weight is \[16, 14\], expected \[16, 7\]"),
        ("proprio_dim", 16, r"proprio_encoder\.weight is \[24, 14\], expected \[24, 16\]"),
        ("action_hidden", 24, r"action\.action_encoder\.weight is \[16, 14\], expected \[24, 14\]"),
        ("channels", 32, r"video\.img_in\.weight is \[32, 16\], expected \[32, 32\]"),
    ],
)
def test_wrong_dimensions_name_the_key_and_both_shapes(copy, key, value, message):
    change(copy / "config.json", "model", "network", key, value=value)
    with pytest.raises(CheckpointError, match=rf"does not fit the model: .*{message}.*Was it made for another variant"):
        load_checkpoint(copy)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("contract", "horizon"), 0, "contract: period_ns, horizon and text_length must be positive"),
        (("contract", "horizon"), "six", "contract: horizon: expected int, found 'six'"),
        (("contract", "prompt"), "do it", r"contract: prompt must hold \{task\}, found 'do it'"),
        (("contract", "normalisation"), "log", "normalisation must be one of zscore, minmax, quantile, found 'log'"),
        (("contract", "mosaic", "height"), 30, "mosaic: mosaic must be a multiple of 16 in both sizes, found 30x64"),
        (("contract", "denoising", "steps"), 0, "denoising: denoising needs steps >= 1 and shift > 0, found 0"),
        (("contract", "denoising", "time_grid"), "int8", "time_grid must be one of float32, bfloat16, found 'int8'"),
        (("contract", "extra"), 1, "contract: unknown key 'extra'"),
        (("model", "network", "heads"), 3, "hidden 32 must be heads 3 times the sum of axes"),
        (("model", "text", "layers"), [], "text layers count from 1 and at least one is read"),
    ],
)
def test_config_that_contradicts_itself_names_file_and_key(copy, keys, value, message):
    change(copy / "config.json", *keys, value=value)
    with pytest.raises(ConfigError, match=rf"config\.json: .*{message}"):
        load_checkpoint(copy)


def test_vectors_of_different_lengths_are_named(copy):
    pose = {"side": "left", "pose": {"rotation": "xyzw"}}
    for key in ("state", "action"):
        change(copy / "config.json", "contract", key, value=[pose])
    relative = json.loads((copy / "config.json").read_text())["contract"]["relative"]
    change(copy / "config.json", "contract", "relative", value=[False] * len(relative))
    message = "state has 14 numbers in model.safetensors, 7 in the contract of config.json and 14 in stats.json; was it"
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(copy)


@pytest.mark.parametrize("schema", [0, 2, "1", None])
def test_other_schemas_are_refused(copy, schema):
    change(copy / "config.json", "schema", value=schema)
    with pytest.raises(CheckpointError, match=f"has schema {schema!r}, this version reads 1; update the package"):
        read_config(copy)


def test_one_flipped_number_of_the_statistics_is_noticed(copy):
    data = json.loads((copy / "stats.json").read_text())
    data["action"]["std"][3] *= 1 + 1e-9
    (copy / "stats.json").write_text(json.dumps(data))
    with pytest.raises(CheckpointError, match=r"stats\.json is not the file that .*hash .*; copy the whole checkpoint"):
        load_checkpoint(copy)


def test_statistics_may_be_written_in_another_order(copy, saved):
    data = json.loads((copy / "stats.json").read_text())
    (copy / "stats.json").write_text(json.dumps(dict(reversed(data.items())), indent=3))
    found, wanted = load_checkpoint(copy).statistics, load_checkpoint(saved).statistics
    assert all(found[name].to_dict() == wanted[name].to_dict() for name in wanted)


def test_keys_may_be_stored_in_any_order(copy, saved):
    state = load_file(copy / "model.safetensors")
    save_file(dict(reversed(state.items())), copy / "model.safetensors")
    first, second = (load_checkpoint(folder).model.network.state_dict() for folder in (copy, saved))
    assert all(torch.equal(first[name], second[name]) for name in second)


def test_a_swapped_half_is_two_named_faults(copy):
    """All expert keys under the backbone's prefix: as many missing as unexpected."""
    state = load_file(copy / "model.safetensors")
    renamed = {name.replace("action.", "actions.", 1): tensor for name, tensor in state.items()}
    save_file(renamed, copy / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(copy)
    expert = sum(name.startswith("action.") for name in state)
    assert str(caught.value).count("missing action.") == str(caught.value).count("unexpected actions.") == expert


def test_a_failed_load_leaves_the_directory_as_it_was(copy):
    before = {path.name: path.stat().st_mtime_ns for path in copy.iterdir()}
    change(copy / "config.json", "schema", value=9)
    with pytest.raises(CheckpointError):
        load_checkpoint(copy)
    after = {path.name: path.stat().st_mtime_ns for path in copy.iterdir()}
    assert {name for name in after if after[name] != before.get(name)} == {"config.json"}


def test_a_save_that_was_cut_off_can_be_repeated(small_model, contract, statistics, tmp_path):
    """config.json is written last, so a directory without it is no checkpoint yet."""
    save_checkpoint(tmp_path / "p", small_model, contract, statistics)
    (tmp_path / "p" / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no such file: .*config\.json; expected a checkpoint directory"):
        load_checkpoint(tmp_path / "p")
    save_checkpoint(tmp_path / "p", small_model, contract, statistics)
    assert load_checkpoint(tmp_path / "p").contract.joint_names == contract.joint_names
    assert not list((tmp_path / "p").glob("*.part"))
