# SPDX-License-Identifier: Apache-2.0
"""`imagewam import`: official checkpoints to our directory, exactly or not at all."""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from imagewam_ros import importer
from imagewam_ros.core.errors import CheckpointError, ConfigError
from imagewam_ros.importer import ImportOptions, import_checkpoint
from imagewam_ros.model import factory
from imagewam_ros.model.checkpoint import load_weights, read_config
from imagewam_ros.model.network import ImageWamNetwork
from imagewam_ros.model.official import load_official
from imagewam_ros.model.official_config import OfficialFacts, padded_dims, read_facts
from imagewam_ros.model.reference_flux2 import Flux2Reference

DATA = Path(__file__).parent / "data"
OPTIONS = ImportOptions("compact_288x256", 50_000_000, 1.0)
CONFIG = {
    "model": {"lora": None},
    "data": {
        "num_frames": 17,
        "context_len": 128,
        "shape_meta": {"action": [{"key": "default", "raw_shape": 14, "shape": 14}]},
        "processor": {"norm_default_mode": "z-score", "delta_action_dim_mask": None},
    },
}
KEYS = ("global_min", "global_max", "global_mean", "global_std", "global_q01", "global_q99")


def write_source(folder, checkpoint, config=CONFIG, dims=14, statistics=None):
    folder.mkdir(exist_ok=True)
    if isinstance(checkpoint, Path):
        shutil.copy(checkpoint, folder / "model.pt")
    else:
        torch.save(checkpoint, folder / "model.pt")
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    values = {key: (np.arange(dims) + i).tolist() for i, key in enumerate(KEYS)}
    both = {"state": {"default": values}, "action": {"default": values}}
    (folder / "dataset_stats.json").write_text(json.dumps(statistics(both) if statistics else both))
    return folder


@pytest.fixture
def source(tmp_path):
    return write_source(tmp_path / "official", DATA / "flux2_tiny" / "checkpoint.pt")


def network_of(directory) -> ImageWamNetwork:
    spec, _ = read_config(directory)
    network = factory.build_network(spec, "meta")
    load_weights(network, directory / "model.safetensors", torch.device("cpu"), torch.float32)
    return network.eval()


@pytest.mark.parametrize("variant", ["flux2", "ovis_u1", "omnigen2"])
def test_imported_network_is_the_official_one(variant, tmp_path):
    folder = write_source(tmp_path / "official", DATA / f"{variant}_tiny" / "checkpoint.pt")
    contract = import_checkpoint(folder, tmp_path / "out", OPTIONS)
    assert contract.variant == variant and contract.horizon == 16 and contract.normalisation == "zscore"
    assert contract.denoising.time_grid == "bfloat16" and contract.text_length == 128
    assert not read_config(tmp_path / "out")[0].prefix_at_zero, "the authors train at the target's time"
    network = network_of(tmp_path / "out")
    wanted = factory.build_network(read_config(tmp_path / "out")[0], "meta")
    load_official(wanted, DATA / f"{variant}_tiny" / "checkpoint.pt")
    for name, tensor in wanted.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor), name


def test_robot_gives_names_and_cameras(source, tmp_path):
    options = ImportOptions("compact_288x256", 50_000_000, 1.0, robot="sim_cell")
    contract = import_checkpoint(source, tmp_path / "out", options)
    assert contract.joint_names[6] == "left_gripper" and contract.joint_units[6] == "m"
    assert contract.camera_names == ("head", "left_wrist", "right_wrist")
    assert json.loads((tmp_path / "out" / "stats.json").read_text())["state"]["mean"] == list(range(2, 16))


def widened(checkpoint, dims=16):
    """The same checkpoint with 16 action and state dims."""
    mot, proprio = dict(checkpoint["mot"]), dict(checkpoint["proprio_encoder"])
    encoder, head = "mixtures.action.action_encoder.weight", "mixtures.action.head.linear.weight"
    mot[encoder] = torch.randn(mot[encoder].shape[0], dims) * 0.3
    mot[head] = torch.randn(dims, mot[head].shape[1]) * 0.3
    proprio["weight"] = torch.randn(proprio["weight"].shape[0], dims)
    return {**checkpoint, "mot": mot, "proprio_encoder": proprio}


@pytest.fixture(scope="module")
def checkpoint():
    return torch.load(DATA / "flux2_tiny" / "checkpoint.pt", weights_only=True)


def with_raw(dims):
    data = {**CONFIG["data"], "shape_meta": {"action": [{"key": "default", "raw_shape": dims}]}}
    return {**CONFIG, "data": data}


def test_padded_joints_are_taken_out_of_the_authors_actions(checkpoint, tmp_path):
    folder = write_source(tmp_path / "official", widened(checkpoint), with_raw(14), 16)
    contract = import_checkpoint(folder, tmp_path / "out", OPTIONS)
    assert len(contract.joint_names) == 14
    network = network_of(tmp_path / "out")
    assert network.config.padded_dims == (7, 15)
    noise = torch.randn(1, 8, 16)
    with_pads = network.with_padding(torch.ones(1, 14))
    assert with_pads[0, 7] == with_pads[0, 15] == 0 and with_pads.sum() == 14
    reference = Flux2Reference(DATA / "flux2_tiny")
    cache = network.prefill(reference.latents, reference.context, with_pads, 8)
    plan = network.plan(contract.denoising)
    found = network.denoise(noise, cache, plan)
    network.config = type(network.config)(**{**vars(network.config), "padded_dims": ()})
    whole = network.denoise(noise, network.prefill(reference.latents, reference.context, with_pads, 8), plan)
    assert torch.equal(found, torch.cat([whole[..., 0:7], whole[..., 8:15]], -1))
    assert json.loads((tmp_path / "out" / "stats.json").read_text())["state"]["mean"] == [
        i + 2 for i in range(16) if i not in (7, 15)
    ]


def test_end_effector_poses_are_never_unpadded(checkpoint, tmp_path):
    folder = write_source(tmp_path / "official", widened(checkpoint), with_raw(16), 16)
    contract = import_checkpoint(folder, tmp_path / "out", OPTIONS)
    assert len(contract.joint_names) == 16
    assert contract.joint_names[:8] == tuple(f"left_{p}" for p in ("x", "y", "z", "q0", "q1", "q2", "q3", "gripper"))
    assert network_of(tmp_path / "out").config.padded_dims == ()


def test_undecided_padding_is_refused_unless_said(checkpoint, tmp_path):
    config = {**CONFIG, "data": {**CONFIG["data"], "shape_meta": None}}
    folder = write_source(tmp_path / "official", widened(checkpoint), config, 16)
    with pytest.raises(CheckpointError, match="does not say whether the 16 action dims are 14 padded joints or two"):
        import_checkpoint(folder, tmp_path / "out", OPTIONS)
    assert not (tmp_path / "out").exists()
    assert padded_dims(16, OfficialFacts(raw_action_dim=14), Path()) == (7, 15)


def adapters(checkpoint, rank=4, alpha=8.0):
    """The checkpoint with one layer wrapped, and what it merges to."""
    generator = torch.Generator().manual_seed(0)
    name = "mixtures.video.transformer.single_blocks.0.linear1"
    mot = {k: v for k, v in checkpoint["mot"].items() if "mixtures.video.single_blocks.0.linear1" not in k}
    base = mot.pop(f"{name}.weight")
    down = torch.randn(rank, base.shape[1], generator=generator)
    up = torch.randn(base.shape[0], rank, generator=generator)
    mot |= {f"{name}.base.weight": base, f"{name}.lora_A": down, f"{name}.lora_B": up}
    return {**checkpoint, "mot": mot}, base + alpha / rank * up @ down


def test_lora_is_merged_with_its_alpha(checkpoint, tmp_path):
    content, wanted = adapters(checkpoint)
    folder = write_source(tmp_path / "official", content, {**CONFIG, "model": {"lora": {"lora_alpha": 8}}})
    import_checkpoint(folder, tmp_path / "out", OPTIONS)
    found = network_of(tmp_path / "out").video.single_blocks[0].linear1.weight
    assert torch.allclose(found, wanted, atol=1e-5)


def test_lora_without_alpha_or_part_is_refused(checkpoint, tmp_path):
    content, _ = adapters(checkpoint)
    folder = write_source(tmp_path / "official", content)
    with pytest.raises(CheckpointError, match="holds LoRA adapters but not their alpha; say it"):
        import_checkpoint(folder, tmp_path / "out", OPTIONS)
    content["mot"].pop("mixtures.video.transformer.single_blocks.0.linear1.lora_B")
    folder = write_source(tmp_path / "other", content)
    with pytest.raises(CheckpointError, match=r"adapter of .*linear1 lacks lora_B; save the whole model"):
        import_checkpoint(folder, tmp_path / "out", ImportOptions("compact_288x256", 1, 1.0, lora_alpha=8))


def per_embodiment(both):
    return {"type": "per_embodiment", "embodiments": {"aloha": both, "franka": both}}


def test_embodiment_must_be_chosen(tmp_path):
    checkpoint = DATA / "flux2_tiny" / "checkpoint.pt"
    folder = write_source(tmp_path / "official", checkpoint, statistics=per_embodiment)
    with pytest.raises(CheckpointError, match=r"per embodiment \(aloha, franka\); choose with --embodiment"):
        import_checkpoint(folder, tmp_path / "out", OPTIONS)
    with pytest.raises(CheckpointError, match="unknown embodiment 'alhoa'; did you mean 'aloha'"):
        import_checkpoint(folder, tmp_path / "out", ImportOptions("compact_288x256", 1, 1.0, embodiment="alhoa"))
    import_checkpoint(folder, tmp_path / "out", ImportOptions("compact_288x256", 1, 1.0, embodiment="aloha"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"processor": {"norm_default_mode": "zscore"}}, "unknown mode 'zscore'; did you mean 'z-score'"),
        ({"processor": {}}, "does not say normalisation; say it with --normalisation"),
        ({"val": {"num_frames": 33}}, "num_frames says 17 and 33; keep one of them"),
        (
            {"processor": {"norm_default_mode": "z-score", "delta_action_dim_mask": {"default": [True, False]}}},
            "trains relative actions",
        ),
    ],
)
def test_configuration_that_does_not_decide_is_refused(tmp_path, change, message):
    config = {**CONFIG, "data": {**CONFIG["data"], **change}}
    folder = write_source(tmp_path / "official", DATA / "flux2_tiny" / "checkpoint.pt", config)
    with pytest.raises(CheckpointError, match=message):
        import_checkpoint(folder, tmp_path / "out", OPTIONS)
    assert list(tmp_path.iterdir()) == [folder]


def test_statistics_must_be_whole(source, tmp_path):
    for text, message in [
        ("[]", "holds list, expected an object"),
        ("{", "is not valid JSON"),
        ('{"state": {}}', "state needs one field such as 'default', found"),
        ('{"state": {"default": {"global_mean": [1]}}}', "state lacks global_std"),
    ]:
        (source / "dataset_stats.json").write_text(text)
        with pytest.raises(CheckpointError, match=message):
            import_checkpoint(source, tmp_path / "out", OPTIONS)
    (source / "dataset_stats.json").unlink()
    with pytest.raises(CheckpointError, match="it belongs beside model.pt"):
        import_checkpoint(source, tmp_path / "out", OPTIONS)


def test_other_robot_layout_and_place_are_refused(source, tmp_path):
    with pytest.raises(ConfigError, match="unknown layout 'compact'; did you mean 'compact_288x256'"):
        import_checkpoint(source, tmp_path / "out", ImportOptions("compact", 1, 1.0))
    (tmp_path / "out").mkdir()
    with pytest.raises(CheckpointError, match="exists already; choose another directory"):
        import_checkpoint(source, tmp_path / "out", OPTIONS)


def test_robot_with_other_joints_is_refused(checkpoint, tmp_path):
    folder = write_source(tmp_path / "official", widened(checkpoint), with_raw(16), 16)
    with pytest.raises(ConfigError, match="the checkpoint has 16 action dims, robot 'sim_cell' 14 joints"):
        import_checkpoint(folder, tmp_path / "out", ImportOptions("compact_288x256", 1, 1.0, robot="sim_cell"))


def test_encoders_are_copied_or_refused_whole(source, tmp_path):
    pipeline = tmp_path / "pipeline"
    for name in ("vae", "text_encoder"):
        (pipeline / name).mkdir(parents=True)
        (pipeline / name / "config.json").write_text("{}")
    options = ImportOptions("compact_288x256", 1, 1.0, encoders=pipeline)
    with pytest.raises(CheckpointError, match="no tokenizer/ in"):
        import_checkpoint(source, tmp_path / "out", options)
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.part").exists()
    (pipeline / "tokenizer").mkdir()
    import_checkpoint(source, tmp_path / "out", options)
    assert (tmp_path / "out" / "autoencoder" / "config.json").is_file()


def run(*words):
    parser = argparse.ArgumentParser()
    importer.add_arguments(parser)
    common = ["--layout", "compact_288x256", "--period-ms", "50", "--first-row-offset", "1"]
    return importer.run(parser.parse_args([*map(str, words), *common]))


def test_command_says_what_it_made(source, tmp_path, capsys):
    assert run(source, tmp_path / "out", "--robot", "sim_cell") == 0
    out = capsys.readouterr().out
    assert "flux2, 14 action dims, contract" in out and "licence of the weights:" in out
    assert "--encoders copies them" in out


def test_command_refuses_an_unpinned_hub_id(tmp_path, capsys):
    assert run("owner/name@main", tmp_path / "out") == 2
    assert "names no pinned revision; add @ and the 40 hex digits" in capsys.readouterr().err


@pytest.mark.parametrize(("width", "words"), [(3072, "Apache-2.0"), (4096, "non-commercial"), (7, "see the weights")])
def test_licence_follows_the_backbone(width, words, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model": {"variant": "flux2", "network": {"hidden": width}}}))
    assert words in importer.licence(tmp_path)


def test_facts_are_found_wherever_they_lie(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump([{"a": 1}]))
    with pytest.raises(ConfigError, match="expected a mapping"):
        read_facts(tmp_path / "config.yaml")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"a": [{"b": {"num_frames": 9}}]}))
    assert read_facts(tmp_path / "config.yaml") == OfficialFacts(horizon=8)
