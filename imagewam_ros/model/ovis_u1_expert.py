# SPDX-License-Identifier: Apache-2.0
"""Action expert of Ovis-U1: the backbone's own blocks at its own width; actions take the image path.

Published checkpoints also hold text weights in its double blocks, which nothing ever reads:
they are dropped when loading. Source: docs/variants.md, section 1.
"""

from typing import NamedTuple, Protocol

from torch import Tensor, nn

from imagewam_ros.model.flux2 import FinalLayer
from imagewam_ros.model.layers import FREQUENCIES, Modulation
from imagewam_ros.model.mot import Memory, run_layer
from imagewam_ros.model.ovis_u1 import (
    OvisDoubleBlock,
    OvisSingleBlock,
    OvisTimeEmbedder,
    OvisU1Config,
    time_wave,
)


class OvisMemory(Protocol):
    """A prefix' keys and values: of all layers, and of the image attention of the double blocks."""

    @property
    def joint(self) -> Memory:
        """Text and image tokens."""

    @property
    def image(self) -> Memory:
        """Image tokens alone."""


class OvisExpertModulation(NamedTuple):
    """Modulation of the expert at one timestep."""

    double: list[list[Modulation]]
    single: list[list[Modulation]]
    head: tuple[Tensor, Tensor]


class OvisActionExpert(nn.Module):
    """Velocity of noised actions, given the backbone's keys and values."""

    def __init__(self, config: OvisU1Config) -> None:
        super().__init__()
        h, ratio = config.hidden, config.action_mlp_ratio
        self.action_encoder = nn.Linear(config.action_dim, h)
        self.time_in = OvisTimeEmbedder(FREQUENCIES, h)
        self.double_blocks = nn.ModuleList(
            OvisDoubleBlock(h, config.heads, ratio, config.qkv_bias, text=False) for _ in range(config.double)
        )
        self.single_blocks = nn.ModuleList(OvisSingleBlock(h, config.heads, ratio) for _ in range(config.single))
        self.head = FinalLayer(h, config.action_dim, bias=True)

    def modulation(self, timestep: Tensor) -> OvisExpertModulation:
        """Everything that depends on timestep (B,) in 0..1000 alone."""
        vector = self.time_in(time_wave(timestep, self.action_encoder.weight))
        return OvisExpertModulation(
            [block.img_mod(vector) for block in self.double_blocks],  # type: ignore[operator]
            [block.modulation(vector) for block in self.single_blocks],  # type: ignore[operator]
            self.head.modulation(vector),
        )

    def forward(self, actions: Tensor, modulation: OvisExpertModulation, memory: OvisMemory, table: Tensor) -> Tensor:
        """Velocity (B, T, D) of actions (B, T, D)."""
        x = self.action_encoder(actions)
        doubles: list[OvisDoubleBlock] = [*self.double_blocks]  # type: ignore[list-item]
        singles: list[OvisSingleBlock] = [*self.single_blocks]  # type: ignore[list-item]
        x = run_image_stream(x, doubles, singles, modulation.double, modulation.single, memory, table)
        velocity: Tensor = self.head(x, modulation.head)
        return velocity


def run_image_stream(
    x: Tensor,
    doubles: list[OvisDoubleBlock],
    singles: list[OvisSingleBlock],
    double: list[list[Modulation]],
    single: list[list[Modulation]],
    memory: OvisMemory,
    table: Tensor,
) -> Tensor:
    """Run target or action tokens (B, n, width) through all blocks over a prefix."""
    for layer, (block, shared) in enumerate(zip(doubles, double, strict=True)):
        x = run_layer(memory.joint, _double_layer, block, x, shared, table, memory, layer)
    for layer, (last, shared) in enumerate(zip(singles, single, strict=True), len(doubles)):
        x = run_layer(memory.joint, _single_layer, last, x, shared, table, memory, layer)
    return x


def _double_layer(
    block: OvisDoubleBlock, x: Tensor, shared: list[Modulation], table: Tensor, memory: OvisMemory, layer: int
) -> Tensor:
    heads, own = block.project_image(x, shared, table)
    return block.merge_image(x, memory.joint.attend(layer, heads), memory.image.attend(layer, own), shared)


def _single_layer(
    block: OvisSingleBlock, x: Tensor, shared: list[Modulation], table: Tensor, memory: OvisMemory, layer: int
) -> Tensor:
    heads, extra = block.project(x, shared, table)
    return block.merge(x, memory.joint.attend(layer, heads), shared, extra)
