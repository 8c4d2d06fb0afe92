# SPDX-License-Identifier: Apache-2.0
"""`imagewam import`: official checkpoints to our directory, exactly or not at all."""

import argparse
import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from imagewam_ros import importer
from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import CheckpointError, ConfigError
from imagewam_ros.core.paths import share_dir
from imagewam_ros.core.spaces import PoseFormat, names
from imagewam_ros.importer import import_checkpoint
from imagewam_ros.model import factory, hub
from imagewam_ros.model.checkpoint import load_weights, read_config
from imagewam_ros.model.network import ImageWamNetwork
from imagewam_ros.model.official import load_official
from imagewam_ros.model.official_config import OfficialFacts, padded_dims, read_facts
from imagewam_ros.model.official_contract import ImportOptions
from imagewam_ros.model.official_vectors import Driving
from imagewam_ros.model.reference_flux2 import Flux2Reference

DATA = Path(__file__).parent / "data"
ROBOT = load_embodiment("sim_cell")
OPTIONS = ImportOptions(50_000_000, 1.0, "compact_288x256")
CONFIG = {
    "model": {"lora": None},
    "data": {
        "num_frames": 17,
        "context_len": 128,
        "shape_meta": {"action": [{"key": "default", "raw_shape": 14, "shape": 14}]},
        "processor": {"norm_default_mode": "z-score", "delta_action_dim_mask": None},
    },
}
UNIT_GRIPPER = Driving(gripper=(0.0, 1.0))
"""RoboTwin's grippers: 0 closed, 1 open."""
KEYS = ("global_min", "global_max", "global_mean", "global_std", "global_q01", "global_q99")


def write_source(folder, checkpoint, config=CONFIG, dims=14, statistics=None, state_dims=None):
    folder.mkdir(exist_ok=True)
    if isinstance(checkpoint, Path):
        shutil.copy(checkpoint, folder / "model.pt")
    else:
        torch.save(checkpoint, folder / "model.pt")
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    both = {
        name: {"default": {key: (np.arange(count) + i).tolist() for i, key in enumerate(KEYS)}}
        for name, count in (("state", state_dims or dims), ("action", dims))
    }
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


@pytest.mark.parametrize(("said", "keep_pad"), [(None, True), (False, True), (True, False)])
def test_omnigen2_keeps_a_pad_row_where_proprio_came_after_the_pads(said, keep_pad, tmp_path):
    config = {**CONFIG, "model": {"pack_proprio_after_text": said}}
    folder = write_source(tmp_path / "official", DATA / "omnigen2_tiny" / "checkpoint.pt", config)
    import_checkpoint(folder, tmp_path / "out", OPTIONS)
    spec, _ = read_config(tmp_path / "out")
    assert (spec.network.pack_after_text, spec.text.keep_pad) == (not keep_pad, keep_pad)


def test_robot_gives_names_and_cameras(source, tmp_path):
    options = ImportOptions(50_000_000, 1.0, "compact_288x256", "sim_cell", UNIT_GRIPPER)
    contract = import_checkpoint(source, tmp_path / "out", options)
    assert contract.joint_names[6] == "left_gripper" and contract.joint_units[6] == "m"
    assert contract.camera_names == ("head", "left_wrist", "right_wrist")
    assert json.loads((tmp_path / "out" / "stats.json").read_text())["state"]["mean"] == list(range(2, 16))


def widened(checkpoint, dims=16, state_dims=None):
    """The same checkpoint with other numbers of action and state dims."""
    mot, proprio = dict(checkpoint["mot"]), dict(checkpoint["proprio_encoder"])
    encoder, head = "mixtures.action.action_encoder.weight", "mixtures.action.head.linear.weight"
    mot[encoder] = torch.randn(mot[encoder].shape[0], dims) * 0.3
    mot[head] = torch.randn(dims, mot[head].shape[1]) * 0.3
    proprio["weight"] = torch.randn(proprio["weight"].shape[0], state_dims or dims)
    return {**checkpoint, "mot": mot, "proprio_encoder": proprio}


@pytest.fixture(scope="module")
def checkpoint():
    return torch.load(DATA / "flux2_tiny" / "checkpoint.pt", weights_only=True)


def with_data(**changes):
    return {**CONFIG, "data": {**CONFIG["data"], **changes}}


def with_raw(dims, after=16, **changes):
    return with_data(shape_meta={"action": [{"key": "default", "raw_shape": dims, "shape": after}]}, **changes)


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
    folder = write_source(tmp_path / "official", widened(checkpoint), with_raw(16, hetero_bridge=BRIDGE), 16)
    contract = import_checkpoint(folder, tmp_path / "out", OPTIONS)
    assert len(contract.joint_names) == 16
    assert contract.joint_names[:8] == tuple(f"left_{p}" for p in ("x", "y", "z", "q0", "q1", "q2", "q3", "gripper"))
    assert network_of(tmp_path / "out").config.padded_dims == ()


def test_undecided_padding_is_refused_unless_said(checkpoint, tmp_path):
    config = with_data(shape_meta=None)
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
        import_checkpoint(folder, tmp_path / "out", ImportOptions(1, 1.0, "compact_288x256", lora_alpha=8))


def per_embodiment(both):
    return {"type": "per_embodiment", "embodiments": {"aloha": both, "franka": both}}


def test_embodiment_must_be_chosen(tmp_path):
    checkpoint = DATA / "flux2_tiny" / "checkpoint.pt"
    folder = write_source(tmp_path / "official", checkpoint, statistics=per_embodiment)
    with pytest.raises(CheckpointError, match=r"per embodiment \(aloha, franka\); choose with --embodiment"):
        import_checkpoint(folder, tmp_path / "out", OPTIONS)
    with pytest.raises(CheckpointError, match="unknown embodiment 'alhoa'; did you mean 'aloha'"):
        import_checkpoint(folder, tmp_path / "out", ImportOptions(1, 1.0, "compact_288x256", embodiment="alhoa"))
    import_checkpoint(folder, tmp_path / "out", ImportOptions(1, 1.0, "compact_288x256", embodiment="aloha"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"processor": {"norm_default_mode": "zscore"}}, "unknown mode 'zscore'; did you mean 'z-score'"),
        ({"processor": {}}, "does not say normalisation; say it with --normalisation"),
        ({"val": {"num_frames": 33}}, "num_frames says 17 and 33; keep one of them"),
        (
            {"processor": {"norm_default_mode": "z-score", "delta_action_dim_mask": {"default": [True, False]}}},
            "marks 1 of 2 action numbers as steps from row to row .* with 14 state numbers; this import knows LIBERO's",
        ),
        (
            {"processor": {"norm_default_mode": "z-score", "norm_exception_mode": {"action": {"default": "min/max"}}}},
            "norm_exception_mode is .*; this import takes one normalisation for all numbers",
        ),
        (
            {"processor": {"norm_default_mode": "z-score", "use_stepwise_action_norm": True}},
            "use_stepwise_action_norm is True",
        ),
        (
            {"processor": {"action_state_transforms": [{"_target_": "x.relative_action.RelativePoseTransform"}]}},
            "action_state_transforms has RelativePoseTransform, which decides what the actions mean",
        ),
        ({"processor": {"action_state_merger": {"action_target_dim": 16}}}, "action_target_dim pads vectors at their"),
        (
            {"train": {"shape_meta": {"action": [{"raw_shape": 16, "shape": 16}]}}},
            r"shape_meta.action says \(14, 14\) and \(16, 16\); keep one of them",
        ),
        ({"num_frames": "many"}, r"num_frames is 'many', which is not understood \(.*\); correct it"),
        ({"video_size": [288]}, r"video_size is \[288\], which is not understood"),
        ({"shape_meta": {"action": [14]}}, r"shape_meta.action is \[14\], which is not understood"),
        ({"bridge": {"hetero_bridge": {"enabled": True, "embodiments": [1]}}}, "hetero_bridge is .* not understood"),
    ],
)
def test_configuration_that_does_not_decide_is_refused(tmp_path, change, message):
    config = {**CONFIG, "data": {**CONFIG["data"], **change}}
    folder = write_source(tmp_path / "official", DATA / "flux2_tiny" / "checkpoint.pt", config)
    with pytest.raises(CheckpointError, match=message):
        import_checkpoint(folder, tmp_path / "out", OPTIONS)
    assert list(tmp_path.iterdir()) == [folder]


def test_statistics_must_be_whole(source, tmp_path):
    whole = (source / "dataset_stats.json").read_text()
    for text, message in [
        ("[]", "holds list, expected an object"),
        ("{", "is not valid JSON"),
        ('{"state": {}}', "state needs one field such as 'default', found"),
        ('{"state": {"default": {"global_mean": [1]}}}', "state lacks global_std"),
        ('{"state": {"default": 3}}', "state holds 3, expected statistics"),
        (whole.replace("[1, 2, ", "[1, NaN, ", 1), "state: global_max is .*expected a row of finite numbers"),
        (re.sub(r'"global_std": \[[^]]*\]', '"global_std": [1]', whole, count=1), "state has rows of .*global_std 1,"),
    ]:
        (source / "dataset_stats.json").write_text(text)
        with pytest.raises(CheckpointError, match=message):
            import_checkpoint(source, tmp_path / "out", OPTIONS)
    (source / "dataset_stats.json").unlink()
    with pytest.raises(CheckpointError, match="it belongs beside model.pt"):
        import_checkpoint(source, tmp_path / "out", OPTIONS)


def test_other_robot_layout_and_place_are_refused(source, tmp_path):
    with pytest.raises(ConfigError, match="unknown layout 'compact'; did you mean 'compact_288x256'"):
        import_checkpoint(source, tmp_path / "out", ImportOptions(1, 1.0, "compact"))
    (tmp_path / "out").mkdir()
    with pytest.raises(CheckpointError, match="exists already; choose another directory"):
        import_checkpoint(source, tmp_path / "out", OPTIONS)


def test_robot_with_other_joints_is_refused(checkpoint, tmp_path):
    folder = write_source(tmp_path / "official", widened(checkpoint), with_raw(16), 16)
    options = ImportOptions(1, 1.0, "compact_288x256", "sim_cell", Driving(rotation="none"))
    with pytest.raises(ConfigError, match="the checkpoint has 16 action dims, robot 'sim_cell' 14 joints"):
        import_checkpoint(folder, tmp_path / "out", options)


def test_encoders_are_copied_or_refused_whole(source, tmp_path):
    pipeline = tmp_path / "pipeline"
    for name in ("vae", "text_encoder"):
        (pipeline / name).mkdir(parents=True)
        (pipeline / name / "config.json").write_text("{}")
    options = ImportOptions(1, 1.0, "compact_288x256", encoders=pipeline)
    with pytest.raises(CheckpointError, match="no tokenizer/ or processor/ in"):
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
    assert run(source, tmp_path / "out", "--robot", "sim_cell", "--gripper", "0", "1") == 0
    out = capsys.readouterr().out
    assert "flux2, 14 action dims, contract" in out and "licence of the weights:" in out
    assert "action: left_joint_1, left_joint_2," in out and "(--encoders does)" in out and "no robot" not in out
    assert run(source, tmp_path / "other") == 0
    assert "no robot was named, so this directory drives none" in capsys.readouterr().out


def test_command_refuses_an_unpinned_hub_id(tmp_path, capsys):
    assert run("owner/name@main", tmp_path / "out") == 2
    assert "names no pinned revision; add @ and the 40 hex digits" in capsys.readouterr().err


def test_command_says_that_there_is_no_such_folder(tmp_path, capsys):
    assert run("weights/offical", tmp_path / "out") == 2
    assert "no folder weights/offical; name one, or owner/name@revision" in capsys.readouterr().err


@pytest.mark.parametrize(("width", "words"), [(3072, "Apache-2.0"), (4096, "non-commercial"), (7, "see the weights")])
def test_licence_follows_the_backbone(width, words, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model": {"variant": "flux2", "network": {"hidden": width}}}))
    assert words in hub.licence(tmp_path)


def test_facts_are_found_wherever_they_lie(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump([{"a": 1}]))
    with pytest.raises(ConfigError, match="expected a mapping"):
        read_facts(tmp_path / "config.yaml")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"a": [{"b": {"num_frames": 9}}]}))
    assert read_facts(tmp_path / "config.yaml") == OfficialFacts(horizon=8)


# --- the released data sets ---

BRIDGE = {
    "enabled": True,
    "embodiments": {
        "lift2": {
            "action": {"left_pose": "actions.left_ee_to_robot_pose", "right_pose": "actions.right_ee_to_robot_pose"}
        },
        "franka": {"action": {"left_pose": "actions.ee_to_robot_pose", "right_pose": None}},
    },
}
"""As in the authors' configs/data/interndata_a1_ee.yaml."""

LIBERO = {
    "model": {"proprio_dim": "${data.train.processor.proprio_output_dim}"},
    "data": {
        "train": {
            "shape_meta": {"action": [{"raw_shape": 7, "shape": 7}], "state": [{"raw_shape": 8, "shape": 8}]},
            "num_frames": 17,
            "concat_multi_camera": "horizontal",
            "video_size": [224, 448],
            "context_len": 128,
            "qwen_context_len": 512,
            "processor": {
                "delta_action_dim_mask": {"default": [True] * 6 + [False]},
                "norm_default_mode": "min/max",
                "action_state_transforms": None,
                "use_stepwise_action_norm": False,
                "norm_exception_mode": None,
            },
        }
    },
}
"""As in the authors' configs/data/libero_omnigen2_pair.yaml and its task for FLUX.2."""


@pytest.fixture
def libero(checkpoint, tmp_path):
    return write_source(tmp_path / "official", widened(checkpoint, 7, 8), LIBERO, 7, state_dims=8)


def test_libero_has_honest_names_and_needs_no_layout(libero, tmp_path):
    contract = import_checkpoint(libero, tmp_path / "out", ImportOptions(50_000_000, 0.0))
    assert contract.joint_names == ("dx", "dy", "dz", "drx", "dry", "drz", "gripper")
    assert contract.normalisation == "minmax" and contract.text_length == 512 and contract.mosaic.width == 448
    assert network_of(tmp_path / "out").config.padded_dims == ()


def test_libero_drives_one_arm_by_its_steps(libero, tmp_path):
    options = ImportOptions(50_000_000, 0.0, robot="sim_cell", driving=Driving(arm="right"))
    contract = import_checkpoint(libero, tmp_path / "out", options)
    contract.check(ROBOT)
    assert contract.joint_names == ROBOT.joint_names[7:] and contract.camera_names == ("head", "right_wrist")
    step, grip = contract.action
    assert step.pose == PoseFormat("rotvec", delta=True, step_m=0.05, step_rad=0.5)
    assert grip.gripper.to_robot(np.array([[0.9], [0.2]])).tolist() == [0.04, 0.0]  # 1 is open, the nearer one is taken
    assert names(contract.state)[-2:] == ("right_gripper_1", "right_gripper_2")
    fingers = contract.state[1].gripper.to_model(np.array(0.04))
    assert fingers == pytest.approx([0.04, -0.04])
    assert contract.hash == read_config(tmp_path / "out")[1].hash


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({}, "drives one arm, robot 'sim_cell' has two; choose with --arm left or right"),
        ({"layout": "compact_288x256"}, "trains on images of 224x448, layout compact_288x256 is 288x256"),
    ],
)
def test_libero_that_is_not_decided_is_refused(libero, tmp_path, change, text):
    options = dataclasses.replace(ImportOptions(1, 0.0, robot="sim_cell"), **change)
    with pytest.raises((CheckpointError, ConfigError), match=text):
        import_checkpoint(libero, tmp_path / "out", options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("robot_gripper", [None, (0.8, 0.0)])
def test_a_gripper_that_closes_upwards(libero, tmp_path, robot_gripper):
    driving = Driving(arm="left", robot_gripper=robot_gripper)
    contract = import_checkpoint(libero, tmp_path / "out", ImportOptions(1, 0.0, robot="ur5e", driving=driving))
    assert contract.action[1].gripper.to_robot(np.array([[1.0], [0.0]])).tolist() == [0.0, 0.8]


def test_a_gripper_that_turns_and_does_not_say_where_it_is_open_is_refused(libero, tmp_path):
    robot = tmp_path / "mine.yaml"
    robot.write_text((share_dir() / "config" / "robots" / "ur5e.yaml").read_text().replace(" open: lower,", ""))
    options = ImportOptions(1, 0.0, robot=str(robot), driving=Driving(arm="left"))
    text = "turns between 0 and 0.8 rad, and which of them is closed is not said; say open: upper or open: lower in"
    with pytest.raises(ConfigError, match=text):
        import_checkpoint(libero, tmp_path / "out", options)


@pytest.fixture
def interndata(checkpoint, tmp_path):
    tiling = {"concat_multi_camera": "robotwin", "robotwin_camera_layout": "compact_288x256"}
    config = with_raw(16, hetero_bridge=BRIDGE, **tiling)
    return write_source(tmp_path / "official", widened(checkpoint), config, 16, statistics=of_both)


def of_both(plain):
    return {"type": "per_embodiment", "embodiments": {"lift2": plain, "franka": plain}}


def driven(embodiment, **driving):
    fields = {"rotation": "wxyz", "gripper": (0.0, 1.0)} | driving
    return ImportOptions(1, 1.0, robot="sim_cell", embodiment=embodiment, driving=Driving(**fields))


def test_interndata_drives_both_tools(interndata, tmp_path):
    contract = import_checkpoint(interndata, tmp_path / "out", driven("lift2", frame="left_base_link"))
    contract.check(ROBOT)
    assert names(contract.action)[:8] == tuple(f"left_{p}" for p in ("x", "y", "z", "qw", "qx", "qy", "qz", "gripper"))
    assert contract.state == contract.action and contract.action[2].pose.frame == "left_base_link"
    assert contract.joint_names == ROBOT.joint_names and contract.mosaic.height == 288


def test_an_arm_that_the_embodiment_lacks_is_zero_and_its_camera_black(interndata, tmp_path):
    contract = import_checkpoint(interndata, tmp_path / "out", driven("franka", arm="left"))
    contract.check(ROBOT)
    assert contract.joint_names == ROBOT.joint_names[:7] and contract.camera_names == ("head", "left_wrist")
    network = network_of(tmp_path / "out")
    assert network.config.padded_dims == tuple(range(8, 16))
    padded = network.with_padding(torch.ones(1, 8))
    assert padded[0, :8].tolist() == [1] * 8 and padded[0, 8:].tolist() == [0] * 8
    assert json.loads((tmp_path / "out" / "stats.json").read_text())["action"]["mean"] == list(range(2, 10))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            driven("lift2", rotation=None),
            "does not say how its quaternions are written; .* say --rotation xyzw or wxyz",
        ),
        (
            driven("lift2", gripper=None),
            "was between 7 and 8 in the data and moves between 0 and 0.04 m on the robot; say",
        ),
        (driven("franka"), "drives one arm, robot 'sim_cell' has two"),
        (driven("genie"), "hetero_bridge: unknown embodiment 'genie'"),
    ],
)
def test_interndata_that_is_not_decided_is_refused(interndata, tmp_path, options, text):
    with pytest.raises((CheckpointError, ConfigError), match=text):
        import_checkpoint(interndata, tmp_path / "out", options)


def test_sixteen_numbers_without_a_bridge_must_be_told_apart(checkpoint, tmp_path):
    folder = write_source(tmp_path / "official", widened(checkpoint), with_raw(16), 16)
    with pytest.raises(
        CheckpointError, match="does not say whether the 16 numbers are two tool poses or two arms of 7"
    ):
        import_checkpoint(folder, tmp_path / "out", OPTIONS)
    joints = ImportOptions(1, 1.0, "compact_288x256", driving=Driving(rotation="none"))
    assert import_checkpoint(folder, tmp_path / "out", joints).joint_names[6:8] == ("left_joint_7", "left_gripper")


def test_grippers_in_the_robots_own_unit_pass_through(checkpoint, tmp_path):
    """A data set recorded on this robot: the vectors are its joints, and the contract says nothing else."""

    def recorded(both):
        for group in both.values():
            group["default"] = {
                key: [0.02 if i in (6, 13) else value for i, value in enumerate(values)]
                for key, values in group["default"].items()
            }
        return both

    folder = write_source(tmp_path / "official", checkpoint, statistics=recorded)
    contract = import_checkpoint(folder, tmp_path / "out", ImportOptions(1, 1.0, "compact_288x256", "sim_cell"))
    assert contract.joint_names == ROBOT.joint_names and contract.action == ()
    foreign = write_source(tmp_path / "foreign", checkpoint)
    with pytest.raises(
        ConfigError, match=r"say --gripper CLOSED OPENED, the data's numbers for both \(RoboTwin: 0 1\)"
    ):
        import_checkpoint(foreign, tmp_path / "other", ImportOptions(1, 1.0, "compact_288x256", "sim_cell"))


def test_one_embodiment_alone_needs_no_choice(tmp_path):
    def one(both):
        return {"type": "per_embodiment", "embodiments": {"robotwin": both}}

    folder = write_source(tmp_path / "official", DATA / "flux2_tiny" / "checkpoint.pt", statistics=one)
    assert len(import_checkpoint(folder, tmp_path / "out", OPTIONS).joint_names) == 14


def test_the_only_embodiment_decides_on_the_arms(checkpoint, tmp_path):
    def one(both):
        return {"type": "per_embodiment", "embodiments": {"franka": both}}

    config = with_raw(16, hetero_bridge=BRIDGE)
    folder = write_source(tmp_path / "official", widened(checkpoint), config, 16, statistics=one)
    contract = import_checkpoint(folder, tmp_path / "out", OPTIONS)
    assert network_of(tmp_path / "out").config.padded_dims == tuple(range(8, 16))
    assert len(contract.joint_names) == 8


@pytest.mark.parametrize(
    ("action", "state", "text"),
    [
        (7, 8, "7 action and 8 state numbers are none of the released vectors"),
        (7, 7, "7 numbers are not two arms with grippers; this import cannot name them"),
    ],
)
def test_vectors_that_cannot_be_named_are_refused(checkpoint, tmp_path, action, state, text):
    folder = write_source(tmp_path / "official", widened(checkpoint, action, state), CONFIG, action, state_dims=state)
    with pytest.raises(CheckpointError, match=text):
        import_checkpoint(folder, tmp_path / "out", OPTIONS)


def test_statistics_of_another_run_are_refused(checkpoint, tmp_path):
    folder = write_source(tmp_path / "official", checkpoint, dims=7)
    with pytest.raises(
        CheckpointError, match="action has statistics of 7 numbers, the weights take 14; are both of one"
    ):
        import_checkpoint(folder, tmp_path / "out", OPTIONS)


def test_layout_that_nobody_says_is_asked_for(source, tmp_path):
    with pytest.raises(CheckpointError, match="does not say how cameras are tiled; say --layout"):
        import_checkpoint(source, tmp_path / "out", ImportOptions(1, 1.0))


def test_references_to_other_keys_say_nothing(tmp_path):
    config = {
        "train": {"num_frames": 17, "context_len": 128},
        "val": {"num_frames": "${train.num_frames}", "context_len": "???"},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    facts = read_facts(tmp_path / "config.yaml")
    assert (facts.horizon, facts.text_length) == (16, 128)
