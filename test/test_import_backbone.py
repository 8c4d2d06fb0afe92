# SPDX-License-Identifier: Apache-2.0
"""`imagewam import --backbone`: a published image editor to a checkpoint that training goes on from."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_backbones import SPECS, backbone, publish, sizes
from small_training import PERIOD_NS, write_episodes

from imagewam_ros.cli import main
from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import CheckpointError
from imagewam_ros.core.schema import Observation
from imagewam_ros.doctor_checks.contract import read_promise
from imagewam_ros.model import factory, hub
from imagewam_ros.model.checkpoint import load_base, load_checkpoint
from imagewam_ros.model.expert_init import inherited
from imagewam_ros.model.from_backbone import BACKBONES
from imagewam_ros.policy import Policy

ROBOT = load_embodiment("sim_cell")
CELL = ("--robot", "sim_cell", "--layout", "compact_288x256", "--period-ms", "50", "--first-row-offset", "1")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("published")
    return {name: publish(name, root / name) for name in SPECS}


@pytest.fixture(scope="module")
def episodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_episodes(tmp_path_factory.mktemp("episodes"), reach=0.02)


def run(source: Path, out: Path, name: str, *words: str) -> int:
    numbers = str(sizes(name, out.parent)) if name in SPECS and "real" not in words else name
    more = [word for word in words if word != "real"]
    return main(["import", str(source), str(out), "--backbone", numbers, *CELL, *more])


@pytest.mark.parametrize("name", SPECS)
def test_backbone_becomes_a_policy(
    name: str, published: dict[str, Path], episodes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole way: command, directory, training, a chunk. In between nobody may drive a robot with it."""
    base, trained = tmp_path / "base", tmp_path / "run"
    assert run(published[name], base, name) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "14 action dims" in said and "never trained, so no robot runs it; go on with imagewam train" in said
    assert "licence of the weights: " in said and "licence that their page states: other, small-licence" in said
    with pytest.raises(CheckpointError, match="base was never trained: .* must not drive one. Train it with imagewam"):
        Policy.load(base, ROBOT)
    with pytest.raises(CheckpointError, match="was never trained; load the checkpoint of a run"):
        read_promise(base)
    words = [
        "--data",
        str(episodes),
        "--out",
        str(trained),
        "--steps",
        "2",
        "--batch",
        "2",
        "--threads",
        "1",
        "--cpu",
        "--workers",
        "1",
    ]
    assert main(["train", "--preset", name, "--base", str(base), *words]) == 0, capsys.readouterr().err
    found = load_checkpoint(trained / "checkpoint")
    assert found.contract.relative[0] and not found.contract.relative[6]
    assert 0 < np.abs(found.statistics["action"].std[:6]).max() < 0.1, "taken from the episodes"
    seen = {camera.name: np.zeros((camera.height, camera.width, 3), np.uint8) for camera in ROBOT.cameras}
    chunk = Policy.load(trained / "checkpoint", ROBOT).infer(Observation(0, seen, np.zeros(14), "lift"), seed=1)
    assert chunk.positions.shape == (16, 14) and np.isfinite(chunk.positions).all() and chunk.period_ns == PERIOD_NS


@pytest.mark.parametrize("name", SPECS)
def test_weights_are_the_published_ones(name: str, published: dict[str, Path], tmp_path: Path) -> None:
    """Backbone as it is, expert grown from it part by part, the rest drawn."""
    assert run(published[name], tmp_path / "base", name) == 0
    found = load_base(tmp_path / "base")
    network, weights = found.model.network, backbone(name)
    for key, tensor in network.video.state_dict().items():
        assert torch.equal(tensor, weights[key]), key
    expert = network.action.state_dict()
    for key, tensor in inherited(expert, weights, network.inheritance()).items():
        assert torch.equal(expert[key], tensor), key
    assert expert["action_encoder.weight"].std() > 0 and network.proprio_encoder.weight.std() > 0
    assert found.statistics == {} and found.contract.statistics_hash == ""


def test_authors_way_mixes_the_parts(published: dict[str, Path], tmp_path: Path) -> None:
    assert run(published["flux2_4b"], tmp_path / "base", "flux2_4b", "--expert-as-authors") == 0
    network = load_base(tmp_path / "base").model.network
    wanted = inherited(network.action.state_dict(), backbone("flux2_4b"), network.inheritance(), authors_way=True)
    key = "single_blocks.0.linear1.weight"
    assert torch.equal(network.action.state_dict()[key], wanted[key])


def test_a_single_file_takes_its_encoders_from_elsewhere(published: dict[str, Path], tmp_path: Path) -> None:
    save_file({f"model.diffusion_model.{k}": t for k, t in backbone("flux2_4b").items()}, tmp_path / "a.safetensors")
    words = ("--encoders", str(published["flux2_4b"]), "--horizon", "8", "--normalisation", "quantile")
    assert run(tmp_path / "a.safetensors", tmp_path / "base", "flux2_4b", *words) == 0
    contract = load_base(tmp_path / "base").contract
    assert (contract.horizon, contract.normalisation) == (8, "quantile")


def test_bfloat16_stays_bfloat16(published: dict[str, Path], tmp_path: Path) -> None:
    source = shutil.copytree(published["flux2_4b"], tmp_path / "published")
    path = source / "transformer" / "flux-2.safetensors"
    save_file({key: tensor.bfloat16() for key, tensor in load_file(path).items()}, path)
    assert run(source, tmp_path / "base", "flux2_4b") == 0
    state = load_file(tmp_path / "base" / "model.safetensors")
    assert state["video.img_in.weight"].dtype == state["action.single_blocks.0.linear1.weight"].dtype == torch.bfloat16


VISUAL = "visual_tokenizer.head.0.weight"


@pytest.mark.parametrize(
    ("name", "folder", "key", "words"),
    [
        ("flux2_4b", "transformer", "img_in.weight", "missing img_in.weight; unexpected img_in"),
        ("flux2_9b", "transformer", "proj_out.weight", "missing final_layer.linear.weight"),
        ("omnigen2", "transformer", "x_embedder.weight", "missing x_embedder"),
        ("ovis_u1", ".", "visual_generator.backbone.img_in.weight", "missing img_in.weight; unexpected img_in"),
        ("ovis_u1", ".", VISUAL, "missing head.0.weight; unexpected head.0.weight.other"),
    ],
)  # fmt: skip
def test_keys_that_lack_or_do_not_belong_are_named(
    name: str, folder: str, key: str, words: str, published: dict[str, Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    source = shutil.copytree(published[name], tmp_path / "published")
    (path,) = [path for path in (source / folder).glob("*.safetensors") if key in load_file(path)]
    state = load_file(path)
    state[f"{key}.other"] = state.pop(key)
    save_file(state, path)
    assert run(source, tmp_path / "base", name) == 2
    assert words in capsys.readouterr().err and not (tmp_path / "base").exists()
    assert not list(tmp_path.glob("*.part"))


def remove(source: Path, name: str) -> None:
    shutil.rmtree(source / name) if (source / name).is_dir() else (source / name).unlink()


@pytest.mark.parametrize(
    ("name", "gone", "words"),
    [
        ("flux2_4b", "vae", "no vae/ in "),
        ("omnigen2", "mllm", "no text_encoder/ or mllm/ in "),
        ("omnigen2", "processor", "no tokenizer/ or processor/ in "),
        ("ovis_u1", "config.json", "does not tell the numbers of Ovis-U1's autoencoder and language model"),
        ("ovis_u1", "tokenizer*", "no tokenizer in "),
    ],
)
def test_encoders_that_lack_are_named(
    name: str, gone: str, words: str, published: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = shutil.copytree(published[name], tmp_path / "published")
    for path in [*source.glob(gone), *source.glob("*.jinja")]:
        remove(source, path.name)
    assert run(source, tmp_path / "base", name) == 2
    assert words in capsys.readouterr().err and not (tmp_path / "base").exists()


def test_parts_of_ovis_that_lack_are_named(
    published: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = shutil.copytree(published["ovis_u1"], tmp_path / "published")
    for path in source.glob("model*"):
        save_file({key: tensor for key, tensor in load_file(path).items() if not key.startswith("llm.")}, path)
    assert run(source, tmp_path / "base", "ovis_u1") == 2
    assert "no weights llm.model.* in" in capsys.readouterr().err


def test_text_encoder_of_another_size_is_refused(
    published: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = shutil.copytree(published["flux2_4b"], tmp_path / "published")
    config = json.loads((source / "text_encoder" / "config.json").read_text())
    (source / "text_encoder" / "config.json").write_text(json.dumps({**config, "hidden_size": 40}))
    assert run(source, tmp_path / "base", "flux2_4b") == 2
    assert "gives 2 x 40 numbers per word, the backbone reads 24; take both from one" in capsys.readouterr().err


@pytest.mark.parametrize("name", BACKBONES)
def test_named_backbones_have_the_published_sizes(
    name: str, published: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(published[name], tmp_path / "base", name, "real") == 2
    assert "does not fit the model: " in capsys.readouterr().err
    found = factory.build_network(BACKBONES[name], "meta")
    billions = sum(tensor.numel() for tensor in found.video.state_dict().values()) / 1e9
    assert billions == pytest.approx(
        {"flux2_4b": 3.88, "flux2_9b": 9.08, "omnigen2": 3.97, "ovis_u1": 1.13}[name], abs=5e-3
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--backbone", "flux2_4", *CELL), "unknown backbone 'flux2_4'; did you mean 'flux2_4b'"),
        (("--backbone", "flux2_4b", *CELL[4:]), "--backbone needs the --robot that is to learn and the --layout"),
        (("--backbone", "flux2_4b", *CELL, "--raw-action-dim", "14"), "--raw-action-dim say what trained weights mean"),
        (("--expert-as-authors", *CELL), "--expert-as-authors is for --backbone"),
    ],
)
def test_what_is_asked_wrongly_is_said(
    words: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", str(tmp_path), str(tmp_path / "base"), *words]) == 2
    assert message in capsys.readouterr().err


def test_directory_that_is_there_and_files_that_are_not(
    published: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "base").mkdir()
    assert run(published["flux2_4b"], tmp_path / "base", "flux2_4b") == 2
    assert "base exists already" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty", tmp_path / "new", "flux2_4b") == 2
    assert "no safetensors at" in capsys.readouterr().err


def test_nine_billion_are_not_for_commerce(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model": BACKBONES["flux2_9b"].to_dict()}))
    assert "FLUX non-commercial licence" in hub.licence(tmp_path)
