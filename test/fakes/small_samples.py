# SPDX-License-Identifier: Apache-2.0
"""What a network learns from, made up in memory: a few demonstrations with latents of noise."""

import numpy as np
import torch
from small_training import INSTRUCTION, PERIOD_NS, SMALL

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.data.dataset import Dataset, Demonstration
from imagewam_ros.data.episode import Provenance
from imagewam_ros.model.protocol import Instruction
from imagewam_ros.training.presets import contract_of
from imagewam_ros.training.samples import Samples

FRAMES = 12


def small_samples(demonstrations: int = 2, seed: int = 0) -> Samples:
    """Samples for networks of the SMALL preset."""
    rng = np.random.default_rng(seed)
    robot = load_embodiment("sim_cell")
    paths = rng.normal(size=(demonstrations, FRAMES + 1, 14)).cumsum(1) / 10
    learned = [Demonstration(str(i), INSTRUCTION, i, path[:-1], path[1:]) for i, path in enumerate(paths)]
    contract = contract_of(SMALL, robot, Provenance.of(robot, INSTRUCTION, PERIOD_NS))
    dataset = Dataset(learned, contract.horizon, contract.relative)
    statistics = dict(zip(("state", "action"), dataset.statistics(np.arange(len(dataset))), strict=True))
    latents = rng.normal(size=(len(dataset), SMALL.spec.network.channels, 1, 3)).astype(np.float16)
    tokens = torch.randn(5, SMALL.spec.network.text_dim, generator=torch.Generator().manual_seed(seed))
    return Samples(dataset, latents, contract, statistics, {INSTRUCTION: Instruction(INSTRUCTION, tokens)})
