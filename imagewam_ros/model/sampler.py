# SPDX-License-Identifier: Apache-2.0
"""From a prefix cache to actions: how many draws, by which schedule, in how much time, after which committed rows."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from imagewam_ros.core.contract import Denoising
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.model.chunking import (
    BETA,
    Committed,
    denoise_frozen,
    denoise_guided,
    frozen_inputs,
    frozen_steps,
    soft_weights,
)
from imagewam_ros.model.flow import action_noise
from imagewam_ros.model.graph import GraphedLoops, require_cuda
from imagewam_ros.model.lanes import denoise_lanes, with_lanes
from imagewam_ros.model.network import ImageWamNetwork
from imagewam_ros.model.picard import Sweep, denoise_parallel, plan_sweeps
from imagewam_ros.model.protocol import Plan, PrefixCache

DENOISERS = ("sequential", "picard")
CHUNKING = ("none", "frozen", "guided")

SEED_STRIDE = 1_000_003
"""Between the seeds of one chunk's draws; chunks count theirs by one."""


@dataclass(frozen=True)
class SamplerConfig:
    """How chunks are denoised.

    steps 0 takes the contract's; fewer give other actions. samples > 1 draws that many from one
    prefix, for their spread. denoiser "picard" makes `sweeps` sweeps and falls back to sequential
    steps above `tolerance` (normalised units). chunking says how committed rows condition a chunk.
    deadline_ms > 0 takes as many steps as fit after the prefill, from measured times, at least
    `fewest_steps` and at most `steps`. cuda_graph runs the prefill and the loop of one draw as one launch
    each, on a CUDA device, after any number of frozen rows. compile fuses the kernels of both there; slow at the
    first chunk of the first two lengths of text.
    """

    steps: int = 0
    samples: int = 1
    denoiser: str = "sequential"
    sweeps: int = 4
    tolerance: float = 1e-3
    chunking: str = "none"
    beta: float = BETA
    deadline_ms: float = 0.0
    fewest_steps: int = 4
    cuda_graph: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        if self.denoiser not in DENOISERS:
            raise ConfigError(f"denoiser must be one of {', '.join(DENOISERS)}, found {self.denoiser!r}")
        if self.chunking not in CHUNKING:
            raise ConfigError(f"chunking must be one of {', '.join(CHUNKING)}, found {self.chunking!r}")
        if self.steps < 0:
            raise ConfigError(f"steps must be positive, or 0 for the contract's, found {self.steps}")
        if self.samples < 1 or self.fewest_steps < 1 or self.deadline_ms < 0 or self.tolerance < 0:
            raise ConfigError("samples and fewest_steps must be positive, deadline_ms and tolerance not negative")
        if (self.samples > 1) + (self.denoiser == "picard") + (self.chunking != "none") > 1:
            raise ConfigError("several samples, the picard denoiser and chunking exclude each other; choose one")
        if self.deadline_ms and self.denoiser == "picard":
            raise ConfigError("a deadline chooses sequential steps; use denoiser sequential with it")
        if self.compile and self.chunking == "guided":
            raise ConfigError("compile is not there for guided chunking; use frozen, or set compile to false")
        if self.cuda_graph and (self.samples > 1 or self.denoiser != "sequential" or self.chunking == "guided"):
            raise ConfigError("cuda_graph is there for one draw by sequential steps, free or after frozen rows")


class Drawn(NamedTuple):
    """actions (samples, T, D) normalised; Euler steps taken; whether picard fell back to sequential steps."""

    actions: Tensor
    steps: int
    fell_back: bool = False


class Sampler:
    """Denoise one chunk after another; keeps plans, lanes and measured times."""

    def __init__(
        self,
        network: ImageWamNetwork,
        denoising: Denoising,
        horizon: int,
        config: SamplerConfig,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`clock` in s; horizon is the rows of a chunk."""
        self.config = config
        if config.steps > denoising.steps:
            raise ConfigError(f"the contract has {denoising.steps} steps, {config.steps} were asked for; use 0 for all")
        denoising = replace(denoising, steps=config.steps or denoising.steps)
        self._network, self._denoising, self._clock = network, denoising, clock
        self._shape = horizon, network.config.action_dim
        self._plans: dict[int, Plan] = {}
        self._step_s = 0.0
        self._timed: set[tuple[int, int]] = set()
        self.plan = self._plan(denoising.steps)
        self._graphs = GraphedLoops()
        if config.cuda_graph:
            require_cuda(self.plan.timesteps.device)
        if config.compile:
            require_cuda(self.plan.timesteps.device, "compile")
        self._sweeps: list[Sweep] = []
        if config.denoiser == "picard":
            self._sweeps = plan_sweeps(network, self.plan, horizon, config.sweeps)

    @property
    def lanes(self) -> int:
        """Chunks that one forward of the expert takes at most."""
        return len(self.plan.action) if self._sweeps else self.config.samples

    def room(self, cache: PrefixCache) -> PrefixCache:
        """The cache with room for all lanes, to be given to the next prefill too."""
        return with_lanes(cache, self.lanes) if self.lanes > 1 else cache

    @torch.no_grad()
    def draw(self, seed: int, cache: PrefixCache, started_s: float = 0.0, committed: Committed | None = None) -> Drawn:
        """Denoise against a cache from `room`; the deadline counts from started_s of the clock."""
        config, device = self.config, self.plan.timesteps.device
        seeds = (seed + i * SEED_STRIDE for i in range(config.samples))
        noise = torch.cat([action_noise(each, *self._shape) for each in seeds]).to(device)
        if self._sweeps:
            outcome = denoise_parallel(self._network, noise, cache, self.plan, self._sweeps, config.tolerance)
            return Drawn(outcome.actions, len(self.plan.action), outcome.sequential)
        if not config.deadline_ms:
            return Drawn(self._denoise(noise, cache, self.plan, committed), self._denoising.steps)
        _wait(device)
        start, captures = self._clock(), self._graphs.captures
        count = self._affordable(start - started_s)
        actions = self._denoise(noise, cache, self._plan(count), committed)
        _wait(device)
        took_s, kind = (self._clock() - start) / count, (cache.prefix_length, count)
        if kind in self._timed and captures == self._graphs.captures:
            self._step_s = took_s if not self._step_s else 0.8 * self._step_s + 0.2 * took_s
        self._timed.add(kind)  # the first of a kind makes tables, kernels or a graph, and says nothing about the next
        return Drawn(actions, count)

    @torch.no_grad()
    def rehearse(self, cache: PrefixCache) -> None:
        """Draw twice and throw it away, so that chunks on this cache are neither late nor unmeasured.

        With a deadline, make the plan and graph of every number of steps that it may choose.
        """
        noise, committed = action_noise(0, *self._shape).to(self.plan.timesteps.device), None
        if self.config.chunking != "none":
            known, horizon = self._network.without_padding(noise)[0], self._shape[0]
            committed = Committed(known, soft_weights(horizon, 1, horizon), 1)
        most = self._denoising.steps
        for count in range(min(self.config.fewest_steps, most), most) if self.config.deadline_ms else ():
            plan = self._plan(count)
            if self.config.cuda_graph:
                self._denoise(noise, cache, plan, committed)
        for _ in range(2):
            self.draw(0, cache, self._clock(), committed)

    def _denoise(self, noise: Tensor, cache: Any, plan: Plan, committed: Committed | None) -> Tensor:
        if len(noise) > 1:
            return denoise_lanes(self._network, noise, cache, plan.action, plan.deltas)
        network, config = self._network, self.config
        if config.cuda_graph and config.chunking == "frozen":
            inputs = frozen_inputs(network, noise, committed)
            return self._graphs(partial(frozen_steps, network), cache, plan, *inputs)
        if config.cuda_graph:
            return self._graphs(network.denoise, cache, plan, noise)
        if committed is None or config.chunking == "none":
            return network.denoise(noise, cache, plan)
        if config.chunking == "frozen":
            return denoise_frozen(network, noise, cache, plan, committed)
        return denoise_guided(network, noise, cache, plan, committed, config.beta)

    def _affordable(self, spent_s: float) -> int:
        """Steps that fit; all of them before one was measured."""
        most = self._denoising.steps
        if not self._step_s:
            return most
        return steps_within(self.config.deadline_ms / 1e3 - spent_s, self._step_s, self.config.fewest_steps, most)

    def _plan(self, steps: int) -> Plan:
        if steps not in self._plans:
            with torch.inference_mode(False), torch.no_grad():
                self._plans[steps] = self._network.plan(replace(self._denoising, steps=steps))
        return self._plans[steps]


def steps_within(left_s: float, step_s: float, fewest: int, most: int) -> int:
    """Steps of step_s that fit into left_s, within [fewest, most]."""
    return max(min(fewest, most), min(most, int(left_s / step_s + 1e-6)))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
