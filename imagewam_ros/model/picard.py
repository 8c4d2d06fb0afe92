# SPDX-License-Identifier: Apache-2.0
"""All Euler steps at once, repeated until they agree: Picard iteration on the sequential schedule.

A sweep evaluates the velocity at every step's present guess in one forward of the expert and sums
them up again. Its fixed point is the sequential answer, and after k sweeps the first k steps are
exact, so sweep k needs the others only. Four sweeps read the expert's weights 4 times in place of
10. The change between sweeps estimates the error; where it does not shrink fast enough the
sequential answer is computed. Source: performance.md of the design notes, finding 6.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from imagewam_ros.core.errors import ConfigError
from imagewam_ros.model.lanes import lanes_of, spread_over_lanes, tiled, velocity
from imagewam_ros.model.network import ImageWamNetwork
from imagewam_ros.model.protocol import Plan

SAFETY = 3.0
"""Factor on the estimated error: changes shrink unevenly."""


class Sweep(NamedTuple):
    """Steps from `first` on: their modulation per token and rotary table."""

    first: int
    modulation: Any
    table: Tensor


class Outcome(NamedTuple):
    """actions (1, T, D); estimate of the largest error in normalised units; whether sequential steps made them."""

    actions: Tensor
    estimate: float
    sequential: bool


@torch.no_grad()
def plan_sweeps(network: ImageWamNetwork, plan: Plan, horizon: int, sweeps: int) -> list[Sweep]:
    """Compute once what the sweeps of all chunks share. Raises ConfigError unless 3 <= sweeps <= steps."""
    steps = len(plan.action)
    if not 3 <= sweeps <= steps:
        raise ConfigError(f"sweeps must be 3 to the number of steps ({steps}), found {sweeps}; use sequential steps")
    modulation = spread_over_lanes(network.action.modulation(plan.timesteps), horizon)
    table = network.action_table(horizon, plan.timesteps.device)
    return [Sweep(k, lanes_of(modulation, k, horizon), tiled(table, steps - k)) for k in range(sweeps)]


@torch.no_grad()
def sweep_all(
    network: ImageWamNetwork, noise: Tensor, cache: Any, plan: Plan, sweeps: list[Sweep]
) -> tuple[Tensor, Tensor]:
    """Actions (1, T, D) after the last sweep, and the largest change (2,) in the last two sweeps, oldest first.

    Nothing depends on data: it can be captured in a CUDA graph. noise is (1, T, D).
    """
    start, deltas = noise.float(), plan.deltas[:, None, None]
    states = start.expand(len(plan.deltas), -1, -1)
    velocities = torch.zeros_like(states)
    ends = []
    for sweep in sweeps:
        fresh = velocity(network, states[sweep.first :], sweep.modulation, cache, sweep.table)
        velocities = torch.cat([velocities[: sweep.first], fresh]) if sweep.first else fresh
        path = start + (velocities * deltas).cumsum(0)  # (steps, T, D), after each step
        states = torch.cat([start, path[:-1]])
        ends.append(path[-1:])
    before, middle, last = ends[-3:]
    return last, torch.stack([(middle - before).abs().amax(), (last - middle).abs().amax()])


def denoise_parallel(
    network: ImageWamNetwork, noise: Tensor, cache: Any, plan: Plan, sweeps: list[Sweep], tolerance: float
) -> Outcome:
    """Actions from noise (1, T, D) by sweeps, or by sequential steps where their error seems above `tolerance`.

    cache is a `LaneCache` with a lane per step.
    """
    actions, changes = sweep_all(network, noise, cache, plan, sweeps)
    estimate = 0.0 if len(sweeps) == len(plan.action) else estimated_error(*changes.tolist())
    if not estimate <= tolerance:
        return Outcome(network.denoise(noise, cache, plan), estimate, True)
    return Outcome(network.without_padding(actions), estimate, False)


def estimated_error(older: float, newer: float) -> float:
    """Sum of the changes still to come if each shrinks like the last one, times SAFETY; infinite where it grew."""
    if newer == 0.0:
        return 0.0
    if not newer < older:
        return float("inf")
    return SAFETY * newer * newer / (older - newer)
