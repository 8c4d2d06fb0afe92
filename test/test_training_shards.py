# SPDX-License-Identifier: Apache-2.0
"""Two processes gather one layer at a time and take the steps of one, with recomputation, parts and adapters."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import small_networks
import torch

from imagewam_ros.model.mot import Layer
from imagewam_ros.training.team import Team, gathered, shard

FAKES = Path(__file__).parent / "fakes"


@pytest.mark.parametrize("backbone", small_networks.BACKBONES)
def test_every_layer_of_both_parts_is_one_to_shard(backbone: str) -> None:
    network = small_networks.network(backbone)
    depth = sum(getattr(network.config, name, 0) for name in ("double", "single", "layers"))
    for part, more in ((network.action, 0), (network.video, 3 * getattr(network.config, "refiner_layers", 0))):
        layers = [module for module in part.modules() if isinstance(module, Layer)]
        assert len(layers) == depth + more
        for layer in layers:
            ahead = {id(weight) for module in layer.ahead() for weight in module.parameters()}
            assert ahead < {id(weight) for weight in layer.parameters()}


def test_one_process_shards_nothing() -> None:
    network = small_networks.network("flux2")
    kinds = {type(module) for module in network.modules()}
    shard(network, Team())
    assert {type(module) for module in network.modules()} == kinds


def test_only_the_leader_keeps_what_is_gathered() -> None:
    tensors = {"a": torch.ones(2)}
    assert torch.equal(gathered(tensors, Team())["a"], tensors["a"])
    assert gathered(tensors, Team(rank=1)) == {}


@pytest.mark.slow
def test_two_processes_take_the_same_steps_layer_by_layer() -> None:
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    path = os.pathsep.join([str(FAKES), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [*words, str(FAKES / "two_processes_step.py")],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("same steps: ") == 3 * len(small_networks.BACKBONES)
