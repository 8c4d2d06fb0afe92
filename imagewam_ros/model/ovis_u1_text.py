# SPDX-License-Identifier: Apache-2.0
"""Text refiner of Ovis-U1: two gated transformer blocks over the text with a class token first.

Source: docs/variants.md, section 1. No positions, so the order of tokens is free.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imagewam_ros.model.flux2 import NORM_EPS
from imagewam_ros.model.mot import attend
from imagewam_ros.model.protocol import Context

BLOCKS = 2


class TextRefiner(nn.Module):
    """Raw text features to tokens of the backbone's width, and a class row that summarises them."""

    def __init__(self, text_dim: int, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.input_embedder = nn.Linear(text_dim, width)
        self.c_embedder = PooledEmbedder(text_dim, width)
        self.individual_token_refiner = Refiner(width, heads, round(width * mlp_ratio))

    def forward(self, context: Context) -> tuple[Tensor, Tensor]:
        """Tokens (B, L, width) and class row (B, width) of raw features (B, L, text_dim)."""
        vector = self.c_embedder(pooled(context))
        x = self.input_embedder(context.tokens)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1)
        x = self.individual_token_refiner(x, vector, refiner_mask(context.mask))
        return x[:, 1:], x[:, 0]


def pooled(context: Context) -> Tensor:
    """Mean (B, text_dim) of the valid raw features."""
    if context.mask is None:
        return context.tokens.mean(1)
    weight = context.mask[..., None].to(context.tokens.dtype)
    return (context.tokens * weight).sum(1) / weight.sum(1)


def refiner_mask(mask: Tensor | None) -> Tensor | None:
    """Attention mask (B, 1, L + 1, L + 1): valid reads valid, and everyone reads the class token."""
    if mask is None:
        return None
    valid = F.pad(mask, (1, 0), value=True)
    allowed = valid[:, None, :] & valid[:, :, None]
    allowed[:, :, 0] = True
    return allowed[:, None]


class PooledEmbedder(nn.Module):
    """Linear, SiLU, linear."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(width, out)
        self.linear_2 = nn.Linear(out, out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width) to (B, out)."""
        result: Tensor = self.linear_2(F.silu(self.linear_1(x)))
        return result


class Refiner(nn.Module):
    """The blocks."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(RefinerBlock(width, heads, inner) for _ in range(BLOCKS))

    def forward(self, x: Tensor, vector: Tensor, mask: Tensor | None) -> Tensor:
        """Tokens (B, L + 1, width) to the same."""
        for block in self.blocks:
            x = block(x, vector, mask)
        return x


class RefinerBlock(nn.Module):
    """Attention and MLP, each behind a gate from the pooled text."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.self_attn_qkv = nn.Linear(width, 3 * width)
        self.self_attn_proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = RefinerMlp(width, inner)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, vector: Tensor, mask: Tensor | None) -> Tensor:
        """Tokens (B, n, width) to the same."""
        gate, mlp_gate = self.adaLN_modulation(vector)[:, None].chunk(2, -1)
        qkv = self.self_attn_qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        x = x + gate * self.self_attn_proj(attend(query, key, value, mask))
        result: Tensor = x + mlp_gate * self.mlp(self.norm2(x))
        return result


class RefinerMlp(nn.Module):
    """Linear, SiLU, linear."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to the same."""
        result: Tensor = self.fc2(F.silu(self.fc1(x)))
        return result
