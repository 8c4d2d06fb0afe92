# SPDX-License-Identifier: Apache-2.0
"""One policy step of ours beside the authors' schedule, on one set of weights, in turn in one process."""

import argparse
import resource
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imagewam_ros.bench_reference import costs, flux2, omnigen2, ovis_u1
from imagewam_ros.bench_reference.sizes import HORIZON, LAYOUTS, Layout, Weights
from imagewam_ros.bench_reference.stopwatch import Stopwatch, quantiles
from imagewam_ros.core.contract import Denoising
from imagewam_ros.core.schema import Image
from imagewam_ros.model.autoencoder import channels_last
from imagewam_ros.model.chunking import Committed, soft_weights
from imagewam_ros.model.compiled import compile_network
from imagewam_ros.model.device import explained_memory
from imagewam_ros.model.flow import action_noise
from imagewam_ros.model.graph import GraphedPrefill
from imagewam_ros.model.packed import packed
from imagewam_ros.model.preprocess import mosaic_pixels
from imagewam_ros.model.protocol import Context, PrefixCache
from imagewam_ros.model.quantised import quantised
from imagewam_ros.model.sampler import Sampler, SamplerConfig

PHASES = ("preprocess", "text", "vae", "prefill", "denoise", "rest")
WARM_UP = 1
CAMERA_SIZE = (480, 640)
COMMITTED_ROWS = 4

SCHEDULES: Mapping[str, Any] = {"flux2": flux2, "omnigen2": omnigen2, "ovis_u1": ovis_u1}
"""Modules with `build`, `prompt`, `text_context`, `kept_text`, `prefill` and `denoise`."""

Run = Callable[[Stopwatch, Tensor | None], Tensor]


@dataclass
class Case:
    """What one chunk is made from, and how each schedule makes it; all on the same weights."""

    schedule: Any
    weights: Weights
    layout: Layout
    device: torch.device
    dtype: torch.dtype
    denoiser: str = "sequential"
    precision: str = "full"
    compile: bool = False
    images: Mapping[str, Image] = field(init=False)
    cache: PrefixCache | None = None

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        coarse = {t.camera: rng.integers(0, 256, (6, 8, 3), dtype=np.uint8) for t in self.layout.mosaic.tiles}
        height, width = CAMERA_SIZE
        self.images = {name: x.repeat(height // 6, 0).repeat(width // 8, 1) for name, x in coarse.items()}
        self.proprio = torch.linspace(-1, 1, self.layout.proprio).to(self.device, self.dtype)[None]
        self.ids = self.schedule.prompt(self.weights, rng).to(self.device)
        grid = "bfloat16" if self.dtype == torch.bfloat16 else "float32"
        self._network = network = packed(quantised(self.weights.network, self.precision))
        times = Denoising(time_grid=grid)
        graphed = self.device.type == "cuda" and self.denoiser == "sequential"
        config = SamplerConfig(denoiser=self.denoiser, cuda_graph=graphed, compile=self.compile)
        self.sampler = Sampler(network, times, HORIZON, config)
        if self.compile:
            compile_network(network)
        self._graphs = GraphedPrefill(self._prefill, self.sampler.room) if graphed else None
        self._chunked = {
            name: Sampler(network, times, HORIZON, SamplerConfig(chunking=name)) for name in ("frozen", "guided")
        }
        known = torch.zeros(HORIZON, self.layout.actions)
        self._committed = Committed(known, soft_weights(HORIZON, COMMITTED_ROWS, HORIZON - 4), COMMITTED_ROWS)
        self._codec = deepcopy(self.weights.codec)
        channels_last(self._codec)
        pixels = mosaic_pixels(self.images, self.layout.mosaic, self.device)
        self.theirs: Context = self.schedule.text_context(self.weights, self.ids, pixels)
        self.text: Context | None = self.schedule.kept_text(self.theirs)

    def ours(self, watch: Stopwatch, pixels: Tensor | None = None) -> Tensor:
        """One chunk (1, T, D) as `Policy` makes it."""
        return self._ours(watch, pixels, self.sampler, None)

    def frozen(self, watch: Stopwatch, pixels: Tensor | None = None) -> Tensor:
        """The same after committed rows that are frozen."""
        return self._ours(watch, pixels, self._chunked["frozen"], self._committed)

    def guided(self, watch: Stopwatch, pixels: Tensor | None = None) -> Tensor:
        """The same, guided by committed rows with soft weights."""
        return self._ours(watch, pixels, self._chunked["guided"], self._committed)

    def _ours(self, watch: Stopwatch, pixels: Tensor | None, sampler: Sampler, committed: Committed | None) -> Tensor:
        with watch.phase("preprocess"):
            if pixels is None:
                pixels = mosaic_pixels(self.images, self.layout.mosaic, self.device)
        with watch.phase("text"):
            context = self.text or self.schedule.text_context(self.weights, self.ids, pixels)
        if self._graphs is not None and sampler is self.sampler:
            with watch.phase("prefill"):  # with the image encoder
                cache = self._graphs(pixels, self.proprio, context)
        else:
            with watch.phase("vae"):
                latents = self._codec.encode(pixels).to(self.dtype)
            with watch.phase("prefill"):
                cache = self._network.prefill(latents, context, self.proprio, HORIZON, sampler.plan, self.cache)
                cache = self.cache = sampler.room(cache)
        with watch.phase("denoise"):
            actions = sampler.draw(0, cache, committed=committed).actions
        return actions.float().cpu()

    def _prefill(self, images: Tensor, proprio: Tensor, tokens: Tensor, cache: PrefixCache | None) -> PrefixCache:
        latents = self._codec.encode(images).to(self.dtype)
        filled: PrefixCache = self._network.prefill(
            latents, Context(tokens), proprio, HORIZON, self.sampler.plan, cache
        )
        return filled

    def reference(self, watch: Stopwatch, pixels: Tensor | None = None) -> Tensor:
        """One chunk (1, T, D) as the authors make it."""
        return self._reference(watch, pixels, None)

    def reference_cached(self, watch: Stopwatch, pixels: Tensor | None = None) -> Tensor:
        """The same with the padded text kept from the chunk before."""
        return self._reference(watch, pixels, self.theirs)

    def _reference(self, watch: Stopwatch, pixels: Tensor | None, context: Context | None) -> Tensor:
        network = self.weights.network
        with watch.phase("preprocess"):
            if pixels is None:
                pixels = flux2.pil_pixels(self.images, self.layout.mosaic, self.device)
        if context is None:
            with watch.phase("text"):
                context = self.schedule.text_context(self.weights, self.ids, pixels)
        with watch.phase("vae"):
            latents = self.weights.codec.encode(pixels).to(self.dtype)
        with watch.phase("prefill"):
            cache = self.schedule.prefill(network, latents, context, self.proprio)
        with watch.phase("denoise"):
            noise = action_noise(0, HORIZON, self.layout.actions).to(self.device)
            actions: Tensor = self.schedule.denoise(network, noise, cache)
        return actions.float().cpu()


@torch.no_grad()
def measure(arguments: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Run all schedules in turn. Raises ConfigError where memory does not suffice."""
    with explained_memory(device, "try --preset sixth or --dtype bfloat16"):
        schedule = SCHEDULES[arguments.backbone]
        weights = schedule.build(arguments.preset, LAYOUTS[arguments.layout], device, dtype)
        case = Case(
            schedule,
            weights,
            LAYOUTS[arguments.layout],
            device,
            dtype,
            arguments.denoiser,
            arguments.weights,
            arguments.compile,
        )
        schedules: dict[str, Run] = {"ours": case.ours}
        if arguments.chunking:
            schedules |= {"ours, frozen rows": case.frozen, "ours, guided": case.guided}
        if arguments.reference:
            schedules["reference"] = case.reference
            if case.text is not None:
                schedules["reference, text cached"] = case.reference_cached
        runs: dict[str, list[Stopwatch]] = {name: [] for name in schedules}
        for repeat in range(WARM_UP + arguments.repeats):
            for name, schedule in schedules.items():
                watch = Stopwatch(device)
                with watch.run():
                    schedule(watch, None)
                if repeat >= WARM_UP:
                    runs[name].append(watch)
        result = _result(arguments, device, dtype, runs)
        if arguments.reference:
            pixels = mosaic_pixels(case.images, case.layout.mosaic, device)
            official = flux2.pil_pixels(case.images, case.layout.mosaic, device)
            ours, theirs = (make(Stopwatch(device), pixels) for make in (case.ours, case.reference))
            result["max_abs_diff"] = float((ours - theirs).abs().max())
            result["max_abs_action"] = round(float(theirs.abs().max()), 3)
            result["max_pixel_diff"] = round(float((pixels - official).abs().max()) * 127.5, 3)
    return result


def _result(
    arguments: argparse.Namespace, device: torch.device, dtype: torch.dtype, runs: Mapping[str, list[Stopwatch]]
) -> dict[str, Any]:
    gpu = device.type == "cuda"
    best = {
        name: quantiles([w.total_ms for w in watches])["p50"] if gpu else min(w.cpu_ms for w in watches)
        for name, watches in runs.items()
    }
    result: dict[str, Any] = {
        "backbone": arguments.backbone,
        "preset": arguments.preset,
        "layout": arguments.layout,
        "threads": arguments.threads,
        "dtype": str(dtype).removeprefix("torch."),
        "device": torch.cuda.get_device_name(device) if gpu else "cpu",
        "denoiser": arguments.denoiser,
        "weights": arguments.weights,
        "compile": arguments.compile,
        "repeats": arguments.repeats,
        "ours_ms": round(best["ours"], 2),
        "peak_mb": round(_peak_bytes(device) / 1e6),
        "runs": runs,
    }
    if arguments.chunking:
        for name in ("ours, frozen rows", "ours, guided"):
            key = name.split()[1]
            loops = [min(w.phase_ms("denoise") for w in runs[each]) for each in (name, "ours")]
            result[f"ratio_{key}_step"] = round(best[name] / best["ours"], 3)
            result[f"ratio_{key}_loop"] = round(loops[0] / loops[1], 3)
    if arguments.reference:
        result["ratio_reference"] = round(best["ours"] / best["reference"], 4)
        cached = best.get("reference, text cached")
        result["ratio_reference_cached"] = None if cached is None else round(best["ours"] / cached, 4)
    if gpu and arguments.backbone == "flux2":
        sweeps = SamplerConfig().sweeps if arguments.denoiser == "picard" else 0
        bound = costs.roofline_ms(costs.engine_cost(arguments.preset, arguments.layout, sweeps), result["device"])
        if bound is not None:
            result |= {"roofline_ms": round(bound, 2), "ratio_roofline": round(best["ours"] / bound, 2)}
    return result


def table(result: Mapping[str, Any]) -> str:
    """Return the times for a person."""
    keys = ("backbone", "preset", "layout", "dtype", "weights", "device", "threads", "repeats")
    lines = [", ".join(f"{key} {result[key]}" for key in keys)]
    lines.append(f"{'least wall ms of':<26}" + "".join(f"{name:>12}" for name in PHASES))
    runs: Mapping[str, list[Stopwatch]] = result["runs"]
    for name, watches in runs.items():
        least = {phase: min(w.wall_ms.get(phase, 0.0) for w in watches) for phase in PHASES}
        lines.append(f"{name:<26}" + "".join(f"{least[phase]:>12.1f}" for phase in PHASES))
    lines.append(
        f"{'whole step, ms':<26}" + "".join(f"{name:>12}" for name in ("p50", "p95", "p99", "least", "cpu least"))
    )
    for name, watches in runs.items():
        walls = [w.total_ms for w in watches]
        values = [*quantiles(walls).values(), min(walls), min(w.cpu_ms for w in watches)]
        lines.append(f"{name:<26}" + "".join(f"{value:>12.1f}" for value in values))
    lines.append(f"peak memory of the process {result['peak_mb']} MB")
    if "roofline_ms" in result:
        lines.append(
            f"roofline of this device {result['roofline_ms']} ms, ours is {result['ratio_roofline']} times that"
        )
    else:
        lines.append("roofline: the peaks of this device are not known")
    if "ratio_frozen_step" in result:
        ratios = (
            f"{key} rows: loop {result[f'ratio_{key}_loop']}, step {result[f'ratio_{key}_step']}"
            for key in ("frozen", "guided")
        )
        lines.append(f"after committed rows, in times of the plain one: {'; '.join(ratios)}")
    if "ratio_reference" in result:
        cached = result["ratio_reference_cached"]
        shown = "impossible (it sees the image)" if cached is None else f"{cached:.3f}"
        lines.append(
            f"ours / reference {result['ratio_reference']:.3f}, with its text cached {shown}; "
            f"on equal pixels the actions differ by at most "
            f"{result['max_abs_diff']:.1e} (largest action {result['max_abs_action']}); "
            f"resized pixels differ by at most {result['max_pixel_diff']} of 255"
        )
    return "\n".join(lines)


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
