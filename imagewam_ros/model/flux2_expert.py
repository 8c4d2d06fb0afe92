# SPDX-License-Identifier: Apache-2.0
"""The slim action expert of FLUX.2: the image half of the backbone's blocks at its own width.

Source: docs/model.md, section 3. Layer i attends together with the backbone's layer i.
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from imagewam_ros.model.flux2 import (
    DoubleStream,
    FinalLayer,
    Flux2Config,
    SelfAttention,
    SharedModulation,
    SingleBlock,
    TimeEmbedder,
    gated_mlp,
)
from imagewam_ros.model.layers import Modulation
from imagewam_ros.model.mot import Layer, Memory, run_layer


class ExpertModulation(NamedTuple):
    """Modulation of the whole expert at one timestep: doubles (attention, MLP), singles, head (shift, scale)."""

    double: list[Modulation]
    single: list[Modulation]
    head: tuple[Tensor, Tensor]


def reading_layer(
    stream: DoubleStream | SingleBlock,
    x: Tensor,
    modulation: Sequence[Modulation],
    table: Tensor,
    memory: Memory,
    layer: int,
) -> Tensor:
    """One layer of target or action tokens (B, n, width) that read the prefix's layer `layer`."""
    heads, extra = stream.project(x, modulation, table)
    return stream.merge(x, memory.attend(layer, heads), modulation, extra)  # type: ignore[arg-type]


class Flux2ActionExpert(nn.Module):
    """Velocity of noised actions, given the backbone's keys and values."""

    def __init__(self, config: Flux2Config) -> None:
        super().__init__()
        width, inner = config.action_hidden, round(config.action_hidden * config.action_mlp_ratio)
        self.action_encoder = nn.Linear(config.action_dim, width)
        self.time_in = TimeEmbedder(width)
        self.double_stream_modulation_img = SharedModulation(width, 6)
        self.single_stream_modulation = SharedModulation(width, 3)
        self.double_blocks = nn.ModuleList(ActionDoubleBlock(config, inner) for _ in range(config.double))
        self.single_blocks = nn.ModuleList(
            SingleBlock(width, config.heads, config.head_dim, inner) for _ in range(config.single)
        )
        self.head = FinalLayer(width, config.action_dim)

    def modulation(self, timestep: Tensor) -> ExpertModulation:
        """Everything that depends on timestep (B,) in 0..1000 alone."""
        vector = self.time_in(timestep)
        return ExpertModulation(
            self.double_stream_modulation_img(vector),
            self.single_stream_modulation(vector),
            self.head.modulation(vector),
        )

    def forward(self, actions: Tensor, modulation: ExpertModulation, memory: Memory, table: Tensor) -> Tensor:
        """Velocity (B, T, D) of actions (B, T, D)."""
        x = self.action_encoder(actions)
        for layer, stream in enumerate(self.streams()):
            shared = modulation.double if isinstance(stream, DoubleStream) else modulation.single
            x = run_layer(memory, reading_layer, stream, x, shared, table, memory, layer)
        velocity: Tensor = self.head(x, modulation.head)
        return velocity

    def streams(self) -> list[DoubleStream | SingleBlock]:
        """All layers in order."""
        return [*(block.image for block in self.double_blocks), *self.single_blocks]  # type: ignore[list-item,union-attr]


class ActionDoubleBlock(Layer):
    """The image half of a double block."""

    def __init__(self, config: Flux2Config, inner: int) -> None:
        super().__init__()
        self.img_attn = SelfAttention(config.action_hidden, config.heads, config.head_dim)
        self.img_mlp = gated_mlp(config.action_hidden, inner)

    @property
    def image(self) -> DoubleStream:
        """The block as action tokens meet it."""
        return DoubleStream(self, self.img_attn, self.img_mlp)
