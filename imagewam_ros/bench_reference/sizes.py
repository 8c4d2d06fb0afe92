# SPDX-License-Identifier: Apache-2.0
"""What is measured: sizes of FLUX.2 ImageWAM and image layouts, with random weights.

Random weights are scaled so that image, instruction and joints all move the action; with torch's
default initialisation they hardly do, and equality of two schedules would prove little.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderKLFlux2
from torch import nn
from transformers import Qwen3Config, Qwen3ForCausalLM

from imagewam_ros.core.contract import Mosaic, Tile
from imagewam_ros.core.errors import ConfigError, unknown_name
from imagewam_ros.model.autoencoder import Flux2Codec
from imagewam_ros.model.flux2 import Flux2Config
from imagewam_ros.model.flux2_network import Flux2Network

VALID_TOKENS, PADDED_TOKENS = 24, 512
"""Tokens of the measured instruction, and what the authors' configuration pads them to."""

HORIZON = 16

STREAM_GAIN, MODULATION_GAIN, QUERY_GAIN = 1.0, 0.5, 2.0
"""Scale of what projections, modulation and normed queries give; sharp attention makes single tokens matter."""


MODULATIONS = re.compile(r"odulation|_mod\.|norm\d\.linear")
"""Names of layers that give modulation."""


class TextSize(NamedTuple):
    """Numbers of a Qwen3 text encoder; `read` are the hidden states that become features."""

    width: int
    heads: int
    kv_heads: int
    inner: int
    vocabulary: int
    layers: int = 36
    head_dim: int = 128
    read: tuple[int, ...] = (9, 18, 27)


@dataclass(frozen=True)
class Size:
    """One preset: network (without its action and joint widths), text encoder, first width of the autoencoder."""

    network: Mapping[str, Any]
    text: TextSize
    autoencoder: int


class Layout(NamedTuple):
    """Cameras in one mosaic, action and proprio widths."""

    mosaic: Mosaic
    actions: int
    proprio: int


SIZES: Mapping[str, Size] = {
    "tiny": Size(
        {
            "hidden": 64,
            "heads": 2,
            "axes": (8, 8, 8, 8),
            "double": 2,
            "single": 3,
            "text_dim": 96,
            "action_hidden": 48,
            "channels": 16,
        },
        TextSize(32, 2, 1, 64, 256, layers=5, head_dim=16, read=(1, 2, 3)),
        8,
    ),
    "sixth": Size(
        {"hidden": 512, "heads": 4, "text_dim": 1152, "action_hidden": 192},
        TextSize(384, 4, 2, 1152, 4096),
        32,
    ),
    "4b": Size({}, TextSize(2560, 32, 8, 9728, 151936), 128),
    "9b": Size(
        {"hidden": 4096, "heads": 32, "double": 8, "single": 24, "text_dim": 12288},
        TextSize(4096, 32, 8, 12288, 151936),
        128,
    ),
}
"""4b and 9b are the released ones, sixth is 4b at 1/6 width. Source: model.md of the design notes, section 1.1."""

LAYOUTS: Mapping[str, Layout] = {
    "robotwin": Layout(
        Mosaic(
            288,
            256,
            (
                Tile("head", 0, 0, 192, 256),
                Tile("left_wrist", 192, 0, 96, 128),
                Tile("right_wrist", 192, 128, 96, 128),
            ),
        ),
        14,
        14,
    ),
    "libero": Layout(Mosaic(224, 448, (Tile("head", 0, 0, 224, 224), Tile("left_wrist", 0, 224, 224, 224))), 7, 8),
}
"""Source: model.md of the design notes, section 1.4."""


class Weights(NamedTuple):
    """One set of random weights, shared by all schedules that are measured."""

    network: Any
    codec: Any
    text: Any
    read: tuple[int, ...]
    vocabulary: int


def find_layout(name: str) -> Layout:
    """Return the layout called `name`. Raises ConfigError with the nearest match."""
    if name not in LAYOUTS:
        raise ConfigError(unknown_name("layout", name, LAYOUTS))
    return LAYOUTS[name]


def build_weights(
    preset: str, layout: Layout, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Weights:
    """Random weights of a preset, seed 0; on "meta" they take no memory. Raises ConfigError."""
    if preset not in SIZES:
        raise ConfigError(unknown_name("preset", preset, SIZES))
    size = SIZES[preset]
    config = Flux2Config(**size.network, action_dim=layout.actions, proprio_dim=layout.proprio)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        with torch.device("meta"):
            network, text, autoencoder = Flux2Network(config), _text(size.text), _autoencoder(config, size.autoencoder)
        if torch.device(device).type != "meta":
            try:
                for module in (network, text, autoencoder):
                    _as(module, dtype).to_empty(device=device)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                raise ConfigError(
                    f"preset {preset!r} does not fit into memory ({error}); try --preset sixth"
                ) from error
            _fill(network)
            _fill(text)
            _fill(autoencoder)
            _restore_rotary(text)
        else:
            for module in (network, text, autoencoder):
                _as(module, dtype)
    for module in (network, text, autoencoder):
        module.eval().requires_grad_(False)
    return Weights(network, Flux2Codec(autoencoder), text, size.text.read, size.text.vocabulary)


def filled(modules: tuple[nn.Module, ...], device: torch.device | str, dtype: torch.dtype) -> tuple[nn.Module, ...]:
    """The modules with weights like those of `build_weights`, seed 0, frozen."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for module in modules:
            _fill(module)
            _as(module, dtype).eval().requires_grad_(False).to(device)
    return modules


def _as(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    return module if dtype == torch.float32 else module.to(dtype)


def _text(size: TextSize) -> Any:
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=size.vocabulary,
            hidden_size=size.width,
            intermediate_size=size.inner,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            num_key_value_heads=size.kv_heads,
            head_dim=size.head_dim,
            max_position_embeddings=PADDED_TOKENS,
            tie_word_embeddings=False,
        )
    )


def _autoencoder(config: Flux2Config, width: int) -> Any:
    return AutoencoderKLFlux2(
        block_out_channels=(width, 2 * width, 4 * width, 4 * width),
        latent_channels=config.channels // 4,
        norm_num_groups=min(32, width),
        sample_size=256,
    )


@torch.no_grad()
def _fill(module: nn.Module) -> None:
    """Normal weights that keep the size of what flows through; norms at one, biases and means at zero."""
    for name, weight in module.named_parameters():
        if weight.ndim < 2:
            sharp = "query_norm" in name or "norm_q." in name
            weight.fill_(0.0 if name.endswith("bias") else QUERY_GAIN if sharp else 1.0)
            continue
        gain = MODULATION_GAIN if MODULATIONS.search(name) else STREAM_GAIN
        weight.normal_(std=gain / math.sqrt(weight[0].numel()))
    for name, buffer in module.named_buffers():
        if "running" in name:
            buffer.fill_(1.0 if "var" in name else 0.0)


def _restore_rotary(text: Any) -> None:
    """Compute the frequencies that were left empty."""
    rotary = text.model.rotary_emb
    fresh = type(rotary)(text.config)
    for name, buffer in fresh.named_buffers():
        getattr(rotary, name).copy_(buffer)
