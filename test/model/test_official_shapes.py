# SPDX-License-Identifier: Apache-2.0
"""A network's numbers come back from the shapes of its weights, at small and at released sizes."""

import dataclasses

import pytest
import small_networks

from imagewam_ros.core.errors import CheckpointError
from imagewam_ros.model import factory
from imagewam_ros.model.flux2 import Flux2Config
from imagewam_ros.model.official_shapes import config_of, variant_of
from imagewam_ros.model.omnigen2 import OmniGen2Config
from imagewam_ros.model.ovis_u1 import OvisU1Config

NOT_IN_SHAPES = {  # several multiples round to one width; what they round to is compared below
    "theta", "norm_eps", "action_norm_eps", "timestep_scale", "action_timestep_scale", "action_theta", "axes_lengths",
    "max_horizon", "padded_dims", "pack_after_text", "rope_dtype", "axes", "patch", "multiple_of", "action_multiple_of",
}  # fmt: skip


def shapes_of(backbone, config):
    network = factory.build_network(factory.ModelSpec(backbone, config, None), "meta")
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def numbers(config):
    return {name: value for name, value in dataclasses.asdict(config).items() if name not in NOT_IN_SHAPES}


CONFIGS = [
    ("flux2", small_networks.config("flux2")),
    ("flux2", small_networks.config("flux2", double=3, single=1, mlp_ratio=2.0, action_dim=14, proprio_dim=7)),
    ("omnigen2", small_networks.config("omnigen2")),
    ("omnigen2", small_networks.config("omnigen2", layers=3, refiner_layers=2, kv_heads=4, action_hidden=32)),
    ("ovis_u1", small_networks.config("ovis_u1")),
    ("ovis_u1", small_networks.config("ovis_u1", double=2, single=1, action_dim=16)),
    ("flux2", Flux2Config()),
    ("omnigen2", OmniGen2Config()),
    ("ovis_u1", OvisU1Config()),
]
NAMES = [f"{backbone}-{config.hidden}-{i}" for i, (backbone, config) in enumerate(CONFIGS)]


@pytest.mark.parametrize(("backbone", "config"), CONFIGS, ids=NAMES)
def test_numbers_come_back(backbone, config):
    shapes = shapes_of(backbone, config)
    assert variant_of(shapes) == backbone
    assert numbers(config_of(shapes)) == numbers(config)


@pytest.mark.parametrize(("backbone", "config"), CONFIGS, ids=NAMES)
def test_a_network_of_these_numbers_takes_the_weights(backbone, config):
    shapes = shapes_of(backbone, config)
    assert shapes_of(backbone, config_of(shapes)) == shapes


@pytest.mark.parametrize("config", [Flux2Config(), OmniGen2Config(), OvisU1Config()])
def test_axes_of_released_sizes_are_the_published_ones(config):
    backbone = {Flux2Config: "flux2", OmniGen2Config: "omnigen2", OvisU1Config: "ovis_u1"}[type(config)]
    assert config_of(shapes_of(backbone, config)).axes == config.axes


def test_foreign_weights_are_not_recognised():
    with pytest.raises(CheckpointError, match=r"no backbone recognised among 1 tensors; known: flux2, ovis_u1, omni"):
        config_of({"layers.0.weight": (3, 3)})


@pytest.mark.parametrize("backbone", small_networks.BACKBONES)
def test_the_missing_tensor_is_named(backbone):
    shapes = shapes_of(backbone, small_networks.config(backbone))
    del shapes["proprio_encoder.weight"]
    with pytest.raises(CheckpointError, match=r"lacks 'proprio_encoder\.weight', without which its size is unknown"):
        config_of(shapes)


@pytest.mark.parametrize(
    ("backbone", "config", "weights"),
    [
        ("flux2", Flux2Config(), 3_875_544_576),
        ("omnigen2", OmniGen2Config(), 3_967_161_400),
        ("ovis_u1", OvisU1Config(), 1_127_227_408),
    ],
)
def test_released_backbones_have_their_size(backbone, config, weights):
    network = factory.build_network(factory.ModelSpec(backbone, config, None), "meta")
    assert sum(parameter.numel() for parameter in network.video.parameters()) == weights
