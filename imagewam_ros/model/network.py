# SPDX-License-Identifier: Apache-2.0
"""What all backbones share around their layers: the proprio token, the Euler loop, noising for training."""

from abc import ABC, abstractmethod
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from imagewam_ros.core.contract import Denoising
from imagewam_ros.model import flow
from imagewam_ros.model.expert_init import Inheritance
from imagewam_ros.model.layers import latents_of
from imagewam_ros.model.mot import Memory
from imagewam_ros.model.protocol import Context, JointBatch, JointOutput, Plan, PrefixCache


class NetworkConfig(Protocol):
    """What every backbone's numbers have."""

    @property
    def action_dim(self) -> int:
        """Action dims of the weights."""

    @property
    def proprio_dim(self) -> int:
        """State dims of the weights."""

    @property
    def text_dim(self) -> int:
        """Width of the raw text features."""

    @property
    def padded_dims(self) -> tuple[int, ...]:
        """Action and state dims that mean nothing."""


class ImageWamNetwork(nn.Module, ABC):
    """Backbone `video`, expert `action` and `proprio_encoder`. Subclasses run the prefix and the target."""

    video: Any
    action: Any
    compiled_part: str = "prefill"
    """Name of the method that holds all of a prefill that may be compiled."""
    unused: str = ""
    """Names (a regular expression) of published weights that nothing reads and that are not loaded."""

    def __init__(self, video: nn.Module, action: nn.Module, config: NetworkConfig) -> None:
        super().__init__()
        self.config: Any = config
        self.video = video
        self.action = action
        self.proprio_encoder = nn.Linear(config.proprio_dim, config.text_dim)
        self.recompute = False
        """Compute layers again in the backward pass of `joint_forward` instead of keeping what is inside them."""
        self._tables: dict[tuple[int, torch.device], Tensor] = {}
        self._dims: dict[tuple[int, torch.device], Tensor] = {}

    @abstractmethod
    def prefill(
        self,
        latents: Tensor,
        context: Context,
        proprio: Tensor,
        horizon: int,
        plan: Plan | None = None,
        cache: PrefixCache | None = None,
    ) -> PrefixCache:
        """See `protocol.Network`."""

    @abstractmethod
    def joint_forward(self, batch: JointBatch) -> JointOutput:
        """See `protocol.Network`."""

    @abstractmethod
    def preview_velocity(
        self,
        target: Tensor,
        timestep: Tensor,
        latents: Tensor,
        context: Context,
        proprio: Tensor,
        prefix_at_zero: bool = False,
    ) -> Tensor:
        """See `protocol.Network`."""

    @abstractmethod
    def action_table(self, horizon: int, device: torch.device) -> Tensor:
        """Rotary table of the action tokens."""

    @abstractmethod
    def inheritance(self) -> Inheritance:
        """How the expert starts from the backbone."""

    @abstractmethod
    def prefix_modulation(self, timestep: Tensor) -> Any:
        """Modulation of the prefix at timestep (B,), None where it depends on the prefix itself."""

    def pack(self, context: Context, token: Tensor) -> Context:
        """Text (B, L, ctx) with the proprio token (B, ctx) after the last valid one: (B, L + 1, ctx)."""
        return pack_proprio(context, token)

    def velocity(self, actions: Tensor, timestep: Tensor, cache: PrefixCache) -> Tensor:
        """Velocity (B, T, D) of noised actions (B, T, D) at timestep (B,) in 0..1000."""
        return self.velocity_at(actions, self.action.modulation(timestep), cache)

    def velocity_at(self, actions: Tensor, modulation: Any, memory: Any) -> Tensor:
        """The same at a time of a plan, whose modulation it has."""
        key = (actions.shape[1], actions.device)
        if key not in self._tables:
            with torch.inference_mode(False):  # training may need it next
                self._tables[key] = self.action_table(*key)
        dtype = self.proprio_encoder.weight.dtype
        velocity: Tensor = self.action(actions.to(dtype), modulation, memory, self._tables[key])
        return velocity

    def plan(self, denoising: Denoising) -> Plan:
        """Modulation of the schedule's timesteps and of the prefix, without gradients."""
        device = self.proprio_encoder.weight.device
        grid = flow.schedule(denoising.steps, denoising.shift, denoising.time_grid)
        times, deltas = grid.timesteps.to(device), grid.deltas.to(device)
        with torch.no_grad():
            steps = [self.action.modulation(times[i : i + 1]) for i in range(denoising.steps)]
            return Plan(denoising, times, deltas, steps, self.prefix_modulation(torch.zeros(1, device=device)))

    @torch.no_grad()
    def denoise(self, noise: Tensor, cache: PrefixCache, plan: Plan) -> Tensor:
        """Actions (B, T, D) float32 from noise by the plan's Euler steps.

        Noise is (B, T, action_dim); padded dims are left out of the actions.
        """
        actions = noise.float()
        for modulation, delta in zip(plan.action, plan.deltas, strict=True):
            velocity = self.velocity_at(actions, modulation, cache)
            actions = torch.addcmul(actions, velocity.float(), delta)
        return self.without_padding(actions)

    def goal_noise(self, seed: int, latents: Tensor) -> Tensor:
        """Start noise of a goal image, like latents (1, C, h, w); drawn as tokens on the CPU, as the authors do."""
        generator = torch.Generator("cpu").manual_seed(seed)
        rows, columns = latents.shape[2:]
        noise = torch.randn(1, rows * columns, latents.shape[1], generator=generator)
        return latents_of(noise, rows, columns).to(latents.device)

    def without_padding(self, values: Tensor) -> Tensor:
        """Drop padded dims of (..., action_dim)."""
        if not self.config.padded_dims:
            return values
        return values.index_select(-1, self._meant_dims(values.shape[-1], values.device))

    def with_padding(self, values: Tensor) -> Tensor:
        """Insert zeros at the padded dims of (..., dims); the inverse of `without_padding`."""
        if not self.config.padded_dims:
            return values
        width = values.shape[-1] + len(self.config.padded_dims)
        padded = values.new_zeros(*values.shape[:-1], width)
        return padded.index_copy(-1, self._meant_dims(width, values.device), values)

    def action_velocity(self, batch: JointBatch, memory: Memory) -> Tensor:
        """Velocity (B*K, T, D) of the batch's noised actions over its prefix."""
        draws = batch.action_noise.shape[0] // batch.actions.shape[0]
        actions = batch.actions.repeat_interleave(draws, 0)
        noised = flow.noised(actions, batch.action_noise, batch.action_timestep)
        return self.velocity_at(noised, self.action.modulation(batch.action_timestep), memory)

    def noised_target(self, batch: JointBatch) -> tuple[Tensor, Tensor]:
        """Noised target latents (S, C, h, w) and their timestep (S,)."""
        assert batch.target is not None and batch.target_noise is not None and batch.target_timestep is not None
        return flow.noised(batch.target, batch.target_noise, batch.target_timestep), batch.target_timestep

    def _meant_dims(self, width: int, device: torch.device) -> Tensor:
        """Indices of the dims that are not padded, made once: a graph cannot fetch them from the host."""
        if (width, device) not in self._dims:
            meant = [i for i in range(width) if i not in self.config.padded_dims]
            with torch.inference_mode(False):  # training may need them next
                self._dims[width, device] = torch.tensor(meant, device=device)
        return self._dims[width, device]


def pack_proprio(context: Context, token: Tensor) -> Context:
    """Insert the proprio token (B, ctx) after the last valid text token: (B, L + 1, ctx).

    Text is right-padded; a context of batch 1 serves all samples.
    """
    tokens = context.tokens.to(token.dtype).expand(token.shape[0], -1, -1)
    if context.mask is None:
        return Context(torch.cat([tokens, token[:, None]], 1))
    mask = context.mask.expand(token.shape[0], -1)
    valid = mask.sum(1, keepdim=True)  # (B, 1)
    place = torch.arange(tokens.shape[1] + 1, device=tokens.device)[None]  # (1, L + 1)
    source = (place - (place > valid).long()).clamp(max=tokens.shape[1] - 1)
    moved = tokens.gather(1, source[..., None].expand(-1, -1, tokens.shape[2]))
    return Context(torch.where((place == valid)[..., None], token[:, None], moved), place <= valid)
