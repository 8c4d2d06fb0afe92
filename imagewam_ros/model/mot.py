# SPDX-License-Identifier: Apache-2.0
"""Mixture of transformers: a backbone and an action expert that meet in every attention.

The mask rule (rows read columns):

             prefix  target  action
    prefix     x
    target     x       x
    action     x               x

The prefix (text, proprio, reference image) reads nobody else. So its keys and values can be
computed first and kept, in a list with gradients while training (`JointMemory`), in one
preallocated buffer at inference (`KeyValueCache`), and target and action attend to it after.
The same layer code serves both. Source: docs/model.md, section 2.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from functools import partial
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from imagewam_ros.core.errors import ConfigError
from imagewam_ros.model.layers import Heads

T = TypeVar("T")

READS = {"prefix": ("prefix",), "target": ("prefix", "target"), "action": ("prefix", "action")}
"""Which groups of tokens each group attends to."""


class Memory(Protocol):
    """Keys and values of a prefix, layer by layer."""

    def store(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Keep the prefix's keys and values (B, Hkv, N, d) of one layer."""

    def attend(self, layer: int, heads: Heads) -> Tensor:
        """Attention (B, n, H*d) of one group over the prefix and itself."""


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention (B, n, H*d); mask (B, 1, n or 1, keys) is True where a key may be read.

    Fewer key than query heads are repeated in groups: query head h reads key head h // (H / Hkv).
    """
    grouped = query.shape[1] != key.shape[1]
    result = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=grouped)
    return result.transpose(1, 2).flatten(2)


def read_mask(sizes: dict[str, int]) -> Tensor:
    """The rule as a boolean matrix (tokens, tokens) for groups in the order of `sizes`; True reads."""
    rows = [
        torch.cat([torch.full((n, m), column in READS[row]) for column, m in sizes.items()], 1)
        for row, n in sizes.items()
    ]
    return torch.cat(rows)


def check_pairing(video: Sequence[tuple[int, ...]], action: Sequence[tuple[int, ...]]) -> None:
    """Raise ConfigError unless layer i of both experts has the same (query heads, key heads, head dim)."""
    if len(video) != len(action):
        raise ConfigError(f"backbone has {len(video)} layers, action expert {len(action)}; they pair one to one")
    for layer, (left, right) in enumerate(zip(video, action, strict=True)):
        if left != right:
            raise ConfigError(f"layer {layer}: backbone attention {left}, action expert {right}; they must be equal")


class JointMemory:
    """Prefix keys and values with gradients, for the training forward.

    mask (B, N) is True at valid prefix tokens, None when all are. A group that attends may be
    a sub-batch (the first samples) or several draws per sample (adjacent). recompute: see `run_layer`.
    """

    def __init__(self, mask: Tensor | None = None, recompute: bool = False) -> None:
        self.mask = mask
        self.recompute = recompute
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}

    def store(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Keep references; nothing is copied."""
        self.layers[layer] = (key, value)

    def attend(self, layer: int, heads: Heads) -> Tensor:
        """Attention (B', n, H*d) over prefix and own tokens."""
        batch, own = heads.query.shape[0], heads.key.shape[2]
        key, value = (for_batch(kept, batch) for kept in self.layers[layer])
        return attend(
            heads.query,
            torch.cat([key, heads.key], 2),
            torch.cat([value, heads.value], 2),
            prefix_mask(self.mask if self.mask is None else for_batch(self.mask, batch), own),
        )


class KeyValueCache:
    """Keys and values of all layers in one head-major buffer, with a tail for the action tokens.

    keys and values are (layers, B, Hkv, N + T, d). Attending writes the tail and reads the
    whole buffer: nothing is concatenated, nothing allocated.
    """

    def __init__(
        self, shape: tuple[int, int, int, int, int], horizon: int, like: Tensor, mask: Tensor | None = None
    ) -> None:
        layers, batch, heads, prefix, width = shape
        with torch.inference_mode(False):  # guided chunking differentiates what reads them
            self.keys = like.new_zeros(layers, batch, heads, prefix + horizon, width)
            self.values = torch.zeros_like(self.keys)
        self.horizon = horizon
        self.mask = prefix_mask(mask, horizon)

    @property
    def batch(self) -> int:
        """Number of prefixes."""
        return self.keys.shape[1]

    @property
    def prefix_length(self) -> int:
        """Tokens per prefix."""
        return self.keys.shape[3] - self.horizon

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values."""
        return self.keys.nbytes + self.values.nbytes

    def fits(self, shape: tuple[int, int, int, int, int], horizon: int, like: Tensor) -> bool:
        """Tell whether a prefix of this shape can use this memory again."""
        wanted = (*shape[:3], shape[3] + horizon, shape[4])
        same = tuple(self.keys.shape) == wanted and self.horizon == horizon
        return same and self.keys.dtype == like.dtype and self.keys.device == like.device

    def store(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Copy the prefix's part into the buffer."""
        self.keys[layer, :, :, : self.prefix_length] = key
        self.values[layer, :, :, : self.prefix_length] = value

    def captured(self) -> "CapturedMemory":
        """Return this cache with the weights of what attends to it kept."""
        return CapturedMemory(self)

    def attend(self, layer: int, heads: Heads) -> Tensor:
        """Attention (B, T, H*d) of the action tokens over the buffer."""
        self.keys[layer, :, :, self.prefix_length :] = heads.key
        self.values[layer, :, :, self.prefix_length :] = heads.value
        return attend(heads.query, self.keys[layer], self.values[layer], self.mask)


def buffers_of(cache: Any) -> list[Tensor]:
    """Keys and values of a cache, or of both caches of a pair (Ovis-U1)."""
    if isinstance(cache, KeyValueCache):
        return [cache.keys, cache.values]
    return [buffer for field in fields(cache) for buffer in buffers_of(getattr(cache, field.name))]


class CapturedMemory:
    """A cache that keeps the weights of what attends to it, for pictures; slower."""

    def __init__(self, cache: KeyValueCache) -> None:
        self.cache = cache
        self.layers: dict[int, Tensor] = {}

    def store(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Pass on."""
        self.cache.store(layer, key, value)

    def attend(self, layer: int, heads: Heads) -> Tensor:
        """Attend as the cache does, then write the softmax out."""
        result = self.cache.attend(layer, heads)
        keys = self.cache.keys[layer].repeat_interleave(heads.query.shape[1] // self.cache.keys.shape[2], 1)
        scores = heads.query.float() @ keys.float().transpose(-1, -2) / heads.query.shape[-1] ** 0.5
        if self.cache.mask is not None:
            scores = scores.masked_fill(~self.cache.mask, float("-inf"))
        self.layers[layer] = scores.softmax(-1)
        return result


class Runs(Protocol):
    """A layer, or a view on one."""

    def run(self, work: Callable[..., T], *inputs: Any) -> T:
        """See `Layer`."""


class Layer(nn.Module):
    """A transformer layer. Training on several processes keeps it in shards and gathers it around each `run`."""

    def run(self, work: Callable[..., T], *inputs: Any) -> T:
        """Call `work` on its inputs. Whatever reads this layer's weights is called so, but for those `ahead`."""
        return work(*inputs)

    def ahead(self) -> list[nn.Module]:
        """Modules of this layer that are called before it is run: modulations."""
        return []


def run_layer(memory: Memory, work: Callable[..., T], layer: Runs, *inputs: Any) -> T:
    """Call `work` on layer and inputs; with a memory that recomputes, only they are kept for the backward pass.

    What is inside the layer is then computed once more, to the same bits (gradient checkpointing).
    """
    if getattr(memory, "recompute", False) and torch.is_grad_enabled():
        work = partial(checkpoint, work, use_reentrant=False, preserve_rng_state=False)
    return layer.run(work, layer, *inputs)


def joined(groups: Iterable[Heads]) -> Heads:
    """Concatenate groups of tokens."""
    query, key, value = (torch.cat(parts, 2) for parts in zip(*groups, strict=True))
    return Heads(query, key, value)


def for_batch(kept: Tensor, batch: int) -> Tensor:
    """Prefix tensors (B, ...) as a group of `batch` samples needs them: the first ones, or repeated draws."""
    if batch == kept.shape[0]:
        return kept
    return kept[:batch] if batch < kept.shape[0] else kept.repeat_interleave(batch // kept.shape[0], 0)


def prefix_mask(mask: Tensor | None, own: int = 0) -> Tensor | None:
    """Key mask (B, 1, 1, N + own) from validity (B, N); a group's own tokens are always valid."""
    if mask is None:
        return None
    return F.pad(mask, (0, own), value=True)[:, None, None]
