# SPDX-License-Identifier: Apache-2.0
"""A checkpoint directory to train from, made of a published image editor and a robot.

The backbone's weights are as published, the action expert starts from them, and what has no counterpart is
drawn at random. It knows no robot yet and has no statistics: training takes them from the episodes, and until then
the directory is marked untrained. Memory holds one tensor at a time.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from imagewam_ros.core.config import read_yaml
from imagewam_ros.core.contract import Contract
from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import CheckpointError, unknown_name
from imagewam_ros.core.json_file import write_json
from imagewam_ros.model import factory, layouts
from imagewam_ros.model.backbone import backbone_tensors
from imagewam_ros.model.checkpoint import SCHEMA, whole_directory
from imagewam_ros.model.expert_init import Inheritance, inherited, origin_of
from imagewam_ros.model.flux2 import Flux2Config
from imagewam_ros.model.network import ImageWamNetwork
from imagewam_ros.model.official_contract import TEXT_LENGTH
from imagewam_ros.model.omnigen2 import OmniGen2Config
from imagewam_ros.model.omnigen2_text import VLTextSpec
from imagewam_ros.model.ovis_condition import OvisTextSpec
from imagewam_ros.model.ovis_u1 import OvisU1Config
from imagewam_ros.model.published import copy_encoders, weights_of
from imagewam_ros.model.safetensors_stream import Lazy, lazily, write
from imagewam_ros.model.text import TextSpec

BACKBONES: Mapping[str, factory.ModelSpec] = {
    "flux2_4b": factory.ModelSpec("flux2", Flux2Config(), TextSpec()),
    "flux2_9b": factory.ModelSpec(
        "flux2", Flux2Config(hidden=4096, heads=32, double=8, single=24, text_dim=12288), TextSpec()
    ),
    "omnigen2": factory.ModelSpec("omnigen2", OmniGen2Config(), VLTextSpec()),
    "ovis_u1": factory.ModelSpec("ovis_u1", OvisU1Config(), OvisTextSpec()),
}
"""Published backbones and their numbers."""

HORIZON = 16
"""Rows of a chunk, as the authors train."""


@dataclass(frozen=True)
class BaseOptions:
    """What the new policy will promise. authors_way resizes fused projections as one for the expert (`expert_init`)."""

    layout: str
    period_ns: int
    first_row_offset_periods: float
    normalisation: str = "zscore"
    horizon: int = HORIZON
    encoders: Path | None = None
    authors_way: bool = False


def find_backbone(name: str) -> factory.ModelSpec:
    """Numbers of a published backbone, or of one in a YAML file (variant, network, text).

    Raises ConfigError and CheckpointError.
    """
    if Path(name).suffix in (".yaml", ".yml"):
        return factory.read_spec(read_yaml(Path(name)), name)
    if name not in BACKBONES:
        raise CheckpointError(unknown_name("backbone", name, BACKBONES))
    return BACKBONES[name]


def write_base(source: Path, out: Path, spec: factory.ModelSpec, robot: Embodiment, options: BaseOptions) -> Contract:
    """Write the directory and return its contract. Raises CheckpointError or ConfigError; then `out` is not there."""
    if out.exists():
        raise CheckpointError(f"{out} exists already; choose another directory")
    joints = len(robot.joints)
    spec = replace(spec, network=replace(spec.network, action_dim=joints, proprio_dim=joints, padded_dims=()))
    contract = contract_of(spec, robot, options)
    network = factory.build_network(spec, "meta")
    tensors = base_tensors(network, weights_of(source), options)
    with whole_directory(out) as part:
        copy_encoders(spec, options.encoders or source, part)
        write(part / "model.safetensors", tensors)
        data = {"schema": SCHEMA, "untrained": True, "contract": contract.to_dict(), "model": spec.to_dict()}
        write_json(part / "config.json", data)
    return contract


def contract_of(spec: factory.ModelSpec, robot: Embodiment, options: BaseOptions) -> Contract:
    """Contract of a policy for the robot's joints: arms relative to the measured ones, grippers absolute."""
    return Contract(
        variant=spec.variant,
        joint_names=robot.joint_names,
        joint_units=tuple(joint.unit for joint in robot.joints),
        relative=tuple(not bool(gripper) for gripper in robot.gripper_mask),
        mosaic=layouts.mosaic(options.layout, robot.camera_names),
        period_ns=options.period_ns,
        horizon=options.horizon,
        first_row_offset_periods=options.first_row_offset_periods,
        text_length=TEXT_LENGTH,
        normalisation=options.normalisation,
    )


def base_tensors(network: ImageWamNetwork, weights: Path, options: BaseOptions) -> dict[str, Lazy]:
    """All weights of a network built on "meta", each made when it is written. Raises CheckpointError."""
    backbone, rule = backbone_tensors(weights, network), network.inheritance()
    drawn = dict(_drawn(network))
    result = {f"video.{name}": tensor for name, tensor in backbone.items()}
    for name, like in network.state_dict().items():
        if name in result:
            continue
        origin = origin_of(name.removeprefix("action."), rule) if name.startswith("action.") else None
        if origin is None:
            result[name] = lazily(drawn[name])
        else:
            make = partial(_grown, name.removeprefix("action."), like, origin, backbone[origin], rule, options)
            result[name] = Lazy(tuple(like.shape), backbone[origin].dtype, make)
    return result


def _grown(name: str, like: Tensor, origin: str, source: Lazy, rule: Inheritance, options: BaseOptions) -> Tensor:
    """The expert's weight `name`, shaped as `like`, from its origin in the backbone."""
    return inherited({name: like}, {origin: source.make()}, rule, options.authors_way)[name]


def _drawn(network: ImageWamNetwork) -> Iterator[tuple[str, Tensor]]:
    """Random weights, the same every time, of the layers without counterpart: actions in and out, joints in."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name, module in network.named_modules():
            plain = name.removeprefix("action.")
            own = name.startswith("action.") and origin_of(f"{plain}.weight", network.inheritance()) is None
            if isinstance(module, nn.Linear) and (own or name == "proprio_encoder"):
                fresh = nn.Linear(module.in_features, module.out_features, module.bias is not None)
                yield from ((f"{name}.{part}", tensor) for part, tensor in fresh.state_dict().items())
