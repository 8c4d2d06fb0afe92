# SPDX-License-Identifier: Apache-2.0
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from imagewam_ros.core.errors import CheckpointError, ConfigError
from imagewam_ros.model import flow
from imagewam_ros.model.checkpoint import load_checkpoint, read_config, save_checkpoint

IMAGE = torch.linspace(-1, 1, 3 * 32 * 64).reshape(1, 3, 32, 64)


@pytest.fixture(scope="module")
def saved(small_model, contract, statistics, tmp_path_factory):
    directory = tmp_path_factory.mktemp("checkpoint") / "policy"
    save_checkpoint(directory, small_model, contract, statistics)
    return directory


@pytest.fixture
def copy(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "policy")
    return tmp_path / "policy"


def chunk(model, contract):
    plan = model.plan(contract.denoising)
    cache = model.prefill(IMAGE, torch.ones(1, 14), model.encode_instruction("lift the tray"), plan)
    return model.denoise(flow.action_noise(0, model.horizon, 14), cache, plan)


def test_loaded_model_gives_the_same_chunk(saved, small_model, contract, statistics):
    loaded = load_checkpoint(saved)
    assert loaded.contract.joint_names == contract.joint_names
    assert loaded.contract.statistics_hash and not contract.statistics_hash
    assert loaded.statistics["action"].to_dict() == statistics["action"].to_dict()
    assert torch.allclose(chunk(loaded.model, contract), chunk(small_model, contract), atol=1e-5)


def test_half_precision_on_disk_is_small_and_close(small_model, contract, statistics, saved, tmp_path):
    save_checkpoint(tmp_path / "half", small_model, contract, statistics, torch.float16)
    size = (tmp_path / "half" / "model.safetensors").stat().st_size
    assert size < 0.6 * (saved / "model.safetensors").stat().st_size
    loaded = load_checkpoint(tmp_path / "half")
    assert loaded.model.dtype == torch.float32
    assert (chunk(loaded.model, contract) - chunk(small_model, contract)).abs().max() < 0.05


def test_bfloat16_runs(saved, contract):
    loaded = load_checkpoint(saved, dtype=torch.bfloat16)
    assert loaded.model.dtype == torch.bfloat16
    assert chunk(loaded.model, contract).isfinite().all()


def test_preview_is_an_image(small_model, contract):
    instruction = small_model.encode_instruction("lift the tray")
    found = small_model.preview(IMAGE, torch.ones(1, 14), instruction, 7, contract.denoising)
    assert found.shape == IMAGE.shape and found.abs().max() <= 1


def test_encoders_are_not_parameters(small_model):
    assert all(name.startswith("network.") for name in small_model.state_dict())


def test_existing_checkpoint_is_not_overwritten(saved, small_model, contract, statistics):
    with pytest.raises(CheckpointError, match="holds a checkpoint already; choose another directory"):
        save_checkpoint(saved, small_model, contract, statistics)


def edit(path, **changes):
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, **changes}))


def test_other_schema_is_refused(copy):
    edit(copy / "config.json", schema=7)
    with pytest.raises(CheckpointError, match="has schema 7, this version reads 1; update the package"):
        read_config(copy)


def test_config_without_parts_is_refused(copy):
    (copy / "config.json").write_text('{"schema": 1, "model": {}}')
    with pytest.raises(CheckpointError, match="lacks contract"):
        read_config(copy)
    data = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**data, "contract": {}}))
    with pytest.raises(CheckpointError, match="model lacks 'variant'"):
        read_config(copy)


def test_unknown_variant_and_key_name_the_nearest(copy):
    model = json.loads((copy / "config.json").read_text())["model"]
    edit(copy / "config.json", model={**model, "variant": "flux"})
    with pytest.raises(CheckpointError, match="unknown variant 'flux'; did you mean 'flux2'"):
        read_config(copy)
    edit(copy / "config.json", model={**model, "network": {**model["network"], "hiden": 3}})
    with pytest.raises(ConfigError, match="unknown key 'hiden'; did you mean 'hidden'"):
        read_config(copy)


def test_every_wrong_key_is_named(copy):
    state = load_file(copy / "model.safetensors")
    state["extra"] = state.pop("video.img_in.weight")
    state["proprio_encoder.bias"] = state["proprio_encoder.bias"][:5].clone()
    save_file(state, copy / "model.safetensors")
    message = r"missing video\.img_in\.weight; unexpected extra; proprio_encoder\.bias is \[5\], expected \[24\]"
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(copy)


def test_other_statistics_are_refused(copy):
    data = json.loads((copy / "stats.json").read_text())
    data["state"]["mean"][0] += 1
    (copy / "stats.json").write_text(json.dumps(data))
    with pytest.raises(CheckpointError, match="is not the file that .* was written with"):
        load_checkpoint(copy)
    (copy / "stats.json").write_text('{"state": {}}')
    with pytest.raises(CheckpointError, match="lacks action"):
        load_checkpoint(copy)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.json", "no such file: .*config.json; expected a checkpoint directory"),
        ("model.safetensors", "no such file: .*the checkpoint is incomplete"),
        ("autoencoder/config.json", "no autoencoder in .*expected a diffusers directory"),
        ("autoencoder/diffusion_pytorch_model.safetensors", "cannot load the autoencoder in"),
        ("text_encoder/config.json", "no text encoder in"),
        ("text_encoder/model.safetensors", "cannot load the text encoder in"),
    ],
)
def test_missing_file_is_named(copy, name, message):
    (copy / name).unlink()
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(copy)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "stats.json"])
def test_truncated_file_is_named(copy, name):
    (copy / name).write_bytes((copy / name).read_bytes()[:100])
    with pytest.raises(CheckpointError, match=f"{name} is not (valid JSON|a readable safetensors file)"):
        load_checkpoint(copy)


def test_json_list_is_refused(copy):
    (copy / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="holds list, expected an object"):
        load_checkpoint(copy)


def test_text_encoder_with_too_few_layers_is_refused(copy):
    model = json.loads((copy / "config.json").read_text())["model"]
    edit(copy / "config.json", model={**model, "text": {"layers": [5]}})
    with pytest.raises(CheckpointError, match="has 2 layers, layer 5 is read"):
        load_checkpoint(copy)
