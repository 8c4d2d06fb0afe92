# SPDX-License-Identifier: Apache-2.0
"""Flow matching: schedule, noising, loss weights and losses. Source: docs/model.md, section 4.

Time runs from noise (timestep 1000) to data (0). x_s = (1 - s) x + s eps with s = timestep / 1000,
and the velocity to learn is eps - x, so Euler steps add velocity times a negative delta.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from imagewam_ros.core.errors import ConfigError
from imagewam_ros.model.protocol import JointBatch, JointOutput

TIMESTEPS = 1000
"""Timestep of pure noise."""

LAMBDA_VIDEO, LAMBDA_ACTION = 0.5, 1.0
"""Weights of the two losses (Source: the authors' training configuration)."""


class Schedule(NamedTuple):
    """timesteps (steps,) in 0..1000, highest first; deltas (steps,) of s, negative."""

    timesteps: Tensor
    deltas: Tensor


class Losses(NamedTuple):
    """Scalars; total = 0.5 video + action."""

    video: Tensor
    action: Tensor
    total: Tensor


def schedule(steps: int = 10, shift: float = 5.0, time_grid: str = "float32") -> Schedule:
    """Return the Euler schedule; time_grid "bfloat16" rounds it as released models were run.

    Raises ConfigError for an unknown grid.
    """
    if time_grid not in ("float32", "bfloat16"):
        raise ConfigError(f"time_grid must be float32 or bfloat16, found {time_grid!r}")
    s = shifted(torch.linspace(1, 0, steps + 1), shift)
    grid = torch.bfloat16 if time_grid == "bfloat16" else torch.float32
    return Schedule((TIMESTEPS * s[:-1]).to(grid).float(), s.diff().to(grid).float())


def shifted(u: Tensor, shift: float) -> Tensor:
    """Bend u in [0, 1] towards noise: shift u / (1 + (shift - 1) u)."""
    return shift * u / (1 + (shift - 1) * u)


def draw_timesteps(count: int, shift: float, generator: torch.Generator, time_grid: str = "float32") -> Tensor:
    """Timesteps (count,) in 0..1000 of uniform u, bent by shift, on the generator's device.

    time_grid "bfloat16" rounds them as those were that released models learned from (docs/model.md, section 4).
    """
    drawn = TIMESTEPS * shifted(torch.rand(count, generator=generator, device=generator.device), shift)
    return drawn.bfloat16().to(drawn.dtype) if time_grid == "bfloat16" else drawn


def action_noise(seed: int, horizon: int, dims: int) -> Tensor:
    """Start noise (1, T, D) float32, always drawn on the CPU so that devices agree."""
    return torch.randn(1, horizon, dims, generator=torch.Generator("cpu").manual_seed(seed))


def noised(clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
    """Mix clean and noise (B, ...) at timestep (B,)."""
    s = (timestep / TIMESTEPS).view(-1, *(1,) * (clean.ndim - 1)).to(clean.dtype)
    return (1 - s) * clean + s * noise


def loss_weight(timestep: Tensor, shift: float = 5.0) -> Tensor:
    """Weight (B,) of a sample's loss: a bell over timestep 500, mean 1 over the shifted grid."""
    lowest, mean = _weight_constants(shift)
    return (_bell(timestep) - lowest) / mean


def losses(output: JointOutput, batch: JointBatch, shift: float = 5.0) -> Losses:
    """Losses of one training forward in float32; shift is the one that timesteps were drawn with."""
    action = action_loss(output.action, batch, shift)
    video = torch.zeros_like(action)
    if output.video is not None and batch.target is not None:
        assert batch.target_noise is not None and batch.target_timestep is not None
        wrong = (output.video.float() - (batch.target_noise - batch.target).float()).square().flatten(1).mean(1)
        video = (loss_weight(batch.target_timestep, shift) * wrong).mean()
    return Losses(video, action, LAMBDA_VIDEO * video + LAMBDA_ACTION * action)


def action_loss(predicted: Tensor, batch: JointBatch, shift: float = 5.0) -> Tensor:
    """Weighted error of the action velocity: mean over valid dims, then valid steps, then samples."""
    draws = batch.action_noise.shape[0] // batch.actions.shape[0]
    actions = batch.actions.repeat_interleave(draws, 0)
    wrong = (predicted.float() - (batch.action_noise - actions).float()).square()  # (B*K, T, D)
    per_step = wrong.mean(2)
    if batch.action_dim_is_pad is not None:
        valid = (~batch.action_dim_is_pad).float().repeat_interleave(draws, 0)[:, None]
        per_step = (wrong * valid).sum(2) / valid.sum(2).clamp(min=1)
    per_sample = per_step.mean(1)
    if batch.action_is_pad is not None:
        valid = (~batch.action_is_pad).float().repeat_interleave(draws, 0)
        per_sample = (per_step * valid).sum(1) / valid.sum(1).clamp(min=1)
    return (loss_weight(batch.action_timestep, shift) * per_sample).mean()


@lru_cache
def _weight_constants(shift: float) -> tuple[float, float]:
    """Smallest value of the bell on the shifted grid of 1000, and the mean above it."""
    bell = _bell(TIMESTEPS * shifted(torch.linspace(1, 0, TIMESTEPS + 1)[:-1], shift))
    lowest = bell.min()
    return float(lowest), float((bell - lowest).mean() + 1e-10)


def _bell(timestep: Tensor) -> Tensor:
    return torch.exp(-2 * ((timestep.float() - TIMESTEPS / 2) / TIMESTEPS) ** 2)
