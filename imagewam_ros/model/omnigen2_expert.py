# SPDX-License-Identifier: Apache-2.0
"""Slim action expert of OmniGen2: the backbone's blocks on a narrow residual stream.

Actions have positions of their own (0..T-1, over the whole head). Source: docs/variants.md,
section 2.
"""

from typing import NamedTuple

from torch import Tensor, nn

from imagewam_ros.model.mot import Memory, run_layer
from imagewam_ros.model.omnigen2 import (
    MAX_CONDITION,
    BlockShape,
    Gating,
    NormZero,
    OmniBlock,
    OmniGen2Config,
    OmniHead,
    OmniTimestep,
)


class OmniExpertModulation(NamedTuple):
    """Modulation of the expert at one timestep: its layers and the head's 1 + scale."""

    layers: list[Gating]
    head: Tensor


def reading_layer(block: OmniBlock, x: Tensor, gating: Gating, table: Tensor, memory: Memory, layer: int) -> Tensor:
    """One layer of target or action tokens (B, n, width) that read the prefix's layer `layer`."""
    return block.merge(x, memory.attend(layer, block.project(x, gating, table)), gating)


class OmniActionExpert(nn.Module):
    """Velocity of noised actions, given the backbone's keys and values."""

    def __init__(self, config: OmniGen2Config) -> None:
        super().__init__()
        width = config.action_hidden
        condition = min(width, MAX_CONDITION)
        shape = BlockShape(
            width, config.heads, config.kv_heads, config.head_dim, config.action_multiple_of, config.action_norm_eps
        )
        self.action_encoder = nn.Linear(config.action_dim, width)
        self.timestep_embedder = OmniTimestep(condition, config.action_timestep_scale)
        self.blocks = nn.ModuleList(OmniBlock(shape, condition) for _ in range(config.layers))
        self.head = OmniHead(width, condition, config.action_dim)

    def modulation(self, timestep: Tensor) -> OmniExpertModulation:
        """Everything that depends on timestep (B,) in 0..1000 alone."""
        vector = self.timestep_embedder(timestep)
        norms: list[NormZero] = [block.norm1 for block in self.blocks]  # type: ignore[misc]
        return OmniExpertModulation([norm.gating(vector) for norm in norms], self.head.scale(vector))

    def forward(self, actions: Tensor, modulation: OmniExpertModulation, memory: Memory, table: Tensor) -> Tensor:
        """Velocity (B, T, D) of actions (B, T, D)."""
        x = self.action_encoder(actions)
        blocks: list[OmniBlock] = [*self.blocks]  # type: ignore[list-item]
        for layer, (block, gating) in enumerate(zip(blocks, modulation.layers, strict=True)):
            x = run_layer(memory, reading_layer, block, x, gating, table, memory, layer)
        velocity: Tensor = self.head(x, modulation.head)
        return velocity
