# SPDX-License-Identifier: Apache-2.0
"""Started twice by torchrun: steps of small networks, in shards and alone, must be the same steps."""

from dataclasses import replace
from typing import Any

import small_networks
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from imagewam_ros.core.contract import Denoising
from imagewam_ros.model.mot import Layer
from imagewam_ros.training.network import averaged, learn, start
from imagewam_ros.training.presets import TrainConfig
from imagewam_ros.training.team import Team, join, part_of, whole

CONFIG = TrainConfig(steps=10, warmup=0, batch=4, draws=1, targets=4, learning_rate=1e-3, prefix_at_zero=False)
WAYS: tuple[dict[str, Any], ...] = (
    {"recompute": False},
    {"recompute": True, "accumulate": 2},
    {"recompute": True, "lora_rank": 2},
)


def stepped(backbone: str, config: TrainConfig, team: Team) -> tuple[dict[str, Tensor], set[int]]:
    """The gradients' mean after two steps and a chunk; how many layers were whole at a time."""
    network = small_networks.network(backbone)
    torch.manual_seed(1)  # of adapters
    progress = start(network, config, team)
    seen = watched(network)
    batch = small_networks.batch(network, 4, prefix_at_zero=False)
    for _ in range(2):
        learn(progress, part_of(batch, team), config, 5.0)
    assert team.size == 1 or all(isinstance(weight, DTensor) for weight in network.parameters())
    with averaged(progress) as mean, torch.no_grad():
        plan = mean.plan(Denoising(steps=2))
        cache = mean.prefill(batch.reference, batch.context, batch.proprio, small_networks.HORIZON, plan)
        chunk = mean.denoise(batch.action_noise, cache, plan)
    found = {name: whole(progress.optimizer.state[weight]["exp_avg"]) for name, weight in progress.trained.items()}
    return {**found, "chunk": chunk}, seen


def watched(network: nn.Module) -> set[int]:
    """Collect how many layers have whole weights whenever a linear module of one is called."""
    layers = [module for module in network.modules() if isinstance(module, Layer)]
    inside = {
        layer: [m for m in layer.modules() if isinstance(m, nn.Linear) and m not in ahead(layer)] for layer in layers
    }
    seen: set[int] = set()

    def count(*_: object) -> None:
        seen.add(sum(not isinstance(inside[layer][0].weight, DTensor) for layer in layers))

    for modules in inside.values():
        for module in modules:
            module.register_forward_pre_hook(count)
    return seen


def ahead(layer: Layer) -> list[nn.Module]:
    return [module for part in layer.ahead() for module in part.modules()]


if __name__ == "__main__":
    torch.set_num_threads(1)
    team = join(cpu=True)
    for backbone in small_networks.BACKBONES:
        for way in WAYS:
            config = replace(CONFIG, **way)
            together, seen = stepped(backbone, config, team)
            alone, _ = stepped(backbone, config, Team())
            for name, tensor in alone.items():
                assert torch.allclose(together[name], tensor, rtol=1e-3, atol=1e-5), (backbone, way, name)
            # The first layer stays whole in the backward pass where nothing before it learns (adapters).
            assert 1 in seen and max(seen) <= 1 + bool(config.lora_rank), f"{backbone} {way}: {seen} layers were whole"
            if team.leads:
                print(f"same steps: {backbone} {way}", flush=True)
