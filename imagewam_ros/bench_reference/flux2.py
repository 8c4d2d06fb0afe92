# SPDX-License-Identifier: Apache-2.0
"""FLUX.2 ImageWAM in the authors' order of work, on our modules' weights.

What it does and ours does not: it encodes the instruction for every chunk, padded to 512 tokens and
through layers and a language head that nobody reads; carries the padding through the backbone under
boolean masks; runs the last block and the image head to the end; keeps keys and values token-major
and concatenates them with the action's in every layer of every step; computes rotary tables and
modulation in every call. Source: performance.md of the design notes, section 2.4, and model.md,
sections 1 and 2. Letters in shapes as in `model.protocol`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image as Picture
from torch import Tensor
from torch.nn import functional as F

from imagewam_ros.bench_reference.sizes import HORIZON, PADDED_TOKENS, VALID_TOKENS, Layout, Weights, build_weights
from imagewam_ros.core.contract import Mosaic
from imagewam_ros.core.schema import Image
from imagewam_ros.model import flow
from imagewam_ros.model.flux2 import HeadNorm, SelfAttention, SingleBlock
from imagewam_ros.model.flux2_network import Flux2Network
from imagewam_ros.model.layers import grid_ids, time_embedding, tokens_of
from imagewam_ros.model.network import pack_proprio
from imagewam_ros.model.protocol import Context


class Shift(NamedTuple):
    """shift, scale and gate (B, 1, width), the scale as predicted."""

    shift: Tensor
    scale: Tensor
    gate: Tensor


class LayerCache(NamedTuple):
    """Keys and values (B, N, H*d) of one layer."""

    key: Tensor
    value: Tensor


class Prefilled(NamedTuple):
    """Cache of all layers and the validity (B, N) of the prefix."""

    layers: list[LayerCache]
    valid: Tensor


def pil_pixels(images: Mapping[str, Image], mosaic: Mosaic, device: torch.device | str = "cpu") -> Tensor:
    """Tile images with PIL and send floats to the device: (1, 3, H, W) in [-1, 1]."""
    canvas = Picture.new("RGB", (mosaic.width, mosaic.height))
    for tile in mosaic.tiles:
        picture = Picture.fromarray(images[tile.camera])
        resized = picture.resize((tile.width, tile.height), Picture.Resampling.BILINEAR)
        canvas.paste(resized, (tile.column, tile.row))
    pixels = torch.from_numpy(np.asarray(canvas).astype(np.float32) / 255.0)
    return (pixels.permute(2, 0, 1)[None] * 2 - 1).to(device)


def build(preset: str, layout: Layout, device: torch.device | str, dtype: torch.dtype) -> Weights:
    """Random weights of a preset."""
    return build_weights(preset, layout, device, dtype)


def prompt(weights: Weights, rng: np.random.Generator) -> Tensor:
    """Token ids (1, L) of an instruction."""
    return torch.from_numpy(rng.integers(0, weights.vocabulary, (1, VALID_TOKENS)))


def text_context(weights: Weights, ids: Tensor, pixels: Tensor | None = None) -> Context:
    """Features (1, 512, ctx) of token ids (1, L), right-padded, and which are valid; the image has no part."""
    length = ids.shape[1]
    padded = F.pad(ids, (0, PADDED_TOKENS - length))
    valid = (torch.arange(PADDED_TOKENS, device=ids.device) < length)[None]
    causal = torch.ones(PADDED_TOKENS, PADDED_TOKENS, dtype=torch.bool, device=ids.device).tril()
    mask = (causal & valid[:, None])[:, None]  # (1, 1, 512, 512)
    output: Any = weights.text(
        input_ids=padded,
        attention_mask={"full_attention": mask},
        position_ids=torch.arange(PADDED_TOKENS, device=ids.device)[None],
        output_hidden_states=True,
        use_cache=False,
    )
    return Context(torch.cat([output.hidden_states[layer] for layer in weights.read], -1), valid)


def kept_text(context: Context) -> Context:
    """What ours keeps of the text for the next chunks: the valid tokens."""
    return Context(context.tokens[:, :VALID_TOKENS].contiguous())


def prefill(network: Flux2Network, latents: Tensor, context: Context, proprio: Tensor) -> Prefilled:
    """One editing forward over text, proprio and reference tokens, padding included."""
    video, config = network.video, network.config
    text, valid = pack_proprio(context, network.proprio_encoder(proprio))
    assert valid is not None
    text_ids = torch.zeros(text.shape[1], 4, device=latents.device)
    text_ids[:, 3] = torch.arange(text.shape[1], device=latents.device)
    image_ids = grid_ids(latents.shape[2], latents.shape[3], network.reference_time, 4, latents.device)
    table = _table(torch.cat([text_ids, image_ids]).to(latents.dtype), config.axes, config.theta)
    text, image = video.txt_in(text), video.img_in(tokens_of(latents))
    valid = torch.cat([valid, valid.new_ones(image.shape[:2])], 1)
    mask = (valid[:, :, None] & valid[:, None, :]) | torch.eye(valid.shape[1], dtype=torch.bool, device=valid.device)
    vector = _vector(video.time_in, latents.new_zeros(latents.shape[0]))
    image_shift = _shifts(video.double_stream_modulation_img, vector)
    text_shift = _shifts(video.double_stream_modulation_txt, vector)
    shared = _shifts(video.single_stream_modulation, vector)[0]
    layers, length = [], text.shape[1]
    block: Any
    for block in video.double_blocks:
        parts = [
            _heads(block.txt_attn, _modulated(text, text_shift[0])),
            _heads(block.img_attn, _modulated(image, image_shift[0])),
        ]
        query, key, value = (torch.cat(group, 2) for group in zip(*parts, strict=True))
        attended, cache = _attention(query, key, value, table, mask)
        layers.append(cache)
        text = text + text_shift[0].gate * block.txt_attn.proj(attended[:, :length])
        text = text + text_shift[1].gate * _mlp(block.txt_mlp, _modulated(text, text_shift[1]))
        image = image + image_shift[0].gate * block.img_attn.proj(attended[:, length:])
        image = image + image_shift[1].gate * _mlp(block.img_mlp, _modulated(image, image_shift[1]))
    x = torch.cat([text, image], 1)
    for block in video.single_blocks:
        query, key, value, hidden = _single_heads(block, _modulated(x, shared))
        attended, cache = _attention(query, key, value, table, mask)
        layers.append(cache)
        x = x + shared.gate * block.linear2(torch.cat([attended, _swiglu(hidden)], -1))
    _head(video.final_layer, x[:, length:], vector)
    return Prefilled(layers, valid)


def denoise(network: Flux2Network, noise: Tensor, cache: Prefilled, steps: int = 10, shift: float = 5.0) -> Tensor:
    """Euler steps from noise (B, T, D), everything computed anew in each."""
    dtype = network.proprio_encoder.weight.dtype
    grid = flow.schedule(steps, shift, "bfloat16" if dtype == torch.bfloat16 else "float32")
    actions = noise.to(dtype)
    for timestep, delta in zip(grid.timesteps, grid.deltas, strict=True):
        time = timestep.to(noise.device, dtype).expand(noise.shape[0])
        actions = actions + velocity(network, actions, time, cache) * delta.to(noise.device, dtype)
    return actions


def velocity(network: Flux2Network, actions: Tensor, timestep: Tensor, cache: Prefilled) -> Tensor:
    """Velocity (B, T, D) of the action expert over a cached prefix."""
    expert, config = network.action, network.config
    batch, horizon = actions.shape[:2]
    vector = _vector(expert.time_in, timestep)
    double = _shifts(expert.double_stream_modulation_img, vector)
    single = _shifts(expert.single_stream_modulation, vector)[0]
    ids = torch.zeros(horizon, 4, device=actions.device)
    ids[:, 0], ids[:, 1] = network.action_time, torch.arange(horizon, device=actions.device)
    table = _table(ids.to(actions.dtype), config.axes, config.theta)
    own = torch.ones(batch, horizon, dtype=torch.bool, device=actions.device)
    mask = torch.cat([cache.valid, own], 1)[:, None].expand(-1, horizon, -1)
    x = expert.action_encoder(actions)
    block: Any
    for block, kept in zip(expert.double_blocks, cache.layers[: config.double], strict=True):
        query, key, value = _heads(block.img_attn, _modulated(x, double[0]))
        attended, _ = _attention(query, key, value, table, mask, kept)
        x = x + double[0].gate * block.img_attn.proj(attended)
        x = x + double[1].gate * _mlp(block.img_mlp, _modulated(x, double[1]))
    for block, kept in zip(expert.single_blocks, cache.layers[config.double :], strict=True):
        query, key, value, hidden = _single_heads(block, _modulated(x, single))
        attended, _ = _attention(query, key, value, table, mask, kept)
        x = x + single.gate * block.linear2(torch.cat([attended, _swiglu(hidden)], -1))
    return _head(expert.head, x, vector)


def noise_of(seed: int, dims: int, device: torch.device | str) -> Tensor:
    """Start noise (1, T, D), made on the CPU and copied."""
    return flow.action_noise(seed, HORIZON, dims).to(device)


def _vector(layer: Any, timestep: Tensor) -> Tensor:
    wave = time_embedding(timestep / 1000).to(layer.in_layer.weight.dtype)
    vector: Tensor = layer.out_layer(F.silu(layer.in_layer(wave)))
    return vector


def _shifts(layer: Any, vector: Tensor) -> list[Shift]:
    parts = layer.lin(F.silu(vector))[:, None].split(layer.width, -1)
    return [Shift(*parts[i : i + 3]) for i in range(0, len(parts), 3)]


def _modulated(x: Tensor, shift: Shift) -> Tensor:
    return (1 + shift.scale) * F.layer_norm(x, x.shape[-1:], eps=1e-6) + shift.shift


def _heads(attention: SelfAttention, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    parts = attention.qkv(x).unflatten(-1, (3, attention.heads, -1)).permute(2, 0, 3, 1, 4)  # (3, B, H, n, d)
    query, key = _normed(attention.norm, parts[0], parts[1])
    return query, key, parts[2]


def _single_heads(block: SingleBlock, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    z = block.linear1(x)
    qkv, hidden = z.split([3 * block.attention_width, z.shape[-1] - 3 * block.attention_width], -1)
    parts = qkv.unflatten(-1, (3, block.heads, -1)).permute(2, 0, 3, 1, 4)
    query, key = _normed(block.norm, parts[0], parts[1])
    return query, key, parts[2], hidden


def _normed(norm: HeadNorm, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    return _rms(query, norm.query_norm.scale), _rms(key, norm.key_norm.scale)


def _rms(x: Tensor, scale: Tensor) -> Tensor:
    wide = x.float()
    return (wide * torch.rsqrt((wide**2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype) * scale


def _table(ids: Tensor, axes: tuple[int, ...], theta: float) -> Tensor:
    """Rotation matrices (n, d / 2, 2, 2) of positions (n, 4), float32."""
    parts = []
    for axis, width in enumerate(axes):
        exponent = torch.arange(0, width, 2, dtype=ids.dtype, device=ids.device) / width
        angle = ids[:, axis, None] * (1.0 / theta**exponent)
        parts.append(torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).unflatten(-1, (2, 2)))
    return torch.cat(parts, 1).float()


def _rotated(x: Tensor, table: Tensor) -> Tensor:
    pairs = x.float().unflatten(-1, (-1, 1, 2))  # (B, H, n, d / 2, 1, 2)
    rotated: Tensor = table[..., 0] * pairs[..., 0] + table[..., 1] * pairs[..., 1]
    return rotated.flatten(-2).to(x.dtype)


def _attention(
    query: Tensor, key: Tensor, value: Tensor, table: Tensor, mask: Tensor, kept: LayerCache | None = None
) -> tuple[Tensor, LayerCache]:
    """Attention (B, n, H*d) under mask (B, n, keys), over kept keys and own ones; and the own ones, token-major."""
    heads = query.shape[1]
    own = LayerCache(*(x.transpose(1, 2).flatten(2) for x in (_rotated(key, table), value)))
    read = own if kept is None else LayerCache(torch.cat([kept.key, own.key], 1), torch.cat([kept.value, own.value], 1))
    keys, values = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in read)
    attended = F.scaled_dot_product_attention(_rotated(query, table), keys, values, attn_mask=mask[:, None])
    return attended.transpose(1, 2).flatten(2), own


def _swiglu(x: Tensor) -> Tensor:
    gate, value = x.chunk(2, -1)
    return F.silu(gate) * value


def _mlp(layers: Any, x: Tensor) -> Tensor:
    result: Tensor = layers[2](_swiglu(layers[0](x)))
    return result


def _head(layer: Any, x: Tensor, vector: Tensor) -> Tensor:
    shift, scale = layer.adaLN_modulation(vector)[:, None].chunk(2, -1)
    result: Tensor = layer.linear((1 + scale) * F.layer_norm(x, x.shape[-1:], eps=1e-6) + shift)
    return result
