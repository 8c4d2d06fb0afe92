# SPDX-License-Identifier: Apache-2.0
"""Ovis-U1 ImageWAM: backbone, action expert and proprio token, cached and joint.

Positions (time, row, column): text (0, 0, 0), reference (1, r, c), target (0, r, c), action
(2, i, 0). Image attention leaves the text out: target reads target and reference, reference
itself, action reference and action. Source: docs/variants.md, section 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from imagewam_ros.model.expert_init import Inheritance
from imagewam_ros.model.layers import Modulation, grid_ids, latents_of, rotation, tokens_of
from imagewam_ros.model.mot import CapturedMemory, JointMemory, KeyValueCache, attend, joined, prefix_mask, run_layer
from imagewam_ros.model.network import ImageWamNetwork
from imagewam_ros.model.ovis_u1 import OvisDoubleBlock, OvisModulation, OvisSingleBlock, OvisTransformer, OvisU1Config
from imagewam_ros.model.ovis_u1_expert import OvisActionExpert, OvisMemory, run_image_stream
from imagewam_ros.model.protocol import Context, JointBatch, JointOutput, Plan, PrefixCache


class OvisPrefix(NamedTuple):
    """Embedded prefix: text (B, L+1, h), class row (B, h), image (B, R, h), rotary tables, validity (B, N)."""

    text: Tensor
    summary: Tensor
    image: Tensor
    text_table: Tensor
    image_table: Tensor
    mask: Tensor | None


@dataclass(frozen=True)
class OvisMemories:
    """Keys and values of both attentions, with gradients or captured."""

    joint: JointMemory | CapturedMemory
    image: JointMemory | KeyValueCache


@dataclass(frozen=True)
class OvisCache:
    """Keys and values of both attentions in preallocated buffers."""

    joint: KeyValueCache
    image: KeyValueCache

    @property
    def batch(self) -> int:
        """Number of prefixes."""
        return self.joint.batch

    @property
    def prefix_length(self) -> int:
        """Tokens per prefix."""
        return self.joint.prefix_length

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values."""
        return self.joint.nbytes + self.image.nbytes

    def captured(self) -> OvisMemories:
        """Keep the weights of the joint attention, which text and image take part in."""
        return OvisMemories(self.joint.captured(), self.image)


KeyValue = tuple[Tensor, Tensor]


def double_layer(
    block: OvisDoubleBlock,
    text: Tensor,
    image: Tensor,
    prefix: OvisPrefix,
    modulation: tuple[Sequence[Modulation], Sequence[Modulation]],
    mask: Tensor | None,
) -> tuple[Tensor, Tensor, KeyValue, KeyValue]:
    """One double block over a prefix: text and image after it, keys and values of both attentions."""
    of_text, of_image = modulation
    heads, own = block.project_image(image, of_image, prefix.image_table)
    heads, length = joined((block.project_text(text, of_text, prefix.text_table), heads)), text.shape[1]
    attended = attend(heads.query, heads.key, heads.value, mask)
    text = block.merge_text(text, attended[:, :length], of_text)
    image = block.merge_image(image, attended[:, length:], attend(*own), of_image)
    return text, image, (heads.key, heads.value), (own.key, own.value)


def single_layer(
    block: OvisSingleBlock, x: Tensor, modulation: Sequence[Modulation], table: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """One single block over a prefix: the tokens after it, their keys and values."""
    heads, extra = block.project(x, modulation, table)
    return block.merge(x, attend(heads.query, heads.key, heads.value, mask), modulation, extra), heads.key, heads.value


class OvisU1Network(ImageWamNetwork):
    """See the module; satisfies `protocol.Network`."""

    video: OvisTransformer
    action: OvisActionExpert
    config: OvisU1Config

    reference_time, target_time, action_time = 1, 0, 2
    """Time axis of the positions of reference image, target image and actions."""
    unused = r"^action\.double_blocks\.\d+\.txt_(mod|attn|mlp)\."

    def __init__(self, config: OvisU1Config) -> None:
        super().__init__(OvisTransformer(config), OvisActionExpert(config), config)

    def pack(self, context: Context, token: Tensor) -> Context:
        """Append the proprio token; text has no positions here, so pads before it do no harm."""
        tokens = torch.cat([context.tokens.to(token.dtype).expand(token.shape[0], -1, -1), token[:, None]], 1)
        if context.mask is None:
            return Context(tokens)
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
    ) -> OvisCache:
        """See `protocol.Network`."""
        prefix = self.embed(latents, self.pack(context, self.proprio_encoder(proprio)))
        memory = self._reusable(prefix, horizon, cache) or self._new_cache(prefix, horizon)
        self.run_prefix(prefix, self._modulation(latents.new_zeros(1), prefix), memory)
        return memory

    def joint_forward(self, batch: JointBatch) -> JointOutput:
        """See `protocol.Network`."""
        prefix = self.embed(batch.reference, self.pack(batch.context, self.proprio_encoder(batch.proprio)))
        timestep = batch.reference.new_zeros(1)
        if not batch.prefix_at_zero:
            assert batch.target_timestep is not None and len(batch.target_timestep) == len(batch.reference)
            timestep = batch.target_timestep
        memory = OvisMemories(JointMemory(prefix.mask, self.recompute), JointMemory())
        self.run_prefix(prefix, self._modulation(timestep, prefix), memory)
        video = None
        if batch.target is not None:
            video = self._target(*self.noised_target(batch), prefix, memory)
        return JointOutput(self.action_velocity(batch, memory), video)  # type: ignore[arg-type]

    def preview_velocity(
        self,
        target: Tensor,
        timestep: Tensor,
        latents: Tensor,
        context: Context,
        proprio: Tensor,
        prefix_at_zero: bool = False,
    ) -> Tensor:
        """See `protocol.Network`. As the authors preview, past the refiner all tokens read all, pads included.

        With prefix_at_zero they read what they read in training.
        """
        prefix = self.embed(latents, self.pack(context, self.proprio_encoder(proprio)))
        if prefix_at_zero:
            memory = OvisMemories(JointMemory(prefix.mask), JointMemory())
            self.run_prefix(prefix, self._modulation(torch.zeros_like(timestep), prefix), memory)
            return self._target(target, timestep, prefix, memory)
        ids = self.image_ids(target.shape[2], target.shape[3], self.target_time, target.device)
        image = torch.cat([self.video.img_in(tokens_of(target)), prefix.image], 1)
        table = torch.cat([self._table(ids), prefix.image_table])
        modulation = self._modulation(timestep, prefix)
        x = self._native(prefix.text, image, prefix.text_table, table, modulation)[:, : ids.shape[0]]
        return latents_of(self.video.final_layer(x, modulation.head), target.shape[2], target.shape[3])

    def prefix_modulation(self, timestep: Tensor) -> None:
        """None: the class row of the text is part of it."""
        return

    def action_table(self, horizon: int, device: torch.device) -> Tensor:
        """Rotary table of the action tokens."""
        return self._table(self.action_ids(horizon, device))

    def action_ids(self, horizon: int, device: torch.device) -> Tensor:
        """Positions (T, 3) of the action tokens."""
        ids = torch.zeros(horizon, 3, device=device)
        ids[:, 0], ids[:, 1] = self.action_time, torch.arange(horizon)
        return ids

    def image_ids(self, rows: int, columns: int, time: int, device: torch.device) -> Tensor:
        """Positions (rows * columns, 3) of image tokens."""
        return grid_ids(rows, columns, time, 3, device)

    def inheritance(self) -> Inheritance:
        """How the expert starts from the backbone: same widths, so plain copies."""
        return Inheritance()

    def embed(self, latents: Tensor, packed: Context) -> OvisPrefix:
        """Refine the packed text and embed the image."""
        text, summary = self.video.txt_in(packed)
        image = self.video.img_in(tokens_of(latents))
        mask = packed.mask
        if mask is not None:
            mask = torch.cat([mask, mask.new_ones(image.shape[:2])], 1)
        ids = self.image_ids(latents.shape[2], latents.shape[3], self.reference_time, latents.device)
        nowhere = torch.zeros(text.shape[1], 3, device=latents.device)
        return OvisPrefix(text, summary, image, self._table(nowhere), self._table(ids), mask)

    def run_prefix(self, prefix: OvisPrefix, modulation: OvisModulation, memory: OvisMemory) -> None:
        """Run all layers over the prefix alone; the last owes only its keys and values."""
        text, image, mask = prefix.text, prefix.image, prefix_mask(prefix.mask)
        for layer, block in enumerate(self._doubles()):
            shared = modulation.text[layer], modulation.image[layer]
            text, image, both, own = run_layer(memory.joint, double_layer, block, text, image, prefix, shared, mask)
            memory.joint.store(layer, *both)
            memory.image.store(layer, *own)
        x, table = torch.cat([text, image], 1), torch.cat([prefix.text_table, prefix.image_table])
        singles = self._singles()
        for layer, single in enumerate(singles[:-1], self.config.double):
            of_single = modulation.single[layer - self.config.double]
            x, *kept = run_layer(memory.joint, single_layer, single, x, of_single, table, mask)
            memory.joint.store(layer, *kept)
        last = singles[-1]
        owed = last.run(last.keys_values, x, modulation.single[-1], table)
        memory.joint.store(self.config.double + len(singles) - 1, *owed)

    def _native(
        self, text: Tensor, image: Tensor, text_table: Tensor, image_table: Tensor, modulation: OvisModulation
    ) -> Tensor:
        """The plain editor: image rows after all blocks, everyone reading everyone."""
        length = text.shape[1]
        for block, of_image, of_text in zip(self._doubles(), modulation.image, modulation.text, strict=True):
            heads, own = block.project_image(image, of_image, image_table)
            attended = attend(*joined((block.project_text(text, of_text, text_table), heads)))
            text = block.merge_text(text, attended[:, :length], of_text)
            image = block.merge_image(image, attended[:, length:], attend(*own), of_image)
        x, table = torch.cat([text, image], 1), torch.cat([text_table, image_table])
        for single, shared in zip(self._singles(), modulation.single, strict=True):
            heads, extra = single.project(x, shared, table)
            x = single.merge(x, attend(*heads), shared, extra)
        return x[:, length:]

    def _target(self, noised: Tensor, timestep: Tensor, prefix: OvisPrefix, memory: OvisMemory) -> Tensor:
        """Velocity of the noised target latents (S, C, h, w) of the first S prefixes."""
        rows, columns = noised.shape[2], noised.shape[3]
        modulation = self.video.modulation(self.video.vector(timestep, prefix.summary[: noised.shape[0]]))
        table = self._table(self.image_ids(rows, columns, self.target_time, noised.device))
        x = self.video.img_in(tokens_of(noised))
        x = run_image_stream(x, self._doubles(), self._singles(), modulation.image, modulation.single, memory, table)
        return latents_of(self.video.final_layer(x, modulation.head), rows, columns)

    def _modulation(self, timestep: Tensor, prefix: OvisPrefix) -> OvisModulation:
        return self.video.modulation(self.video.vector(timestep, prefix.summary))

    def _new_cache(self, prefix: OvisPrefix, horizon: int) -> OvisCache:
        joint, image = self._shapes(prefix)
        return OvisCache(
            KeyValueCache(joint, horizon, prefix.image, prefix.mask), KeyValueCache(image, horizon, prefix.image)
        )

    def _reusable(self, prefix: OvisPrefix, horizon: int, cache: PrefixCache | None) -> OvisCache | None:
        if not isinstance(cache, OvisCache) or prefix.mask is not None:
            return None
        joint, image = self._shapes(prefix)
        fits = cache.joint.fits(joint, horizon, prefix.image) and cache.image.fits(image, horizon, prefix.image)
        return cache if fits else None

    def _shapes(self, prefix: OvisPrefix) -> tuple[tuple[int, int, int, int, int], tuple[int, int, int, int, int]]:
        c, (batch, count) = self.config, prefix.image.shape[:2]
        joint = (c.double + c.single, batch, c.heads, prefix.text.shape[1] + count, c.head_dim)
        return joint, (c.double, batch, c.heads, count, c.head_dim)

    def _doubles(self) -> list[OvisDoubleBlock]:
        return [*self.video.double_blocks]  # type: ignore[list-item]

    def _singles(self) -> list[OvisSingleBlock]:
        return [*self.video.single_blocks]  # type: ignore[list-item]

    def _table(self, ids: Tensor) -> Tensor:
        return rotation(ids, self.config.axes, self.config.theta, torch.float64)
