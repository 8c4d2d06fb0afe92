# SPDX-License-Identifier: Apache-2.0
"""The released sizes, built on the meta device: names, shapes and cost, no weights."""

import argparse
import json

import pytest
import torch

from imagewam_ros import bench_cost
from imagewam_ros.bench_cost import KLEIN_9B, chunk_cost
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.model import factory
from imagewam_ros.model.flux2 import Flux2Config
from imagewam_ros.model.official_shapes import config_of, variant_of
from imagewam_ros.model.omnigen2 import OmniGen2Config
from imagewam_ros.model.ovis_u1 import OvisU1Config


def shapes(variant, config):
    network = factory.build_network(factory.ModelSpec(variant, config, None), "meta")
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def billions(found, prefix):
    return sum(torch.Size(shape).numel() for name, shape in found.items() if name.startswith(prefix)) / 1e9


@pytest.mark.parametrize(
    ("config", "blocks", "h", "context", "video", "action"),
    [(Flux2Config(), (5, 20), 3072, 7680, 3.8755, 0.642), (KLEIN_9B, (8, 24), 4096, 12288, 9.0786, 0.9524)],
)
def test_flux2_keys_and_sizes_are_the_released_ones(config, blocks, h, context, video, action):
    found = shapes("flux2", config)
    double, single = blocks
    names = {
        "img_in.weight": (h, 128),
        "txt_in.weight": (h, context),
        "time_in.in_layer.weight": (h, 256),
        "time_in.out_layer.weight": (h, h),
        "double_stream_modulation_img.lin.weight": (6 * h, h),
        "double_stream_modulation_txt.lin.weight": (6 * h, h),
        "single_stream_modulation.lin.weight": (3 * h, h),
        "final_layer.linear.weight": (128, h),
        "final_layer.adaLN_modulation.1.weight": (2 * h, h),
    }
    for i in range(double):
        for kind in ("img", "txt"):
            block = f"double_blocks.{i}.{kind}"
            names |= {
                f"{block}_attn.qkv.weight": (3 * h, h),
                f"{block}_attn.proj.weight": (h, h),
                f"{block}_attn.norm.query_norm.scale": (128,),
                f"{block}_attn.norm.key_norm.scale": (128,),
                f"{block}_mlp.0.weight": (6 * h, h),
                f"{block}_mlp.2.weight": (h, 3 * h),
            }
    for i in range(single):
        block = f"single_blocks.{i}"
        names |= {
            f"{block}.linear1.weight": (9 * h, h),
            f"{block}.linear2.weight": (h, 4 * h),
            f"{block}.norm.query_norm.scale": (128,),
            f"{block}.norm.key_norm.scale": (128,),
        }
    assert {name.removeprefix("video."): shape for name, shape in found.items() if name.startswith("video.")} == names
    assert billions(found, "video.") == pytest.approx(video, abs=1e-4)
    assert billions(found, "action.") == pytest.approx(action, abs=1e-4)


def test_4b_has_the_407_published_keys():
    found = shapes("flux2", Flux2Config())
    video = [name for name in found if name.startswith("video.")]
    action = [name for name in found if name.startswith("action.")]
    aliases = [name for name in video if "_blocks." in name]
    assert (len(video), len(action), len(aliases)) == (149, 118, 140)
    assert len(video) + len(action) + len(aliases) == 407


@pytest.mark.parametrize(
    ("variant", "config", "video", "action"),
    [
        ("omnigen2", OmniGen2Config(), 3.967, 0.760),
        ("ovis_u1", OvisU1Config(), 1.127, 1.041 - 0.255),  # 255 M of the expert's text weights are never read
    ],
)
def test_other_backbones_have_the_released_sizes(variant, config, video, action):
    found = shapes(variant, config)
    assert billions(found, "video.") == pytest.approx(video, abs=1.5e-3)
    assert billions(found, "action.") == pytest.approx(action, abs=1.5e-3)


@pytest.mark.parametrize(
    ("variant", "config"),
    [("flux2", Flux2Config()), ("flux2", KLEIN_9B), ("ovis_u1", OvisU1Config()), ("omnigen2", OmniGen2Config())],
)
def test_size_is_read_off_the_shapes(variant, config):
    found = shapes(variant, config)
    assert variant_of(found) == variant
    assert config_of(found) == config


def test_unknown_model_and_layout_name_the_nearest():
    with pytest.raises(ConfigError, match="unknown model 'flux2-4B'; did you mean 'flux2-4b'"):
        chunk_cost("flux2-4B", "compact_288x256")
    with pytest.raises(ConfigError, match="unknown layout"):
        chunk_cost("flux2-4b", "compact")


def test_command_takes_several_models():
    parser = argparse.ArgumentParser()
    bench_cost.add_arguments(parser)
    found = parser.parse_args(["--model", "flux2-4b", "omnigen2", "--json"])
    assert found.model == ["flux2-4b", "omnigen2"] and found.json and json.dumps(found.layout)
