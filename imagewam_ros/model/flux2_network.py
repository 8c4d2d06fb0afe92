# SPDX-License-Identifier: Apache-2.0
"""FLUX.2 ImageWAM: backbone, action expert and proprio token, cached and joint.

Token order: text, proprio (after the last valid text token), reference image; then target or
action. Positions (time, row, column, index): text (0, 0, 0, i), reference (10, r, c, 0),
target (0, r, c, 0), action (2, i, 0, 0). Source: docs/model.md, section 1.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from imagewam_ros.model.expert_init import Inheritance
from imagewam_ros.model.flux2 import (
    DoubleBlock,
    DoubleStream,
    Flux2Config,
    Flux2Modulation,
    Flux2Transformer,
    SharedModulation,
    SingleBlock,
)
from imagewam_ros.model.flux2_expert import Flux2ActionExpert, reading_layer
from imagewam_ros.model.layers import Modulation, grid_ids, latents_of, rotation, tokens_of
from imagewam_ros.model.mot import JointMemory, KeyValueCache, Memory, attend, joined, prefix_mask, run_layer
from imagewam_ros.model.network import ImageWamNetwork
from imagewam_ros.model.protocol import Context, JointBatch, JointOutput, Plan, PrefixCache

Tables = tuple[Tensor, Tensor]
"""Rotary tables of text and image."""


class Prefix(NamedTuple):
    """Embedded prefix: text (B, L+1, hidden), image (B, R, hidden), rotary tables, validity (B, N)."""

    text: Tensor
    image: Tensor
    text_table: Tensor
    image_table: Tensor
    mask: Tensor | None


def double_layer(
    block: DoubleBlock, text: Tensor, image: Tensor, prefix: Prefix, modulation: Flux2Modulation, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One double block over a prefix: text and image after it, keys and values of both."""
    parts = (
        block.text.project(text, modulation.text, prefix.text_table)[0],
        block.image.project(image, modulation.image, prefix.image_table)[0],
    )
    heads, length = joined(parts), text.shape[1]
    attended = attend(heads.query, heads.key, heads.value, mask)
    text = block.text.merge(text, attended[:, :length], modulation.text, None)
    image = block.image.merge(image, attended[:, length:], modulation.image, None)
    return text, image, heads.key, heads.value


def single_layer(
    block: SingleBlock, x: Tensor, modulation: Sequence[Modulation], table: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """One single block over a prefix: the tokens after it, their keys and values."""
    heads, extra = block.project(x, modulation, table)
    return block.merge(x, attend(heads.query, heads.key, heads.value, mask), modulation, extra), heads.key, heads.value


class Flux2Network(ImageWamNetwork):
    """See the module; satisfies `protocol.Network`."""

    video: Flux2Transformer
    action: Flux2ActionExpert
    config: Flux2Config

    compiled_part = "filled"
    reference_time, target_time, action_time = 10, 0, 2
    """Time axis of the positions of reference image, target image and actions."""

    def __init__(self, config: Flux2Config) -> None:
        super().__init__(Flux2Transformer(config), Flux2ActionExpert(config), config)
        self._kept_tables: dict[object, Tables] = {}

    def prefill(
        self,
        latents: Tensor,
        context: Context,
        proprio: Tensor,
        horizon: int,
        plan: Plan | None = None,
        cache: PrefixCache | None = None,
    ) -> KeyValueCache:
        """See `protocol.Network`."""
        tables = self._prefix_tables(context.tokens.shape[1] + 1, latents)
        return self.filled(tables, latents, context, proprio, horizon, plan, cache)

    def filled(
        self,
        tables: Tables,
        latents: Tensor,
        context: Context,
        proprio: Tensor,
        horizon: int,
        plan: Plan | None,
        cache: PrefixCache | None,
    ) -> KeyValueCache:
        """The prefill after its rotary tables: fused kernels would not round these to `rope_dtype` on the way."""
        prefix = self._embed(tables, latents, context, proprio)
        c, length = self.config, prefix.text.shape[1] + prefix.image.shape[1]
        shape = (c.double + c.single, latents.shape[0], c.heads, length, c.head_dim)
        reuse = isinstance(cache, KeyValueCache) and prefix.mask is None and cache.fits(shape, horizon, prefix.image)
        memory = cache if reuse else KeyValueCache(shape, horizon, prefix.image, prefix.mask)
        assert isinstance(memory, KeyValueCache)
        modulation = plan.prefix if plan else self.prefix_modulation(latents.new_zeros(1))
        self._run_prefix(prefix, modulation, memory)
        return memory

    def joint_forward(self, batch: JointBatch) -> JointOutput:
        """See `protocol.Network`."""
        prefix = self._prefix(batch.reference, batch.context, batch.proprio)
        timestep = batch.reference.new_zeros(1)
        if not batch.prefix_at_zero:
            assert batch.target_timestep is not None and len(batch.target_timestep) == len(batch.reference)
            timestep = batch.target_timestep
        memory = JointMemory(prefix.mask, self.recompute)
        self._run_prefix(prefix, self.prefix_modulation(timestep), memory)
        video = None if batch.target is None else self._target_velocity(*self.noised_target(batch), memory)
        return JointOutput(self.action_velocity(batch, memory), video)

    def preview_velocity(
        self,
        target: Tensor,
        timestep: Tensor,
        latents: Tensor,
        context: Context,
        proprio: Tensor,
        prefix_at_zero: bool = False,
    ) -> Tensor:
        """See `protocol.Network`."""
        prefix = self._prefix(latents, context, proprio)
        memory = JointMemory(prefix.mask)
        seen_at = torch.zeros_like(timestep) if prefix_at_zero else timestep
        self._run_prefix(prefix, self.prefix_modulation(seen_at), memory)
        return self._target_velocity(target, timestep, memory)

    def prefix_modulation(self, timestep: Tensor) -> Flux2Modulation:
        """Modulation of the prefix at timestep (B,)."""
        return self.video.modulation(self.video.time_in(timestep))

    def action_table(self, horizon: int, device: torch.device) -> Tensor:
        """Rotary table of the action tokens."""
        ids = torch.zeros(horizon, 4, device=device)
        ids[:, 0], ids[:, 1] = self.action_time, torch.arange(horizon)
        return self._table(ids)

    def initialise_from_scratch(self) -> None:
        """Set what PyTorch's default initialisation does badly when nothing is pretrained.

        Heads start at zero, time and modulation small enough not to drown the tokens. Uses
        torch's global generator. Source: the recipe of the tiny policy.
        """
        for part in (self.video, self.action):
            nn.init.normal_(part.time_in.in_layer.weight, std=0.1)
            nn.init.normal_(part.time_in.out_layer.weight, std=0.2)
            for name, module in part.named_modules():
                if isinstance(module, SharedModulation):
                    nn.init.normal_(module.lin.weight, std=0.02)
                if name in ("final_layer", "head"):
                    nn.init.zeros_(module.linear.weight)  # type: ignore[arg-type,union-attr]
        nn.init.normal_(self.proprio_encoder.weight, std=0.3)

    def image_ids(self, rows: int, columns: int, time: int, device: torch.device) -> Tensor:
        """Positions (rows * columns, 4) of image tokens."""
        return grid_ids(rows, columns, time, 4, device)

    def inheritance(self) -> Inheritance:
        """How the expert starts from the backbone: rows q | k | v | MLP gate | MLP value, columns attention | MLP."""
        c = self.config
        attention, inner, expert = c.heads * c.head_dim, round(c.hidden * c.mlp_ratio), c.action_hidden
        own = round(expert * c.action_mlp_ratio)
        return Inheritance(
            parts=(
                (r"\.img_mlp\.0\.", 0, (inner,) * 2, (own,) * 2),
                (r"\.linear1\.", 0, (3 * attention, inner, inner), (3 * attention, own, own)),
                (r"\.linear2\.", 1, (attention, inner), (attention, own)),
                (r"^double_stream_modulation_img\.", 0, (c.hidden,) * 6, (expert,) * 6),
                (r"^single_stream_modulation\.", 0, (c.hidden,) * 3, (expert,) * 3),
            ),
            rescaled=True,
        )

    def _prefix(self, latents: Tensor, context: Context, proprio: Tensor) -> Prefix:
        return self._embed(self._prefix_tables(context.tokens.shape[1] + 1, latents), latents, context, proprio)

    def _embed(self, tables: Tables, latents: Tensor, context: Context, proprio: Tensor) -> Prefix:
        text, mask = self.pack(context, self.proprio_encoder(proprio))
        image = self.video.img_in(tokens_of(latents))
        if mask is not None:
            mask = torch.cat([mask, mask.new_ones(image.shape[:2])], 1)
        return Prefix(self.video.txt_in(text), image, *tables, mask)

    def _run_prefix(self, prefix: Prefix, modulation: Flux2Modulation, memory: Memory) -> None:
        """Run all layers over the prefix alone; the last owes only its keys and values."""
        text, image, mask = prefix.text, prefix.image, prefix_mask(prefix.mask)
        doubles: list[DoubleBlock] = [*self.video.double_blocks]  # type: ignore[list-item]
        for layer, block in enumerate(doubles):
            text, image, key, value = run_layer(memory, double_layer, block, text, image, prefix, modulation, mask)
            memory.store(layer, key, value)
        x = torch.cat([text, image], 1)
        table = torch.cat([prefix.text_table, prefix.image_table])
        singles: list[SingleBlock] = [*self.video.single_blocks]  # type: ignore[list-item]
        shared = [modulation.single]
        for layer, single in enumerate(singles[:-1], len(doubles)):
            x, key, value = run_layer(memory, single_layer, single, x, shared, table, mask)
            memory.store(layer, key, value)
        last = singles[-1]
        memory.store(len(doubles) + len(singles) - 1, *last.run(last.keys_values, x, modulation.single, table))

    def _target_velocity(self, noised: Tensor, timestep: Tensor, memory: Memory) -> Tensor:
        """Velocity of the noised target latents (S, C, h, w)."""
        vector = self.video.time_in(timestep)
        modulation = self.video.modulation(vector)
        x = self.video.img_in(tokens_of(noised))
        table = self._table(self.image_ids(noised.shape[2], noised.shape[3], self.target_time, noised.device))
        for layer, stream in enumerate(self.video.image_streams()):
            shared = modulation.image if isinstance(stream, DoubleStream) else [modulation.single]
            x = run_layer(memory, reading_layer, stream, x, shared, table, memory, layer)
        head = self.video.final_layer
        return latents_of(head(x, head.modulation(vector)), noised.shape[2], noised.shape[3])

    def _prefix_tables(self, length: int, latents: Tensor) -> Tables:
        """Rotary tables of text and image, kept per shape for good: CUDA graphs of other lengths read them too."""
        rows, columns = latents.shape[2:]
        key = (length, rows, columns, latents.device)
        if key not in self._kept_tables:
            with torch.inference_mode(False):  # training may need them next
                ids = torch.zeros(length, 4, device=latents.device)
                ids[:, 3] = torch.arange(length)
                grid = self.image_ids(rows, columns, self.reference_time, latents.device)
                self._kept_tables[key] = self._table(ids), self._table(grid)
        return self._kept_tables[key]

    def _table(self, ids: Tensor) -> Tensor:
        return rotation(ids, self.config.axes, self.config.theta, getattr(torch, self.config.rope_dtype))
