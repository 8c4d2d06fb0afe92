# SPDX-License-Identifier: Apache-2.0
"""Visual tokenizer of Ovis-U1: an AIMv2 vision transformer with rotary positions and a visual vocabulary.

No library has this AIMv2 with its rotary positions, so it is here, with the published key
names. Source: docs/variants.md, section 1.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imagewam_ros.model.mot import attend

MERGE = 2
"""Patches per side that become one visual token."""

INDICATORS = 4
"""Rows at the end of the vocabulary that no softmax reaches."""

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Pixel normalisation (Source: CLIP)."""

ROTARY_THETA = 10000.0


@dataclass(frozen=True)
class VisionConfig:
    """Numbers of the visual tokenizer. The defaults are Ovis-U1-3B."""

    vocab: int = 65536
    hidden: int = 1024
    inner: int = 2816
    layers: int = 24
    heads: int = 8
    image_size: int = 448
    patch: int = 14
    norm_eps: float = 1e-5
    min_pixels: int = 200704
    max_pixels: int = 2408448


class VisualTokenizer(nn.Module):
    """Images to probabilities over the visual vocabulary."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config)
        width, out = MERGE**2 * config.hidden, config.vocab - INDICATORS
        self.head = nn.Sequential(nn.Linear(width, out, bias=False), nn.LayerNorm(out))

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities (B, visual tokens, vocabulary) of images (B, 3, H, W) in [-1, 1]."""
        patches, grid = patchify(images, self.config)
        return self.probabilities(self.features(patches, grid))

    def features(self, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        """Merged features (B, visual tokens, 4 hidden) of patches (B, n, 3 p p) in merge order."""
        return self.backbone(patches, grid).unflatten(1, (-1, MERGE**2)).flatten(2)  # type: ignore[no-any-return]

    def probabilities(self, features: Tensor) -> Tensor:
        """Softmax in float32, zero for the indicator rows."""
        probabilities = self.head(features).softmax(-1, dtype=torch.float32)
        return F.pad(probabilities, (0, INDICATORS)).to(features.dtype)


class Backbone(nn.Module):
    """Patch embedding and blocks. The last block's output counts, before its norm."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.preprocessor = Preprocessor(config)
        self.trunk = Trunk(config)
        self.head_dim = config.hidden // config.heads

    def forward(self, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        """Patches (B, n, 3 p p) in merge order to features (B, n, hidden)."""
        x = self.preprocessor(patches, grid)
        cos, sin = rotary(grid, self.head_dim, x.device)
        for block in self.trunk.blocks:
            x = block(x, cos, sin)
        features: Tensor = x
        return features


class Trunk(nn.Module):
    """The blocks."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(VisionBlock(config) for _ in range(config.layers))


class Preprocessor(nn.Module):
    """Patch embedding plus resized position embedding."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        side = config.image_size // config.patch
        self.patchifier = Patchifier(config)
        self.pos_embed = nn.Parameter(torch.zeros(1, side * side, config.hidden))
        self.side = side

    def forward(self, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        """Patches (B, n, 3 p p) to tokens (B, n, hidden)."""
        square = self.pos_embed.unflatten(1, (self.side, self.side)).permute(0, 3, 1, 2)
        resized = F.interpolate(square.float(), grid, mode="bicubic", align_corners=False).to(square.dtype)
        tokens: Tensor = self.patchifier(patches) + merge_order(resized)
        return tokens


class Patchifier(nn.Module):
    """One convolution per patch, then a norm."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, config.hidden, config.patch, config.patch)
        self.norm = nn.RMSNorm(config.hidden, eps=config.norm_eps)

    def forward(self, patches: Tensor) -> Tensor:
        """Patches (B, n, 3 p p) to tokens (B, n, hidden)."""
        tokens: Tensor = self.norm(F.linear(patches, self.proj.weight.flatten(1), self.proj.bias))
        return tokens


class VisionBlock(nn.Module):
    """Attention and SwiGLU, each behind an RMS norm."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.attn = VisionAttention(config.hidden, config.heads)
        self.mlp = VisionMlp(config.hidden, config.inner)
        self.norm_1 = nn.RMSNorm(config.hidden, eps=config.norm_eps)
        self.norm_2 = nn.RMSNorm(config.hidden, eps=config.norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Tokens (B, n, hidden) to the same."""
        x = x + self.attn(self.norm_1(x), cos, sin)
        result: Tensor = x + self.mlp(self.norm_2(x))
        return result


class VisionAttention(nn.Module):
    """Full attention within an image."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Tokens (B, n, hidden) to the same."""
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        result: Tensor = self.proj(attend(rotate_halves(query, cos, sin), rotate_halves(key, cos, sin), value))
        return result


class VisionMlp(nn.Module):
    """W2(SiLU(W1 x) * W3 x)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, inner, bias=False)
        self.fc2 = nn.Linear(inner, width, bias=False)
        self.fc3 = nn.Linear(width, inner, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to the same."""
        result: Tensor = self.fc2(F.silu(self.fc1(x)) * self.fc3(x))
        return result


def patchify(images: Tensor, config: VisionConfig) -> tuple[Tensor, tuple[int, int]]:
    """Patches (B, n, 3 p p) in merge order, and their grid, of images (B, 3, H, W) in [-1, 1]."""
    size = resized_size(images.shape[2], images.shape[3], MERGE * config.patch, config.min_pixels, config.max_pixels)
    unit = images.float() / 2 + 0.5
    unit = F.interpolate(unit, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    mean, std = (torch.tensor(values, device=images.device).view(1, 3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    pixels = (unit - mean) / std
    grid = (size[0] // config.patch, size[1] // config.patch)
    return merge_order(F.pixel_unshuffle(pixels, config.patch)).to(images.dtype), grid


def resized_size(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Multiples of `factor` near the size, with min_pixels to max_pixels in all."""
    rows, columns = round(height / factor) * factor, round(width / factor) * factor
    if rows * columns > max_pixels:
        shrink = (height * width / max_pixels) ** 0.5
        rows, columns = (int(side / shrink // factor) * factor for side in (height, width))
    elif rows * columns < min_pixels:
        grow = (min_pixels / (height * width)) ** 0.5
        rows, columns = (-int(-side * grow // factor) * factor for side in (height, width))
    return rows, columns


def merge_order(features: Tensor) -> Tensor:
    """Features (B, C, rows, columns) as tokens (B, n, C), the four of one merged token together."""
    parts = features.unflatten(3, (-1, MERGE)).unflatten(2, (-1, MERGE))  # (B, C, r, 2, c, 2)
    tokens: Tensor = parts.permute(0, 2, 4, 3, 5, 1).flatten(1, 4)
    return tokens


def rotary(grid: tuple[int, int], head_dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin (n, d) of patches in merge order: row angles, column angles, both repeated."""
    rows, columns = (torch.arange(n, device=device, dtype=torch.float32) for n in grid)
    places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))[None]  # (1, 2, rows, columns)
    quarter = torch.arange(0, head_dim // 2, 2, dtype=torch.float32, device=device)
    frequency = 1.0 / ROTARY_THETA ** (quarter / (head_dim // 2))
    angle = (merge_order(places)[0][..., None] * frequency).flatten(1)  # (n, d / 2)
    return angle.cos().repeat(1, 2), angle.sin().repeat(1, 2)


def rotate_halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate x (B, H, n, d) by halves, in float32."""
    wide = x.float()
    left, right = wide.chunk(2, -1)
    return (wide * cos + torch.cat([-right, left], -1) * sin).to(x.dtype)
