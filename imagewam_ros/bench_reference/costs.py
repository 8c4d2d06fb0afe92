# SPDX-License-Identifier: Apache-2.0
"""Counted cost of one chunk at real sizes, by phase: the reference's and ours, on the meta device in bfloat16."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from imagewam_ros.bench_reference import flux2
from imagewam_ros.bench_reference.count import Cost, Counter
from imagewam_ros.bench_reference.sizes import HORIZON, VALID_TOKENS, Layout, Weights, build_weights, find_layout
from imagewam_ros.core.contract import Denoising
from imagewam_ros.model.lanes import LaneCache, with_lanes
from imagewam_ros.model.mot import KeyValueCache
from imagewam_ros.model.picard import plan_sweeps, sweep_all
from imagewam_ros.model.protocol import Context

DTYPE = torch.bfloat16


class Inputs(NamedTuple):
    """Everything a chunk takes, without values."""

    pixels: Tensor
    ids: Tensor
    proprio: Tensor
    noise: Tensor


def reference_cost(preset: str, layout: Layout) -> Mapping[str, Cost]:
    """Cost of the authors' schedule; phases text, vae, prefill, denoise."""
    weights, inputs = _built(preset, layout)
    counter = Counter((weights.network, weights.codec, weights.text))
    with torch.device("meta"):
        context, text = counter.cost(lambda: flux2.text_context(weights, inputs.ids))
        latents, vae = counter.cost(lambda: weights.codec.encode(inputs.pixels))
        cache, prefill = counter.cost(lambda: flux2.prefill(weights.network, latents, context, inputs.proprio))
        counter.watch(tensor for layer in cache.layers for tensor in layer)
        _, denoise = counter.cost(lambda: flux2.denoise(weights.network, inputs.noise, cache))
    return {"text": text, "vae": vae, "prefill": prefill, "denoise": denoise}


def engine_cost(preset: str, layout: str, sweeps: int = 0) -> Mapping[str, Cost]:
    """Cost of ours in the steady state; phases vae, prefill, denoise. sweeps > 0 counts Picard's."""
    weights, inputs = _built(preset, find_layout(layout))
    network, counter = weights.network, Counter((weights.network, weights.codec))
    plan = network.plan(Denoising(time_grid="bfloat16"))
    with torch.device("meta"):
        context = Context(torch.zeros(1, VALID_TOKENS, network.config.text_dim, dtype=DTYPE))
        latents, vae = counter.cost(lambda: weights.codec.encode(inputs.pixels))
        plain = network.prefill(latents, context, inputs.proprio, HORIZON, plan)
        kept = with_lanes(plain, len(plan.action)) if sweeps else plain
        network.action_table(HORIZON, inputs.noise.device)
        cache, prefill = counter.cost(lambda: network.prefill(latents, context, inputs.proprio, HORIZON, plan, kept))
        assert isinstance(cache, LaneCache if sweeps else KeyValueCache)
        counter.watch((cache.keys, cache.values))
        if sweeps:
            planned = plan_sweeps(network, plan, HORIZON, sweeps)
            _, denoise = counter.cost(lambda: sweep_all(network, inputs.noise, cache, plan, planned))
        else:
            network.denoise(inputs.noise, cache, plan)  # the first one makes the rotary table
            _, denoise = counter.cost(lambda: network.denoise(inputs.noise, cache, plan))
    return {"vae": vae, "prefill": prefill, "denoise": denoise}


def total(phases: Mapping[str, Cost], without: tuple[str, ...] = ()) -> Cost:
    """Sum over phases."""
    return sum((cost for name, cost in phases.items() if name not in without), Cost())


PEAKS: Mapping[str, tuple[float, float]] = {
    "H200": (790.0, 4.3),
    "H100": (790.0, 3.0),
    "RTX 5090": (209.0, 1.79),
    "RTX 4090": (165.0, 1.0),
    "RTX A6000": (155.0, 0.77),
    "Thor": (259.0, 0.273),
}
"""bfloat16 TFLOP/s and TB/s by part of the device's name (Source: performance.md of the design notes, section 2.2)."""


def roofline_ms(phases: Mapping[str, Cost], device_name: str) -> float | None:
    """Sum over phases of the larger of compute and memory time at the device's peaks; None for unknown devices."""
    for part, (tflops, tbytes) in PEAKS.items():
        if part in device_name:
            return sum(max(c.flops / tflops, c.nbytes / tbytes) / 1e9 for c in phases.values())
    return None


def _built(preset: str, chosen: Layout) -> tuple[Weights, Inputs]:
    weights = build_weights(preset, chosen, "meta", DTYPE)
    with torch.device("meta"):
        inputs = Inputs(
            torch.zeros(1, 3, chosen.mosaic.height, chosen.mosaic.width, dtype=DTYPE),
            torch.zeros(1, VALID_TOKENS, dtype=torch.long),
            torch.zeros(1, chosen.proprio, dtype=DTYPE),
            torch.zeros(1, HORIZON, chosen.actions),
        )
    return weights, inputs
