# SPDX-License-Identifier: Apache-2.0
"""Several noised chunks against one prefix in one forward of the expert: draws of noise, or times of one draw.

Lanes lie one after the other in the expert's token sequence. All of them read the prefix, each
only its own actions besides; weights and cache are read once for all.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from imagewam_ros.core.errors import ConfigError
from imagewam_ros.model.layers import Heads
from imagewam_ros.model.mot import KeyValueCache, attend
from imagewam_ros.model.network import ImageWamNetwork
from imagewam_ros.model.protocol import PrefixCache


class LaneCache(KeyValueCache):
    """A prefix cache with room for `lanes` chunks in its tail. `prefill` fills it like the plain one."""

    def __init__(self, plain: KeyValueCache, lanes: int) -> None:
        if plain.batch != 1 or plain.mask is not None:
            raise ConfigError("several draws need one prefix without padding; encode one observation at a time")
        layers, batch, heads, _, width = plain.keys.shape
        length, own = plain.prefix_length, lanes * plain.horizon
        super().__init__((layers, batch, heads, length, width), own, plain.keys)
        self.keys[:, :, :, :length] = plain.keys[:, :, :, :length]
        self.values[:, :, :, :length] = plain.values[:, :, :, :length]
        self.rows = plain.horizon
        lane = torch.arange(own, device=plain.keys.device) // self.rows
        blocked = torch.zeros(own, length + own, dtype=plain.keys.dtype, device=plain.keys.device)
        blocked[:, length:].masked_fill_(lane[:, None] != lane, -torch.inf)
        self._blocked = blocked

    def fits(self, shape: tuple[int, int, int, int, int], horizon: int, like: Tensor) -> bool:
        """See `KeyValueCache.fits`; horizon is that of one lane."""
        return horizon == self.rows and super().fits(shape, self.horizon, like)

    def attend(self, layer: int, heads: Heads) -> Tensor:
        """Attention (1, n, H*d) of the tokens of n / rows lanes."""
        length, own = self.prefix_length, heads.key.shape[2]
        self.keys[layer, :, :, length : length + own] = heads.key
        self.values[layer, :, :, length : length + own] = heads.value
        read = slice(length + own)
        mask = None if own == self.rows else self._blocked[:own, read]
        return attend(heads.query, self.keys[layer, :, :, read], self.values[layer, :, :, read], mask)


def with_lanes(cache: PrefixCache, lanes: int) -> PrefixCache:
    """Return the cache with room for several lanes, prefix included; raises ConfigError for padded prefixes."""
    if isinstance(cache, LaneCache) and cache.horizon >= lanes * cache.rows:
        return cache
    if isinstance(cache, KeyValueCache):
        return LaneCache(cache, lanes)
    assert dataclasses.is_dataclass(cache) and not isinstance(cache, type)
    parts = {field.name: with_lanes(getattr(cache, field.name), lanes) for field in dataclasses.fields(cache)}
    return dataclasses.replace(cache, **parts)


def tiled(table: Tensor, lanes: int) -> Tensor:
    """Rotary table (n, d / 2) for several lanes (lanes * n, d / 2)."""
    return table.repeat(*(1,) * (table.ndim - 2), lanes, 1)


def spread_over_lanes(modulation: Any, rows: int) -> Any:
    """Modulation of several times (lanes, 1, width) as that of their tokens (1, lanes * rows, width)."""
    return tree_map(lambda part: part.repeat_interleave(rows, 0).transpose(0, 1), modulation)


def lanes_of(modulation: Any, first: int, rows: int) -> Any:
    """Modulation of the lanes from `first` on, as views."""
    return tree_map(lambda part: part[:, first * rows :], modulation)


def velocity(network: ImageWamNetwork, actions: Tensor, modulation: Any, memory: Any, table: Tensor) -> Tensor:
    """Velocity (lanes, T, D) float32 of noised actions (lanes, T, D) in one sequence."""
    dtype = network.proprio_encoder.weight.dtype
    result: Tensor = network.action(actions.to(dtype).flatten(0, 1)[None], modulation, memory, table)
    return result.view(actions.shape).float()


def denoise_lanes(
    network: ImageWamNetwork, noise: Tensor, cache: Any, modulations: Sequence[Any], deltas: Tensor
) -> Tensor:
    """Actions of several draws (lanes, T, action_dim) against one prefix; padded dims are left out."""
    table = tiled(network.action_table(noise.shape[1], noise.device), noise.shape[0])
    actions = noise.float()
    for modulation, delta in zip(modulations, deltas, strict=True):
        actions = torch.addcmul(actions, velocity(network, actions, modulation, cache, table), delta)
    return network.without_padding(actions)
