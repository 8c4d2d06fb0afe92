# SPDX-License-Identifier: Apache-2.0
"""OmniGen2 ImageWAM: backbone, action expert and proprio token, cached and joint.

Positions (index, row, column): text token i has (i, i, i) for i < n, the number of text tokens
with proprio; reference (n, r, c); target (n + max(rows, columns), r, c). Refiners run first:
text over text, reference and target each over themselves. Source: docs/variants.md,
section 2.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from imagewam_ros.core.errors import ConfigError
from imagewam_ros.model.expert_init import Inheritance
from imagewam_ros.model.layers import grid_ids, rotation
from imagewam_ros.model.mot import JointMemory, KeyValueCache, Memory, attend, prefix_mask, run_layer
from imagewam_ros.model.network import ImageWamNetwork, pack_proprio
from imagewam_ros.model.omnigen2 import Gating, OmniBlock, OmniGen2Config, OmniGen2Transformer, OmniModulation
from imagewam_ros.model.omnigen2_expert import OmniActionExpert, reading_layer
from imagewam_ros.model.protocol import Context, JointBatch, JointOutput, Plan, PrefixCache


class OmniPrefix(NamedTuple):
    """Refined prefix: tokens (B, N, h), positions (B or 1, N, 3), validity (B, N), text lengths (B,)."""

    tokens: Tensor
    ids: Tensor
    mask: Tensor | None
    lengths: Tensor


def prefix_layer(
    block: OmniBlock, x: Tensor, gating: Gating, table: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """One layer over a prefix: the tokens after it, their keys and values."""
    heads = block.project(x, gating, table)
    return block.merge(x, attend(heads.query, heads.key, heads.value, mask), gating), heads.key, heads.value


class OmniGen2Network(ImageWamNetwork):
    """See the module; satisfies `protocol.Network`. Latents are (B, 16, H / 8, W / 8), not packed."""

    video: OmniGen2Transformer
    action: OmniActionExpert
    config: OmniGen2Config

    def __init__(self, config: OmniGen2Config) -> None:
        super().__init__(OmniGen2Transformer(config), OmniActionExpert(config), config)

    def pack(self, context: Context, token: Tensor) -> Context:
        """Put the proprio token where this checkpoint was trained to find it."""
        if self.config.pack_after_text or context.mask is None:
            return pack_proprio(context, token)
        tokens = torch.cat([context.tokens.to(token.dtype).expand(token.shape[0], -1, -1), token[:, None]], 1)
        mask = context.mask.expand(token.shape[0], -1)
        return Context(tokens, torch.cat([mask, mask.new_ones(mask.shape[0], 1)], 1))

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
        modulation: OmniModulation = plan.prefix if plan else self.prefix_modulation(latents.new_zeros(1).float())
        prefix = self.embed(latents, self.pack(context, self.proprio_encoder(proprio)), modulation)
        c = self.config
        shape = (c.layers, latents.shape[0], c.kv_heads, prefix.tokens.shape[1], c.head_dim)
        reuse = isinstance(cache, KeyValueCache) and prefix.mask is None and cache.fits(shape, horizon, prefix.tokens)
        memory = cache if reuse else KeyValueCache(shape, horizon, prefix.tokens, prefix.mask)
        assert isinstance(memory, KeyValueCache)
        self.run_prefix(prefix, modulation, memory)
        return memory

    def joint_forward(self, batch: JointBatch) -> JointOutput:
        """See `protocol.Network`."""
        timestep = batch.action_timestep.new_zeros(1)
        if not batch.prefix_at_zero:
            assert batch.target_timestep is not None and len(batch.target_timestep) == len(batch.reference)
            timestep = batch.target_timestep
        packed = self.pack(batch.context, self.proprio_encoder(batch.proprio))
        memory, prefix = self._prefix(batch.reference, packed, timestep)
        video = None
        if batch.target is not None:
            noised, times = self.noised_target(batch)
            video = self._target_velocity(noised, times, prefix, memory)
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
        packed = self.pack(context, self.proprio_encoder(proprio))
        memory, prefix = self._prefix(latents, packed, torch.zeros_like(timestep) if prefix_at_zero else timestep)
        return self._target_velocity(target, timestep, prefix, memory)

    def prefix_modulation(self, timestep: Tensor) -> OmniModulation:
        """Modulation of the prefix at timestep (B,)."""
        return self.video.modulation(timestep)

    def action_table(self, horizon: int, device: torch.device) -> Tensor:
        """Rotary table of the action tokens."""
        ids = torch.arange(horizon, device=device, dtype=torch.float64)[:, None]
        return rotation(ids, (self.config.head_dim,), self.config.action_theta, torch.float64)

    def inheritance(self) -> Inheritance:
        """How the expert starts from the backbone; fused rows are scale | gate | MLP scale | MLP gate."""
        c = self.config
        return Inheritance(
            renamed=((r"^blocks\.", "layers."), (r"^timestep_", "time_caption_embed.timestep_")),
            parts=((r"\.norm1\.linear\.", 0, (c.hidden,) * 4, (c.action_hidden,) * 4),),
        )

    def goal_noise(self, seed: int, latents: Tensor) -> Tensor:
        """Start noise of a goal image; here the authors draw latents."""
        noise = torch.randn(latents.shape, generator=torch.Generator("cpu").manual_seed(seed))
        return noise.to(latents.device)

    def embed(self, latents: Tensor, packed: Context, modulation: OmniModulation) -> OmniPrefix:
        """Refine packed text (B, L + 1, ctx) and reference image into the joint sequence's prefix."""
        batch, length = packed.tokens.shape[:2]
        lengths = torch.full((1,), length, device=latents.device) if packed.mask is None else packed.mask.sum(1)
        text = self._refined_text(packed, lengths)
        grid, patches = self.patches(latents)
        image = self.video.ref_image_patch_embedder(patches) + self.video.image_index_embedding[0]
        table = self.table(self._image_ids(lengths, grid))
        for block, gating in zip(self.video.ref_image_refiner, modulation.reference, strict=True):
            image = block(image, gating, table)
        place = torch.arange(length, device=latents.device)[None]  # (1, L + 1)
        ids = torch.cat([place[..., None].expand(len(lengths), -1, 3), self._image_ids(lengths, grid)], 1)
        mask = None
        if packed.mask is not None:
            mask = torch.cat([place < lengths[:, None], place.new_ones(batch, image.shape[1], dtype=torch.bool)], 1)
        tokens = torch.cat([text, image], 1)
        if mask is not None and batch == 1:  # compact, as the authors' sequences are
            return OmniPrefix(tokens[:, mask[0]], ids[:, mask[0]], None, lengths)
        return OmniPrefix(tokens, ids, mask, lengths)

    def run_prefix(self, prefix: OmniPrefix, modulation: OmniModulation, memory: Memory) -> None:
        """Run all layers over the prefix alone; the last owes only its keys and values."""
        x, mask, table = prefix.tokens, prefix_mask(prefix.mask), self.table(prefix.ids)
        blocks = self._layers()
        for layer, (block, gating) in enumerate(zip(blocks[:-1], modulation.layers, strict=False)):
            x, key, value = run_layer(memory, prefix_layer, block, x, gating, table, mask)
            memory.store(layer, key, value)
        last = blocks[-1]
        memory.store(len(blocks) - 1, *last.run(last.keys_values, x, modulation.layers[-1], table))

    def table(self, ids: Tensor) -> Tensor:
        """Rotary table (B or 1, 1, n, d / 2) of positions (B or 1, n, 3)."""
        return rotation(ids[:, None], self.config.axes, self.config.theta, torch.float64)

    def _refined_text(self, packed: Context, lengths: Tensor) -> Tensor:
        """Text tokens (B, L + 1, h). Rows past the length have no position: their queries and keys are zero."""
        length = packed.tokens.shape[1]
        if length > min(self.config.axes_lengths):
            raise ConfigError(f"text of {length} tokens is longer than the positions {min(self.config.axes_lengths)}")
        place = torch.arange(length, device=lengths.device)[None]
        table = self.table(place[..., None].expand(-1, -1, 3))
        if packed.mask is not None:
            inside = (place < lengths[:, None])[:, None, :, None]  # (B, 1, L + 1, 1)
            table = table * inside
        x: Tensor = self.video.time_caption_embed.caption_embedder(packed.tokens)
        for block in self.video.context_refiner:
            x = block(x, None, table, prefix_mask(packed.mask))
        return x

    def _prefix(self, latents: Tensor, packed: Context, timestep: Tensor) -> tuple[JointMemory, OmniPrefix]:
        modulation = self.prefix_modulation(timestep)
        prefix = self.embed(latents, packed, modulation)
        memory = JointMemory(prefix.mask, self.recompute)
        self.run_prefix(prefix, modulation, memory)
        return memory, prefix

    def target_tokens(self, noised: Tensor, vector: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Refined target tokens (S, R, h) at the time vector (S, cond), and their rotary table."""
        grid, patches = self.patches(noised)
        table = self.table(self._image_ids(lengths + max(grid), grid))
        x = self.video.x_embedder(patches)
        for block in self.video.noise_refiner:
            x = block(x, block.norm1.gating(vector), table)  # type: ignore[union-attr,operator]
        return x, table

    def _target_velocity(self, noised: Tensor, timestep: Tensor, prefix: OmniPrefix, memory: Memory) -> Tensor:
        """Velocity of the noised target latents (S, C, h, w)."""
        modulation = self.video.modulation(timestep)
        x, table = self.target_tokens(noised, modulation.vector, prefix.lengths[: noised.shape[0]])
        for layer, (block, gating) in enumerate(zip(self._layers(), modulation.layers, strict=True)):
            x = run_layer(memory, reading_layer, block, x, gating, table, memory, layer)
        head = self.video.norm_out
        return self._latents(head(x, head.scale(modulation.vector)), noised)

    def patches(self, latents: Tensor) -> tuple[tuple[int, int], Tensor]:
        """Grid (rows, columns) and patches (B, R, p p C) in order (row, column, channel)."""
        p = self.config.patch
        parts = latents.unflatten(3, (-1, p)).unflatten(2, (-1, p))  # (B, C, rows, p, columns, p)
        return (parts.shape[2], parts.shape[4]), parts.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)

    def _latents(self, patches: Tensor, like: Tensor) -> Tensor:
        """Undo `patches`."""
        p, (height, width) = self.config.patch, like.shape[2:]
        parts = patches.unflatten(2, (p, p, -1)).unflatten(1, (height // p, width // p))
        latents: Tensor = parts.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)
        return latents

    def _image_ids(self, index: Tensor, grid: tuple[int, int]) -> Tensor:
        """Positions (B or 1, R, 3) of image tokens at index (B or 1,)."""
        ids = grid_ids(*grid, 0, 3, index.device).expand(len(index), -1, -1).clone()
        ids[..., 0] = index[:, None]
        return ids

    def _layers(self) -> list[OmniBlock]:
        return [*self.video.layers]  # type: ignore[list-item]
