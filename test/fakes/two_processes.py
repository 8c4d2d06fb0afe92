# SPDX-License-Identifier: Apache-2.0
"""Started twice by torchrun: trains the small preset together and says how much of it each holds."""

import sys
from pathlib import Path

import torch
from small_training import SMALL
from torch.distributed.tensor import DTensor

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.model.factory import build_network
from imagewam_ros.training.run import train
from imagewam_ros.training.team import join, shard

if __name__ == "__main__":
    torch.set_num_threads(1)
    team = join(cpu=True)
    network = build_network(SMALL.spec)
    shard(network, team)
    weights = list(network.parameters())
    assert all(isinstance(weight, DTensor) for weight in weights)
    held = sum(weight.to_local().numel() for weight in weights)  # type: ignore[attr-defined]
    train(SMALL, [Path(sys.argv[1])], Path(sys.argv[2]), load_embodiment("sim_cell"), 0, team)
    if team.leads:
        print(f"sharded: {held} of {sum(weight.numel() for weight in weights)}")
