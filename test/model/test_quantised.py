# SPDX-License-Identifier: Apache-2.0
"""Weights at lower precision: chosen by name, measured, and refused with a way out."""

import argparse
import copy
import sys

import pytest
import torch
from torch import nn

from imagewam_ros import bench_step
from imagewam_ros.core.contract import Denoising
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.model.chunking import Committed, denoise_guided, soft_weights
from imagewam_ros.model.flow import action_noise
from imagewam_ros.model.flux2 import linear_rows
from imagewam_ros.model.packed import PackedLinear, can_pack, packed
from imagewam_ros.model.protocol import Context
from imagewam_ros.model.quantised import WEIGHTS, check_weights, drift, is_token_layer, nbytes, quantise, quantised

CPU = torch.device("cpu")


@pytest.fixture
def torchao():
    return pytest.importorskip("torchao", reason="needs torchao, requirements/quantised.txt")


def test_unknown_weights_name_the_nearest():
    with pytest.raises(ConfigError, match="unknown weights 'int8_weight'; did you mean 'int8_weight_only'"):
        check_weights("int8_weight", CPU)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(ConfigError, match="need torchao .*pip install -r requirements/quantised.txt"):
        check_weights("int8_weight_only", CPU)
    check_weights("full", CPU)


def test_a_device_without_fp8_is_named():
    with pytest.raises(ConfigError, match="'fp8_dynamic' need a CUDA device, found cpu; use int8_weight_only or full"):
        check_weights("fp8_dynamic", CPU)


def test_command_knows_the_names():
    assert tuple(WEIGHTS) == bench_step.WEIGHTS


def test_full_weights_are_the_network_itself(small_model):
    assert quantised(small_model.network, "full") is small_model.network


def test_drift_of_known_tensors():
    found = drift("x", torch.tensor([3.0, 4.5]), torch.tensor([3.0, 4.0]))
    assert (found.name, found.max_abs, found.relative) == ("x", 0.5, pytest.approx(0.1))
    assert found.cosine == pytest.approx(27 / (5 * (9 + 4.5**2) ** 0.5))


def test_bytes_are_those_of_the_parameters():
    assert nbytes(nn.Linear(8, 4)) == 4 * (32 + 4)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("video.double_blocks.0.img_attn.qkv", True),
        ("video.double_blocks.0.txt_mlp.2", True),
        ("action.single_blocks.3.linear1", True),
        ("video.layers.7.attn.to_out.0", True),
        ("action.blocks.7.feed_forward.linear_3", True),
        ("action.double_blocks.0.img_self_attn.proj", True),
        ("video.txt_in.individual_token_refiner.blocks.0.self_attn_qkv", True),
        ("video.txt_in.individual_token_refiner.blocks.0.mlp.fc1", True),
        ("video.double_blocks.0.img_mod.lin", False),
        ("video.layers.7.norm1.linear", False),
        ("video.single_stream_modulation.lin", False),
        ("video.time_caption_embed.timestep_embedder.linear_1", False),
        ("action.head.linear", False),
        ("action.action_encoder", False),
        ("proprio_encoder", False),
    ],
)
def test_layers_that_tokens_run_through(name, wanted):
    assert is_token_layer(nn.Linear(1, 1), name) is wanted
    assert not is_token_layer(nn.SiLU(), name)


def test_int8_changes_token_layers_only(torchao, small_model):
    network = small_model.network
    twin = quantised(network, "int8_weight_only")
    kinds = {name: type(layer.weight) for name, layer in twin.named_modules() if isinstance(layer, nn.Linear)}
    changed = {name for name, kind in kinds.items() if kind is not nn.Parameter}
    assert changed == {name for name in kinds if is_token_layer(nn.Linear(1, 1), name)}
    assert twin.action.head.linear.weight is network.action.head.linear.weight
    assert all(type(parameter) is nn.Parameter for parameter in network.parameters())
    assert 0.25 < nbytes(twin) / nbytes(network) < 0.6


def test_int8_rows_packing_and_gradients(torchao, small_model):
    twin = quantised(small_model.network, "int8_weight_only")
    layer, x = twin.video.single_blocks[-1].linear1, torch.randn(1, 3, 32)
    with torch.no_grad():
        assert torch.equal(linear_rows(layer, x, slice(8, 20)), layer(x)[..., 8:20])
    ready = packed(twin)
    assert type(ready.video.single_blocks[0].linear1) is nn.Linear
    if can_pack(nn.Parameter(torch.zeros(1))):
        assert type(ready.action.head.linear) is PackedLinear
    plan = ready.plan(Denoising())
    with torch.no_grad():
        latents, context = torch.randn(1, 16, 2, 4), Context(torch.randn(1, 5, 24))
        cache = ready.prefill(latents, context, torch.zeros(1, 14), 6, plan)
    nothing = Committed(torch.zeros(6, 14), soft_weights(6, 1, 3) * 0, 0)
    noise = action_noise(0, 6, 14)
    guided = denoise_guided(ready, noise, cache, plan, nothing)
    assert torch.allclose(guided, ready.denoise(noise, cache, plan), atol=1e-5)


@pytest.mark.parametrize("name", ["int8_weight_only", "fp8_weight_only"])
def test_what_it_changes_is_said(torchao, small_model, contract, caplog, name):
    model = copy.copy(small_model)
    model._modules = dict(small_model._modules)  # a shallow copy shares the table of modules
    text = quantise(model, contract, name)
    assert caplog.messages == [text] and model.network is not small_model.network
    first, head, *rows = text.splitlines()
    assert first.startswith(f"weights {name}: ") and head.split() == ["tensor", "max", "abs", "relative", "cosine"]
    assert [row[:22].strip() for row in rows] == [
        "prefix cache", "velocity at 1000", "velocity at 500", "actions, 10 steps",
    ]  # fmt: skip
    assert all(0 < float(row.split()[-2]) < 0.1 and float(row.split()[-1]) > 0.99 for row in rows)


def test_bench_runs_with_int8(torchao, capsys):
    parser = argparse.ArgumentParser()
    bench_step.add_arguments(parser)
    words = ["--preset", "tiny", "--weights", "int8_weight_only", "--reference", "--repeats", "1"]
    assert bench_step.run(parser.parse_args(words)) == 0
    assert "weights int8_weight_only" in capsys.readouterr().out
