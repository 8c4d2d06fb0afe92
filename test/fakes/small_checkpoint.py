# SPDX-License-Identifier: Apache-2.0
"""A checkpoint with random weights: real files, real network, no skill."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLFlux2
from small_contract import small_contract

from imagewam_ros.core.contract import Contract
from imagewam_ros.core.embodiment import Embodiment, load_embodiment
from imagewam_ros.core.stats import Statistics
from imagewam_ros.model import factory
from imagewam_ros.model.autoencoder import Flux2Codec
from imagewam_ros.model.checkpoint import save_checkpoint
from imagewam_ros.model.flux2 import Flux2Config
from imagewam_ros.model.text import TextSpec, small_text
from imagewam_ros.model.wam import ImageWam

STEP_STD = 0.004
"""Standard deviation of the arms' relative targets, rad: noise that stays near the measured joints."""


def cell_contract(robot: Embodiment) -> Contract:
    """Contract of a small checkpoint for `robot`."""
    return small_contract(robot, tile=32, text_length=64, prompt="do: {task}")


def small_checkpoint(
    directory: Path, contract: Contract | None = None, statistics: Mapping[str, Statistics] | None = None,
    padded_dims: tuple[int, ...] = (),
) -> Path:  # fmt: skip
    """Write a checkpoint, for the simulated cell unless `contract` and `statistics` say otherwise."""
    torch.manual_seed(0)
    robot = load_embodiment("sim_cell")
    contract = contract or cell_contract(robot)
    statistics = statistics or _near_the_measured(robot)
    text = small_text(["lift the tray with both hands"], TextSpec((1, 2)), hidden=12, max_length=64)
    autoencoder = AutoencoderKLFlux2(
        block_out_channels=(4, 8, 8, 8), layers_per_block=1, latent_channels=4, norm_num_groups=4
    )
    config = Flux2Config(
        hidden=32, heads=2, axes=(4, 4, 4, 4), double=1, single=2, channels=16, text_dim=24, action_hidden=16,
        action_dim=statistics["action"].mean.size + len(padded_dims), padded_dims=padded_dims,
        proprio_dim=statistics["state"].mean.size + len(padded_dims),
    )  # fmt: skip
    spec = factory.ModelSpec("flux2", config, TextSpec((1, 2)))
    model = ImageWam(factory.build_network(spec), Flux2Codec(autoencoder), text, spec, contract.prompt, 16)
    save_checkpoint(directory, model, contract, statistics)
    return directory


def _near_the_measured(robot: Embodiment) -> dict[str, Statistics]:
    action = np.random.default_rng(0).normal(size=(200, 14)) * np.where(robot.gripper_mask, 1e-4, STEP_STD)
    action += np.where(robot.gripper_mask, 0.03, 0.0)
    return {"state": Statistics.of(np.random.default_rng(1).normal(size=(200, 14))), "action": Statistics.of(action)}
