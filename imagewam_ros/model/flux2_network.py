# SPDX-License-Identifier: Apache-2.0
"""FLUX.2 ImageWAM: backbone, action expert and proprio token, cached and joint.

Token order: text, proprio (after the last valid text token), reference image; then target or
action. Positions (time, row, column, index): text (0, 0, 0, i), reference (10, r, c, 0),
target (0, r, c, 0), action (2, i, 0, 0). Source: model.md of the design notes, section 1.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from imagewam_ros.model.flux2 import DoubleStream, Flux2Config, Flux2Modulation, Flux2Transformer
from imagewam_ros.model.flux2_expert import Flux2ActionExpert
from imagewam_ros.model.layers import Rotation, grid_ids, latents_of, rotation, tokens_of
from imagewam_ros.model.mot import JointMemory, KeyValueCache, Memory, attend, joined, prefix_mask
from imagewam_ros.model.network import ImageWamNetwork, pack_proprio
from imagewam_ros.model.protocol import Context, JointBatch, JointOutput, Plan, PrefixCache

REFERENCE_TIME, TARGET_TIME, ACTION_TIME = 10, 0, 2
"""Time axis of the positions of reference image, target image and actions."""


class Prefix(NamedTuple):
    """Embedded prefix: text (B, L+1, hidden), image (B, R, hidden), rotary tables, validity (B, N)."""

    text: Tensor
    image: Tensor
    text_table: Rotation
    image_table: Rotation
    mask: Tensor | None


class Flux2Network(ImageWamNetwork):
    """See the module; satisfies `protocol.Network`."""

    video: Flux2Transformer
    action: Flux2ActionExpert

    def __init__(self, config: Flux2Config) -> None:
        super().__init__(Flux2Transformer(config), Flux2ActionExpert(config), config.proprio_dim, config.text_dim)
        self.config = config

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
        prefix = self._embed(latents, context, proprio)
        c, length = self.config, prefix.text.shape[1] + prefix.image.shape[1]
        shape = (c.double + c.single, latents.shape[0], c.heads, length, c.head_dim)
        reuse = isinstance(cache, KeyValueCache) and prefix.mask is None and cache.fits(shape, horizon, prefix.image)
        memory = cache if reuse else KeyValueCache(shape, horizon, prefix.image, prefix.mask)
        assert isinstance(memory, KeyValueCache)
        modulation = plan.prefix if plan else self.prefix_modulation(latents.new_zeros(latents.shape[0]))
        self._run_prefix(prefix, modulation, memory)
        return memory

    def joint_forward(self, batch: JointBatch) -> JointOutput:
        """See `protocol.Network`."""
        prefix = self._embed(batch.reference, batch.context, batch.proprio)
        timestep = batch.reference.new_zeros(batch.reference.shape[0])
        if not batch.prefix_at_zero:
            assert batch.target_timestep is not None and batch.target_timestep.shape == timestep.shape
            timestep = batch.target_timestep
        memory = JointMemory(prefix.mask)
        self._run_prefix(prefix, self.prefix_modulation(timestep), memory)
        video = None if batch.target is None else self._target_velocity(*self.noised_target(batch), memory)
        return JointOutput(self.action_velocity(batch, memory), video)

    def preview_velocity(
        self, target: Tensor, timestep: Tensor, latents: Tensor, context: Context, proprio: Tensor
    ) -> Tensor:
        """See `protocol.Network`."""
        prefix = self._embed(latents, context, proprio)
        memory = JointMemory(prefix.mask)
        self._run_prefix(prefix, self.prefix_modulation(timestep), memory)
        return self._target_velocity(target, timestep, memory)

    def prefix_modulation(self, timestep: Tensor) -> Flux2Modulation:
        """Modulation of the prefix at timestep (B,)."""
        return self.video.modulation(self.video.time_in(timestep))

    def action_table(self, horizon: int, device: torch.device) -> Rotation:
        """Rotary table of the action tokens."""
        ids = torch.zeros(horizon, 4, device=device)
        ids[:, 0], ids[:, 1] = ACTION_TIME, torch.arange(horizon)
        return self._table(ids)

    def _embed(self, latents: Tensor, context: Context, proprio: Tensor) -> Prefix:
        text, mask = pack_proprio(context, self.proprio_encoder(proprio), latents.shape[0])
        ids = torch.zeros(text.shape[1], 4, device=latents.device)
        ids[:, 3] = torch.arange(text.shape[1])
        image = self.video.img_in(tokens_of(latents))
        if mask is not None:
            mask = torch.cat([mask, mask.new_ones(image.shape[:2])], 1)
        grid = grid_ids(latents.shape[2], latents.shape[3], REFERENCE_TIME, 4, latents.device)
        return Prefix(self.video.txt_in(text), image, self._table(ids), self._table(grid), mask)

    def _run_prefix(self, prefix: Prefix, modulation: Flux2Modulation, memory: Memory) -> None:
        """Run all layers over the prefix alone; the last owes only its keys and values."""
        text, image, mask = prefix.text, prefix.image, prefix_mask(prefix.mask)
        length = text.shape[1]
        for layer, block in enumerate(self.video.double_blocks):
            streams: tuple[DoubleStream, DoubleStream] = (block.text, block.image)  # type: ignore[assignment]
            parts = (
                streams[0].project(text, modulation.text, prefix.text_table)[0],
                streams[1].project(image, modulation.image, prefix.image_table)[0],
            )
            heads = joined(parts)
            memory.store(layer, heads.key, heads.value)
            attended = attend(*heads, mask)
            text = streams[0].merge(text, attended[:, :length], modulation.text, None)
            image = streams[1].merge(image, attended[:, length:], modulation.image, None)
        x = torch.cat([text, image], 1)
        table = Rotation(*(torch.cat(pair, 0) for pair in zip(prefix.text_table, prefix.image_table, strict=True)))
        *singles, last = self.video.single_blocks
        shared = [modulation.single]
        for layer, single in enumerate(singles, self.config.double):
            heads, extra = single.project(x, shared, table)  # type: ignore[operator]
            memory.store(layer, heads.key, heads.value)
            x = single.merge(x, attend(*heads, mask), shared, extra)  # type: ignore[operator]
        memory.store(self.config.double + len(singles), *last.keys_values(x, modulation.single, table))  # type: ignore[operator]

    def _target_velocity(self, noised: Tensor, timestep: Tensor, memory: Memory) -> Tensor:
        """Velocity of the noised target latents (S, C, h, w)."""
        vector = self.video.time_in(timestep)
        modulation = self.video.modulation(vector)
        x = self.video.img_in(tokens_of(noised))
        table = self._table(grid_ids(noised.shape[2], noised.shape[3], TARGET_TIME, 4, noised.device))
        for layer, stream in enumerate(self.video.image_streams()):
            shared = modulation.image if isinstance(stream, DoubleStream) else [modulation.single]
            heads, extra = stream.project(x, shared, table)
            x = stream.merge(x, memory.attend(layer, heads), shared, extra)  # type: ignore[arg-type]
        head = self.video.final_layer
        return latents_of(head(x, head.modulation(vector)), noised.shape[2], noised.shape[3])

    def _table(self, ids: Tensor) -> Rotation:
        return rotation(ids, self.config.axes, self.config.theta, getattr(torch, self.config.rope_dtype))
