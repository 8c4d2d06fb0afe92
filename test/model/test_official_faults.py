# SPDX-License-Identifier: Apache-2.0
"""Official checkpoints that are cut, spoilt, mixed up or made with bad intent: refused by name, nothing runs."""

import contextlib
import json
import pickle
import re
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagewam_ros.core.errors import CheckpointError, ImageWamError
from imagewam_ros.importer import ImportOptions, import_checkpoint
from imagewam_ros.model import factory, official
from imagewam_ros.model.official_config import read_facts
from imagewam_ros.model.official_shapes import config_of, variant_of

DATA_FILE = Path(__file__).parents[1] / "data" / "flux2_tiny" / "checkpoint.pt"
VARIANTS = ("flux2", "omnigen2", "ovis_u1")


class Payload:
    def __reduce__(self):
        return (open, ("executed", "w"))


class Script(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


WAYS = {
    "tensors": lambda path: torch.save({"mot": {"w": Payload()}}, path),
    "beside the tensors": lambda path: torch.save({"mot": {}, "proprio_encoder": {}, "optimizer": Payload()}, path),
    "old format": lambda path: torch.save({"mot": Payload()}, path, _use_new_zipfile_serialization=False),
    "plain pickle": lambda path: path.write_bytes(pickle.dumps({"mot": Payload()})),
    "script": lambda path: torch.jit.save(torch.jit.script(Script()), str(path)),
}


@pytest.mark.parametrize("way", WAYS)
def test_code_in_any_wrapping_never_runs(way, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    WAYS[way](tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"model\.pt (holds more than tensors|cannot be read).* again"):
        official.read_official(tmp_path / "model.pt")
    assert not (tmp_path / "executed").exists()


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_checkpoint_cut_anywhere_is_refused(share, tmp_path_factory):
    whole = DATA_FILE.read_bytes()
    path = tmp_path_factory.mktemp("cut") / "model.pt"
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match=r"model\.pt (cannot be read|holds more than tensors)"):
        official.read_official(path)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_file_with_any_bytes_spoilt_is_read_or_refused(tmp_path_factory, data):
    """In the part that says what the tensors are; nothing but our own refusal may come out."""
    path = tmp_path_factory.mktemp("spoilt") / "model.pt"
    with zipfile.ZipFile(DATA_FILE) as whole, zipfile.ZipFile(path, "w") as file:
        for name in whole.namelist():
            content = bytearray(whole.read(name))
            if name.endswith("data.pkl"):
                for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=5)):
                    content[place] = data.draw(st.integers(0, 255))
            file.writestr(name, bytes(content))
    with contextlib.suppress(CheckpointError):
        official.network_state(official.read_official(path), path)


HEAD = "mixtures.action.head.linear.weight"
MIXED_UP = {
    "a number": (lambda parts: parts["mot"].update({HEAD: 3}), f"mot holds '{HEAD}': int, expected weights by name"),
    "no name": (lambda parts: parts["mot"].update({3: torch.ones(2)}), "mot holds 3: Tensor, expected weights by name"),
    "a list": (lambda parts: parts.update(proprio_encoder=[1]), "proprio_encoder is list, expected weights; export it"),
    "codes": (
        lambda parts: parts["mot"].update({HEAD: parts["mot"][HEAD].to(torch.int8)}),
        f"{HEAD} is int8 .*quantis",
    ),
    "sparse": (lambda parts: parts["mot"].update({HEAD: parts["mot"][HEAD].to_sparse()}), f"{HEAD} is .*sparse_coo"),
    "NaN": (
        lambda parts: parts["mot"].update({HEAD: parts["mot"][HEAD] / 0}),
        r"action\.head\S+ holds infinite numbers or NaN",
    ),
}


@pytest.mark.parametrize("way", MIXED_UP)
def test_what_is_no_weight_is_refused_by_name(way, tmp_path):
    spoil, message = MIXED_UP[way]
    parts = {**torch.load(DATA_FILE, weights_only=True)}
    spoil(parts)
    torch.save(parts, tmp_path / "model.pt")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"data": {"num_frames": 17, "norm_default_mode": "z-score"}}))
    row = {f"global_{key}": [1.0] * 14 for key in ("min", "max", "mean", "std", "q01", "q99")}
    both = {name: {"default": row} for name in ("state", "action")}
    (tmp_path / "dataset_stats.json").write_text(json.dumps(both))
    with pytest.raises(CheckpointError, match=rf"model\.pt: {message}"):
        import_checkpoint(tmp_path, tmp_path / "out", ImportOptions(50_000_000, 1.0, "compact_288x256"))
    assert not (tmp_path / "out").exists()


READ = re.compile(
    r"(img_in|x_embedder|action_encoder|proprio_encoder|txt_in(\.input_embedder)?|caption_embedder\.0)\.weight$"
    r"|^video\.single_blocks\.0\.norm\.query_norm\.scale$|^video\.layers\.0\.attn\.(norm_q|to_k)\.weight$"
    r"|^(video|action)\.(double_blocks|layers|blocks)\.0\.(img_mlp\.2|feed_forward\.linear_1)\.weight$"
)
"""Weights that sizes are read from."""

SPOILT = {
    "missing": lambda shape: None,
    "scalar": lambda shape: (),
    "empty": lambda shape: (0,) * len(shape),
    "one": lambda shape: (1,) * len(shape),
    "flat": lambda shape: (7,),
    "turned": lambda shape: shape[::-1] if len(set(shape)) > 1 else (shape[0] + 1, *shape[1:]),
}


def build(shapes):
    spec = factory.ModelSpec(variant_of(shapes), config_of(shapes), None)
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    return official.audited(state, factory.build_network(spec, "meta"), DATA_FILE)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_shape_that_sizes_are_read_from_is_checked(variant, data):
    path = data / f"{variant}_tiny" / "checkpoint.pt"
    state = official.network_state(official.read_official(path), path)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    build(shapes)
    read = [name for name in shapes if READ.search(name)]
    assert len(read) >= 7
    for name in read:
        for way, spoil in SPOILT.items():
            changed = {**shapes, name: spoil(shapes[name])}
            if changed[name] is None:
                del changed[name]
            with pytest.raises(ImageWamError):
                build(changed)
                pytest.fail(f"{name} {way} was taken")


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_wrong_weight_is_named_with_both_shapes(variant, data):
    path = data / f"{variant}_tiny" / "checkpoint.pt"
    state = official.network_state(official.read_official(path), path)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    name = next(name for name in shapes if name.startswith("action.") and len(shapes[name]) == 1)
    with pytest.raises(CheckpointError) as caught:
        build({**shapes, name: (3,)})
    assert f"{name} is [3], expected {list(shapes[name])}" in str(caught.value)
    assert "Was it made for another variant or width?" in str(caught.value)


def test_impossible_shape_is_named(data):
    path = data / "flux2_tiny" / "checkpoint.pt"
    state = official.network_state(official.read_official(path), path)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    with pytest.raises(CheckpointError, match=r"video\.img_in\.weight is \[\], which fits no size of flux2; .*again"):
        build({**shapes, "video.img_in.weight": ()})


def test_a_block_of_a_huge_number_is_unexpected_and_nothing_more(data):
    """As many blocks as there are names, or a name could ask for a billion of them."""
    path = data / "flux2_tiny" / "checkpoint.pt"
    state = official.network_state(official.read_official(path), path)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    with pytest.raises(CheckpointError, match=r"unexpected video\.single_blocks\.999999999\.linear1\.weight"):
        build({**shapes, "video.single_blocks.999999999.linear1.weight": (3, 3)})


def test_weights_of_one_variant_under_the_names_of_another_are_refused(data):
    """Both backbones have double_blocks; the mark of Ovis-U1 in a FLUX.2 file must not pass."""
    path = data / "flux2_tiny" / "checkpoint.pt"
    state = official.network_state(official.read_official(path), path)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    shapes["video.double_blocks.0.img_self_attn.qkv.weight"] = shapes.pop(
        "video.double_stream_modulation_img.lin.weight"
    )
    with pytest.raises(CheckpointError):
        build(shapes)


def test_yaml_that_asks_for_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text("model: !!python/object/apply:builtins.open ['executed', 'w']\n")
    with pytest.raises(ImageWamError, match=r"config\.yaml"):
        read_facts(tmp_path / "config.yaml")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["model.pt", "dataset_stats.json", "config.yaml"])
def test_a_refused_import_leaves_nothing_behind(name, data, tmp_path):
    source = tmp_path / "official"
    source.mkdir()
    (source / "model.pt").symlink_to(data / "flux2_tiny" / "checkpoint.pt")
    (source / "config.yaml").write_text(yaml.safe_dump({"data": {"num_frames": 17}}))
    (source / "dataset_stats.json").write_text(json.dumps({}))
    (source / name).unlink()
    (source / name).write_bytes(b"\x80{")
    options = ImportOptions("compact_288x256", 50_000_000, 1.0, normalisation="zscore")
    with pytest.raises(ImageWamError, match=str(source)):
        import_checkpoint(source, tmp_path / "out", options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["official"]
