# SPDX-License-Identifier: Apache-2.0
"""The policy node around a model that takes no time, or a stated one: what is left is the framework.

Contract, statistics, pairing, preprocessing and publishing are real; prefill and denoising are not there.
"""

import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor

from imagewam_ros.core.contract import Denoising
from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.paths import find_checkpoint
from imagewam_ros.model.checkpoint import load_checkpoint
from imagewam_ros.model.protocol import Instruction, Plan
from imagewam_ros.model.wam import ImageWam
from imagewam_ros.nodes.inference import warm_up
from imagewam_ros.nodes.policy_node import PolicyNode, PolicyNodeConfig
from imagewam_ros.nodes.spin import run
from imagewam_ros.policy import Policy


@dataclass(frozen=True)
class StubPolicyConfig(PolicyNodeConfig):
    """model_s is how long the model sleeps, as if a GPU computed."""

    model_s: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model_s < 0:
            raise ConfigError(f"model_s must not be negative, found {self.model_s}")


class StubNetwork:
    """What the sampler needs of a network: the mean action of every row."""

    def __init__(self, action_dim: int, model_s: float) -> None:
        self.config = SimpleNamespace(action_dim=action_dim)
        self._model_s = model_s

    def plan(self, denoising: Denoising) -> Plan:
        """Return a plan without content."""
        return Plan(denoising, torch.zeros(1), torch.zeros(1), (None,), None)

    def denoise(self, noise: Tensor, cache: object, plan: Plan) -> Tensor:
        """Take the stated time."""
        time.sleep(self._model_s)
        return torch.zeros_like(noise)


class StubModel:
    """What `Policy` needs of a model."""

    def __init__(self, action_dim: int, model_s: float = 0.0) -> None:
        self.network = StubNetwork(action_dim, model_s)

    def encode_instruction(self, text: str) -> Instruction:
        """Return an instruction without content."""
        return Instruction(text, torch.zeros(1, 1))

    def prefill(self, *_: Any) -> None:
        """Look at nothing."""


def stub_policy(checkpoint: str, robot: Embodiment, model_s: float) -> Policy:
    """Return a policy with the contract and statistics of a checkpoint, and no model.

    Raises CheckpointError and EmbodimentMismatch as loading does.
    """
    found = load_checkpoint(find_checkpoint(checkpoint))
    found.contract.check(robot)
    model = StubModel(len(found.contract.joint_names), model_s)
    return Policy(cast(ImageWam, model), found.contract, found.statistics)


class StubPolicyNode(PolicyNode):
    """The policy node with that policy."""

    config_type = StubPolicyConfig

    def load(self, config: PolicyNodeConfig, robot: Embodiment) -> Policy:
        """See PolicyNode."""
        assert isinstance(config, StubPolicyConfig)
        torch.set_num_threads(max(config.cpu_threads, 1))
        policy = stub_policy(config.checkpoint, robot, config.model_s)
        warm_up(policy, robot)
        return policy


def main() -> int:
    """Run the node."""
    return run(StubPolicyNode)
