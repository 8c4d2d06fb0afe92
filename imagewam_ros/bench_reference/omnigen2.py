# SPDX-License-Identifier: Apache-2.0
"""OmniGen2 ImageWAM in the authors' order of work, on our modules' weights.

What it does and ours does not: it encodes the instruction for every chunk; runs the last block and
the image head to the end; repeats keys and values for every query head; concatenates them with the
action's in every layer of every step, under masks; computes rotary tables and the modulation of every
block in every step. Text is packed here too, so nothing is gained by trimming it: that is why the
ratio is far from FLUX.2's. Source: docs/variants.md, section 2, and performance.md of the design notes.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F
from transformers import Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel

from imagewam_ros.bench_reference.sizes import VALID_TOKENS, Layout, Weights, filled
from imagewam_ros.model import flow
from imagewam_ros.model.autoencoder import KlCodec
from imagewam_ros.model.layers import Heads
from imagewam_ros.model.omnigen2 import OmniGen2Config
from imagewam_ros.model.omnigen2_network import OmniGen2Network
from imagewam_ros.model.protocol import Context


class Size(NamedTuple):
    """Numbers of the network, and width, heads, key heads, inner width, vocabulary and layers of the text encoder."""

    network: dict[str, Any]
    text: tuple[int, int, int, int, int, int]
    autoencoder: int


SIZES = {
    "tiny": Size(
        {
            "hidden": 48, "heads": 4, "kv_heads": 2, "axes": (4, 4, 4), "layers": 3, "refiner_layers": 1,
            "multiple_of": 8, "text_dim": 32, "action_hidden": 32, "action_multiple_of": 8,
        },
        (32, 2, 1, 64, 256, 2),
        8,
    ),
    "sixth": Size(
        {"hidden": 360, "heads": 3, "kv_heads": 1, "multiple_of": 8, "text_dim": 256, "action_hidden": 176,
         "action_multiple_of": 8},
        (256, 2, 1, 1836, 4096, 36),
        32,
    ),
}  # fmt: skip
"""sixth is the released size at about 1/6 of its widths, whole heads of 120."""


class LayerCache(NamedTuple):
    """Keys and values (B, N, Hkv, d) of one layer."""

    key: Tensor
    value: Tensor


def build(preset: str, layout: Layout, device: torch.device | str, dtype: torch.dtype) -> Weights:
    """Random weights of a preset."""
    size = SIZES[preset]
    width, heads, kv_heads, inner, vocabulary, layers = size.text
    head_dim = width // heads
    config = OmniGen2Config(**size.network, action_dim=layout.actions, proprio_dim=layout.proprio)
    text = Qwen2_5_VLTextModel(
        Qwen2_5_VLTextConfig(
            vocab_size=vocabulary, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
            num_attention_heads=heads, num_key_value_heads=kv_heads, bos_token_id=None, eos_token_id=None,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [head_dim // 8, head_dim // 8 + head_dim // 16, head_dim // 8 + head_dim // 16],
            },
        )
    )  # fmt: skip
    autoencoder = kl_autoencoder(size.autoencoder, 16)
    network, encoder, autoencoder = filled((OmniGen2Network(config), text, autoencoder), device, dtype)
    return Weights(network, KlCodec(autoencoder), encoder, (), vocabulary)


def kl_autoencoder(width: int, channels: int) -> Any:
    """The autoencoder family of OmniGen2 and Ovis-U1, first width `width`."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(width, 2 * width, 4 * width, 4 * width), layers_per_block=2, latent_channels=channels,
        norm_num_groups=min(32, width), scaling_factor=0.36, shift_factor=0.12,
    )  # fmt: skip


def prompt(weights: Weights, rng: np.random.Generator) -> Tensor:
    """Token ids (1, L) of an instruction."""
    return torch.from_numpy(rng.integers(0, weights.vocabulary, (1, VALID_TOKENS)))


def text_context(weights: Weights, ids: Tensor, pixels: Tensor) -> Context:
    """Features (1, L, ctx) of token ids (1, L)."""
    return Context(weights.text(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).last_hidden_state)


def kept_text(context: Context) -> Context:
    """What ours keeps of the text for the next chunks: all of it."""
    return context


def prefill(network: OmniGen2Network, latents: Tensor, context: Context, proprio: Tensor) -> list[LayerCache]:
    """One editing forward, to the end of the image head."""
    modulation = network.video.modulation(latents.new_zeros(1).float())
    packed = network.pack(context, network.proprio_encoder(proprio))
    prefix = network.embed(latents, packed, modulation)
    x, table, layers = prefix.tokens, network.table(prefix.ids), []
    mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device)
    block: Any
    for block, gating in zip(network.video.layers, modulation.layers, strict=True):
        heads = block.project(x, gating, table)
        cache = token_major(heads)
        layers.append(cache)
        x = block.merge(x, attention(heads.query, cache, mask), gating)
    head = network.video.norm_out
    head(x[:, packed.tokens.shape[1] :], head.scale(modulation.vector))
    return layers


def denoise(
    network: OmniGen2Network, noise: Tensor, cache: list[LayerCache], steps: int = 10, shift: float = 5.0
) -> Tensor:
    """Euler steps from noise (B, T, D), everything computed anew in each."""
    dtype, expert = network.proprio_encoder.weight.dtype, network.action
    grid = flow.schedule(steps, shift, "bfloat16" if dtype == torch.bfloat16 else "float32")
    actions = noise.to(dtype)
    block: Any
    for timestep, delta in zip(grid.timesteps, grid.deltas, strict=True):
        modulation = expert.modulation(timestep.to(noise.device, dtype).expand(noise.shape[0]))
        table = network.action_table(noise.shape[1], noise.device)
        x = expert.action_encoder(actions)
        mask = torch.ones(x.shape[1], cache[0].key.shape[1] + x.shape[1], dtype=torch.bool, device=x.device)
        for block, gating, kept in zip(expert.blocks, modulation.layers, cache, strict=True):
            heads = block.project(x, gating, table)
            x = block.merge(x, attention(heads.query, joined(kept, heads), mask), gating)
        actions = actions + expert.head(x, modulation.head) * delta.to(noise.device, dtype)
    return actions


def token_major(heads: Heads) -> LayerCache:
    """Keys and values as the authors keep them."""
    return LayerCache(heads.key.transpose(1, 2).contiguous(), heads.value.transpose(1, 2).contiguous())


def joined(kept: LayerCache, heads: Heads) -> LayerCache:
    """Kept keys and values with own ones behind them, in new memory."""
    own = token_major(heads)
    return LayerCache(torch.cat([kept.key, own.key], 1), torch.cat([kept.value, own.value], 1))


def attention(query: Tensor, cache: LayerCache, mask: Tensor) -> Tensor:
    """Attention (B, n, H*d) under mask (n, keys); each key head is repeated for its query heads."""
    groups = query.shape[1] // cache.key.shape[2]
    key, value = (part.transpose(1, 2).repeat_interleave(groups, 1) for part in cache)
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return attended.transpose(1, 2).flatten(2)
