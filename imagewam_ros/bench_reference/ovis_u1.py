# SPDX-License-Identifier: Apache-2.0
"""Ovis-U1 ImageWAM in the authors' order of work, on our modules' weights.

What it does and ours does not: it runs the last block and the image head to the end; concatenates both
attentions' keys and values with the action's in every layer of every step, under masks; computes rotary
tables and the expert's modulation in every step. Its condition encoder sees the image, so both schedules
run it for every chunk, and there is no padding to trim: that is why the ratio is near one. Source:
docs/variants.md, section 1, and performance.md of the design notes.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import Qwen3Config, Qwen3Model

from imagewam_ros.bench_reference.omnigen2 import LayerCache, attention, joined, kl_autoencoder, token_major
from imagewam_ros.bench_reference.sizes import VALID_TOKENS, Layout, Weights, filled
from imagewam_ros.model import flow
from imagewam_ros.model.autoencoder import PackedKlCodec
from imagewam_ros.model.mot import joined as joined_heads
from imagewam_ros.model.ovis_condition import IMAGE, IMAGE_END, IMAGE_START, OvisCondition
from imagewam_ros.model.ovis_u1 import OvisU1Config
from imagewam_ros.model.ovis_u1_network import OvisU1Network
from imagewam_ros.model.ovis_vision import VisionConfig
from imagewam_ros.model.protocol import Context


class Size(NamedTuple):
    """Numbers of network and vision; of the language model width, heads, key heads, inner, vocabulary and layers."""

    network: dict[str, Any]
    vision: VisionConfig
    text: tuple[int, int, int, int, int, int]
    autoencoder: int


SIZES = {
    "tiny": Size(
        {"hidden": 24, "heads": 2, "axes": (4, 4, 4), "double": 2, "single": 2, "text_dim": 64},
        VisionConfig(vocab=68, hidden=16, inner=32, layers=2, heads=2, min_pixels=784, max_pixels=12544),
        (32, 2, 1, 64, 256, 2),
        8,
    ),
    "sixth": Size(
        {"hidden": 256, "heads": 2, "text_dim": 688},
        VisionConfig(vocab=10924, hidden=192, inner=472),
        (344, 2, 1, 1024, 4096, 28),
        32,
    ),
}
"""sixth is the released size at about 1/6 of its widths, whole heads of 128."""


class Prefilled(NamedTuple):
    """Keys and values of all layers, and of the image attention of the double blocks."""

    joint: list[LayerCache]
    image: list[LayerCache]


def build(preset: str, layout: Layout, device: torch.device | str, dtype: torch.dtype) -> Weights:
    """Random weights of a preset."""
    size = SIZES[preset]
    width, heads, kv_heads, inner, vocabulary, layers = size.text
    llm = Qwen3Model(
        Qwen3Config(
            vocab_size=vocabulary, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
            num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=16 if preset == "tiny" else 128,
            bos_token_id=None, eos_token_id=None,
        )
    )  # fmt: skip
    config = OvisU1Config(**size.network, action_dim=layout.actions, proprio_dim=layout.proprio)
    parts = (OvisU1Network(config), OvisCondition(size.vision, llm), kl_autoencoder(size.autoencoder, 4))
    network, condition, autoencoder = filled(parts, device, dtype)
    return Weights(network, PackedKlCodec(autoencoder), condition, (), vocabulary)


def prompt(weights: Weights, rng: np.random.Generator) -> Tensor:
    """Token ids (1, L) of an instruction, with the placeholders of one image."""
    words = torch.from_numpy(rng.integers(0, weights.vocabulary, VALID_TOKENS))
    return torch.cat([words[:3], torch.tensor([IMAGE_START, IMAGE, IMAGE_END]), words[3:]])[None]


def text_context(weights: Weights, ids: Tensor, pixels: Tensor) -> Context:
    """Features (1, L, ctx) of token ids (1, L) and the image."""
    context: Context = weights.text(ids, pixels.to(weights.text.vte.weight.dtype))
    return context


def kept_text(context: Context) -> None:
    """Nothing can be kept: the next image changes it."""


def prefill(network: OvisU1Network, latents: Tensor, context: Context, proprio: Tensor) -> Prefilled:
    """One editing forward, to the end of the image head."""
    video, kept = network.video, Prefilled([], [])
    prefix = network.embed(latents, network.pack(context, network.proprio_encoder(proprio)))
    modulation = video.modulation(video.vector(latents.new_zeros(1), prefix.summary))
    text, image, length = prefix.text, prefix.image, prefix.text.shape[1]
    count = length + image.shape[1]
    mask = torch.ones(count, count, dtype=torch.bool, device=image.device)
    block: Any
    for block, of_image, of_text in zip(video.double_blocks, modulation.image, modulation.text, strict=True):
        heads, own = block.project_image(image, of_image, prefix.image_table)
        heads = joined_heads((block.project_text(text, of_text, prefix.text_table), heads))
        kept.joint.append(token_major(heads))
        kept.image.append(token_major(own))
        attended = attention(heads.query, kept.joint[-1], mask)
        alone = attention(own.query, kept.image[-1], mask[length:, length:])
        text = block.merge_text(text, attended[:, :length], of_text)
        image = block.merge_image(image, attended[:, length:], alone, of_image)
    x, table = torch.cat([text, image], 1), torch.cat([prefix.text_table, prefix.image_table])
    for block, shared in zip(video.single_blocks, modulation.single, strict=True):
        heads, extra = block.project(x, shared, table)
        kept.joint.append(token_major(heads))
        x = block.merge(x, attention(heads.query, kept.joint[-1], mask), shared, extra)
    video.final_layer(x[:, length:], modulation.head)
    return kept


def denoise(network: OvisU1Network, noise: Tensor, cache: Prefilled, steps: int = 10, shift: float = 5.0) -> Tensor:
    """Euler steps from noise (B, T, D), everything computed anew in each."""
    dtype, expert = network.proprio_encoder.weight.dtype, network.action
    grid = flow.schedule(steps, shift, "bfloat16" if dtype == torch.bfloat16 else "float32")
    actions, rows = noise.to(dtype), noise.shape[1]
    joint, image = (torch.ones(rows, kept[0].key.shape[1] + rows, dtype=torch.bool) for kept in cache)
    joint, image = joint.to(noise.device), image.to(noise.device)
    block: Any
    for timestep, delta in zip(grid.timesteps, grid.deltas, strict=True):
        modulation = expert.modulation(timestep.to(noise.device, dtype).expand(noise.shape[0]))
        table, x, kept = network.action_table(rows, noise.device), expert.action_encoder(actions), iter(cache.joint)
        for block, shared, alone in zip(expert.double_blocks, modulation.double, cache.image, strict=True):
            heads, own = block.project_image(x, shared, table)
            attended = attention(heads.query, joined(next(kept), heads), joint)
            x = block.merge_image(x, attended, attention(own.query, joined(alone, own), image), shared)
        for block, shared in zip(expert.single_blocks, modulation.single, strict=True):
            heads, extra = block.project(x, shared, table)
            x = block.merge(x, attention(heads.query, joined(next(kept), heads), joint), shared, extra)
        actions = actions + expert.head(x, modulation.head) * delta.to(noise.device, dtype)
    return actions
