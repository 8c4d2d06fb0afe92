# SPDX-License-Identifier: Apache-2.0
"""Real-time chunking: a chunk that agrees with the rows of the running one that will be executed meanwhile.

While a chunk is inferred the robot executes the first rows of its time from the chunk before. Those
committed rows condition the denoising:

    row      0 ...... committed ........ overlap ........ horizon
    weight   1 1 1 1 1 | falls smoothly to 0 | 0 0 0 0 0 0

`frozen` sets the committed rows to their noised values before each step and leaves the rest to the
network; it costs nothing. `guided` pulls all weighted rows with the gradient of the predicted
actions; it goes through the expert only, because the cache is fixed. Source: Black et al. 2025,
"Real-Time Execution of Action Chunking Flow Policies", with time reversed: here s runs from 1
(noise) to 0 (actions).
"""

import dataclasses
import math
from collections import deque
from typing import Any, NamedTuple

import torch
from torch import Tensor

from imagewam_ros.core.errors import ConfigError
from imagewam_ros.model.flow import TIMESTEPS
from imagewam_ros.model.layers import Heads
from imagewam_ros.model.mot import KeyValueCache
from imagewam_ros.model.network import ImageWamNetwork
from imagewam_ros.model.protocol import Plan

BETA = 5.0
"""Largest weight of the guidance (Source: Black et al. 2025, section 4)."""


class Committed(NamedTuple):
    """What is known of a chunk: normalised actions (T, D), anything where weight (T,) is 0; `rows` are fixed."""

    actions: Tensor
    weight: Tensor
    rows: int


class DelayForecast:
    """A quantile of the newest measured delays, in ns; the first `warm_up` are left out."""

    def __init__(self, quantile: float = 0.95, window: int = 50, warm_up: int = 2) -> None:
        if not 0 < quantile <= 1 or window < 1 or warm_up < 0:
            raise ConfigError(f"quantile must be in (0, 1] and window positive, found {quantile} and {window}")
        self.quantile, self._skip = quantile, warm_up
        self._delays: deque[int] = deque(maxlen=window)

    def record(self, delay_ns: int) -> None:
        """Add the time from an observation to its chunk."""
        if self._skip > 0:
            self._skip -= 1
        else:
            self._delays.append(delay_ns)

    @property
    def forecast_ns(self) -> int:
        """The smallest measured delay that the stated part of them does not exceed; 0 before any."""
        ordered = sorted(self._delays)
        return ordered[math.ceil(self.quantile * len(ordered)) - 1] if ordered else 0


def soft_weights(horizon: int, committed: int, overlap: int) -> Tensor:
    """Weights (horizon,): 1 for committed rows, falling to 0 at row `overlap`, where the running chunk ends."""
    row = torch.arange(horizon, dtype=torch.float32)
    c = ((overlap - row) / (overlap - committed + 1)).clamp(0, 1)
    falling = c * (c.exp() - 1) / (math.e - 1)
    return torch.where(row < committed, 1.0, torch.where(row < overlap, falling, 0.0))


@torch.no_grad()
def denoise_frozen(network: ImageWamNetwork, noise: Tensor, cache: Any, plan: Plan, committed: Committed) -> Tensor:
    """Actions (B, T, D) whose committed rows are given."""
    return frozen_steps(network, *frozen_inputs(network, noise, committed), cache, plan)


def frozen_inputs(
    network: ImageWamNetwork, noise: Tensor, committed: Committed | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The noise, known actions (1, T, D), and which rows (T, 1) are committed; none of them without `committed`."""
    rows = torch.arange(noise.shape[1])[:, None]
    if committed is None:
        return noise, torch.zeros_like(noise[:1]), (rows < 0).to(noise.device)
    known = network.with_padding(committed.actions.to(noise))[None]
    return noise, known, (rows < committed.rows).to(noise.device)


@torch.no_grad()
def frozen_steps(
    network: ImageWamNetwork, noise: Tensor, known: Tensor, fixed: Tensor, cache: Any, plan: Plan
) -> Tensor:
    """Actions (B, T, D) from what `frozen_inputs` gives. How many rows are fixed is data: one CUDA graph for all."""
    actions = noise = noise.float()
    for modulation, timestep, delta in zip(plan.action, plan.timesteps, plan.deltas, strict=True):
        actions = torch.where(fixed, torch.lerp(known, noise, timestep / TIMESTEPS), actions)
        velocity = network.velocity_at(actions, modulation, cache)
        actions = torch.addcmul(actions, velocity.float(), delta)
    return network.without_padding(torch.where(fixed, known, actions))


def denoise_guided(
    network: ImageWamNetwork, noise: Tensor, cache: Any, plan: Plan, committed: Committed, beta: float = BETA
) -> Tensor:
    """Actions (1, T, D) pulled towards the committed ones by their weights.

    The plan must not have been made in inference mode, because gradients pass through it.
    """
    dtype = network.proprio_encoder.weight.dtype
    memory = differentiable(cache)
    weight, known = committed.weight.to(noise)[:, None], network.with_padding(committed.actions.to(noise))
    actions = noise.float()
    with torch.inference_mode(False), torch.enable_grad():
        table = network.action_table(noise.shape[1], noise.device)
        for modulation, timestep, delta in zip(plan.action, plan.timesteps, plan.deltas, strict=True):
            start = actions.detach().clone().requires_grad_()
            s = timestep / TIMESTEPS
            velocity = network.action(start.to(dtype), modulation, memory, table).float()
            predicted = start - s * velocity
            wrong = (known - predicted.detach()) * weight
            (pull,) = torch.autograd.grad(predicted, start, wrong)
            strength = (((1 - s) ** 2 + s**2) / (s * (1 - s))).clamp(max=beta)
            actions = torch.addcmul(start.detach(), velocity.detach() - strength * pull, delta)
    return network.without_padding(actions.detach())


class Differentiable:
    """A prefix cache that gradients pass through, to the own tokens alone; its tail holds them as ever.

    Written out, because fused attention would compute gradients of the whole prefix.
    """

    def __init__(self, cache: KeyValueCache) -> None:
        self._cache = cache

    def attend(self, layer: int, heads: Heads) -> Tensor:
        """Attention (B, T, H*d) over prefix and own tokens."""
        read = slice(self._cache.prefix_length + heads.key.shape[2])
        buffers = (kept[layer, :, :, read] for kept in (self._cache.keys, self._cache.values))
        attended: Tensor = _Attention.apply(*heads, *buffers)  # type: ignore[no-untyped-call]
        return attended.transpose(1, 2).flatten(2)


class _Attention(torch.autograd.Function):
    """Attention (B, H, T, d) over buffers (B, Hkv, N + T, d) whose tail takes the own keys and values."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        own = slice(-key.shape[2], None)
        keys[:, :, own], values[:, :, own] = key, value
        ctx.scale = query.shape[-1] ** -0.5
        grouped = query.unflatten(1, (keys.shape[1], -1)).flatten(2, 3) * ctx.scale  # (B, Hkv, G T, d)
        weights = (grouped @ keys.transpose(-1, -2)).float().softmax(-1).to(query.dtype)
        ctx.save_for_backward(grouped, weights)
        ctx.kept, ctx.own = (keys, values), own
        attended: Tensor = (weights @ values).view_as(query)
        return attended

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        grouped, weights = ctx.saved_tensors
        keys, values = ctx.kept
        given = gradient.reshape_as(grouped)
        of_weights = given @ values.transpose(-1, -2)
        of_scores = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, weights.dtype)
        of_query = (of_scores @ keys * ctx.scale).view_as(gradient)
        of_key = of_scores[..., ctx.own].transpose(-1, -2) @ grouped
        return of_query, of_key, weights[..., ctx.own].transpose(-1, -2) @ given, None, None


def differentiable(cache: Any) -> Any:
    """Return the cache, or both caches of a pair (Ovis-U1), as gradients pass through it."""
    if isinstance(cache, KeyValueCache):
        return Differentiable(cache)
    parts = {field.name: differentiable(getattr(cache, field.name)) for field in dataclasses.fields(cache)}
    return dataclasses.replace(cache, **parts)
