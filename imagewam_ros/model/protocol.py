# SPDX-License-Identifier: Apache-2.0
"""What the backbones, the frozen encoders and their composition promise each other.

Letters in shapes: B batch, L text tokens, C latent channels, h x w latent grid, N prefix tokens,
T action horizon, D action dims, P proprio dims, K noise draws per sample.

Time runs from noise (timestep 1000) to data (timestep 0), always float32 in 0..1000 as the
authors' schedulers have it; each network scales it as it was trained. Velocity is noise - data.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from imagewam_ros.core.contract import Denoising


@dataclass(frozen=True)
class Instruction:
    """An instruction after the text encoder: tokens (L, ctx), valid ones and what the encoder keeps behind.

    Where the condition also sees the image (Ovis-U1), tokens are the token ids (L,) instead.
    """

    text: str
    tokens: Tensor


class Context(NamedTuple):
    """Text features (B, L, ctx) and which of them are valid (B, L); None means all."""

    tokens: Tensor
    mask: Tensor | None = None


@runtime_checkable
class PrefixCache(Protocol):
    """Keys and values of every layer for one prefix, with room for the action tokens.

    Its content is private to the network that made it. Passing it to `prefill` again reuses the memory.
    """

    @property
    def batch(self) -> int:
        """Number of prefixes."""

    @property
    def prefix_length(self) -> int:
        """Tokens per prefix: text, proprio, reference image."""

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values, action tail included."""

    def captured(self) -> Any:
        """Return the same cache with the attention weights kept (`capture`)."""


@dataclass(frozen=True)
class JointBatch:
    """Inputs of one training forward. Noises and timesteps are given, not drawn.

    reference (B, C, h, w) latents of the current image; proprio (B, P) normalised; actions
    (B, T, D) normalised. action_noise (B*K, T, D) and action_timestep (B*K,) hold K draws for
    each sample, the draws of one sample adjacent; the prefix is computed once for all of them.
    target (S, C, h, w), target_noise and target_timestep (S,) belong to the first S <= B
    samples; without them the image loss is zero. action_is_pad (B, T) and action_dim_is_pad
    (B, D) are True where the loss must not look. prefix_at_zero modulates the prefix at
    timestep 0, as at inference; False is the authors' way (the target's timestep; needs S = B).
    """

    reference: Tensor
    context: Context
    proprio: Tensor
    actions: Tensor
    action_noise: Tensor
    action_timestep: Tensor
    target: Tensor | None = None
    target_noise: Tensor | None = None
    target_timestep: Tensor | None = None
    action_is_pad: Tensor | None = None
    action_dim_is_pad: Tensor | None = None
    prefix_at_zero: bool = True


class JointOutput(NamedTuple):
    """Predicted velocities: action (B*K, T, D), video like the target latents or None."""

    action: Tensor
    video: Tensor | None


@dataclass(frozen=True)
class Plan:
    """Everything about denoising that does not depend on the observation, computed once.

    timesteps and deltas are (steps,). action and prefix hold the network's modulation of
    those timesteps and of timestep 0. Valid until the weights change.
    """

    denoising: Denoising
    timesteps: Tensor
    deltas: Tensor
    action: Sequence[Any]
    prefix: Any


class Network(Protocol):
    """A backbone with its action expert and proprio token: latents and text in, velocities out."""

    def prefill(
        self,
        latents: Tensor,
        context: Context,
        proprio: Tensor,
        horizon: int,
        plan: Plan | None = None,
        cache: PrefixCache | None = None,
    ) -> PrefixCache:
        """Run the prefix once at timestep 0 and keep its keys and values."""

    def velocity(self, actions: Tensor, timestep: Tensor, cache: PrefixCache) -> Tensor:
        """Velocity (B, T, D) of noised actions (B, T, D) at timestep (B,) in 0..1000."""

    def plan(self, denoising: Denoising) -> Plan:
        """Compute what all chunks with this schedule share."""

    def denoise(self, noise: Tensor, cache: PrefixCache, plan: Plan) -> Tensor:
        """Euler steps from noise (B, T, D) to actions (B, T, D), normalised."""

    def joint_forward(self, batch: JointBatch) -> JointOutput:
        """Velocities of target image and actions with gradients."""

    def preview_velocity(
        self,
        target: Tensor,
        timestep: Tensor,
        latents: Tensor,
        context: Context,
        proprio: Tensor,
        prefix_at_zero: bool = False,
    ) -> Tensor:
        """Velocity of the noised target latents (B, C, h, w), for the imagined goal image.

        prefix_at_zero as in `JointBatch`: the prefix must be modulated as it was in training.
        """


class ImageCodec(Protocol):
    """Frozen autoencoder: pixels (B, 3, H, W) in [-1, 1] to the latents that a network takes, and back.

    Latents are the posterior's mean, or a draw from it where posterior_seed is set.
    """

    posterior_seed: int | None

    def encode(self, images: Tensor) -> Tensor:
        """Return latents (B, C, h, w), packed and normalised."""

    def decode(self, latents: Tensor) -> Tensor:
        """Return pixels (B, 3, H, W) clamped to [-1, 1]. Raises CheckpointError without decoder."""

    def save(self, directory: Path, dtype: torch.dtype | None = None) -> None:
        """Write a diffusers directory, weights as dtype."""

    def to(self, device: torch.device | str) -> "ImageCodec":
        """Move to a device."""


class TextEncoder(Protocol):
    """Frozen text side. `condition` sees the image too, for backbones whose text features do."""

    def encode(self, prompt: str) -> Tensor:
        """Encode once per instruction: features (L, ctx) or token ids (L,).

        Raises ConfigError when the prompt has more tokens than the checkpoint reads.
        """

    def condition(self, tokens: Tensor, images: Tensor) -> Context:
        """Text features of one encoded instruction for images (B, 3, H, W)."""

    def save(self, directory: Path, dtype: torch.dtype | None = None) -> None:
        """Write `text_encoder/` and `tokenizer/` into a checkpoint directory, weights as dtype."""

    def release(self) -> bool:
        """Drop the language model from memory; the next encode reads it again.

        False where it stays, because it sees every image or came from no directory.
        """

    def to(self, device: torch.device | str) -> "TextEncoder":
        """Move to a device."""


class WorldActionModel(Protocol):
    """What policy, training and tools see: one backbone with its encoders, whatever the variant."""

    def noise(self, seed: int) -> Tensor:
        """Start noise (1, T, D) of a seed, where D counts padded dims too."""

    def encode_instruction(self, text: str) -> Instruction:
        """Encode an instruction; once per instruction is enough."""

    def encode_images(self, images: Tensor) -> Tensor:
        """Latents (B, C, h, w) of pixels (B, 3, H, W) in [-1, 1], without gradients."""

    def prefill(
        self,
        images: Tensor,
        proprio: Tensor,
        instruction: Instruction,
        plan: Plan | None = None,
        cache: PrefixCache | None = None,
    ) -> PrefixCache:
        """One editing forward over images (B, 3, H, W) in [-1, 1] and proprio (B, P), normalised."""

    def velocity(self, actions: Tensor, timestep: Tensor, cache: PrefixCache) -> Tensor:
        """Velocity (B, T, D) of noised actions at timestep (B,) in 0..1000."""

    def plan(self, denoising: Denoising) -> Plan:
        """Compute what all chunks with this schedule share."""

    def denoise(self, noise: Tensor, cache: PrefixCache, plan: Plan) -> Tensor:
        """Actions (B, T, D), normalised, from noise (B, T, D)."""

    def joint_forward(self, batch: JointBatch) -> JointOutput:
        """Training forward on latents; losses are in `flow.losses`."""

    def preview(
        self, images: Tensor, proprio: Tensor, instruction: Instruction, seed: int, denoising: Denoising
    ) -> Tensor:
        """Imagined goal image (1, 3, H, W) in [-1, 1] from one observation. The actions never see it.

        Raises CheckpointError where the weights hold no trained video head, or no decoder.
        """

    def imagine(
        self, images: Tensor, proprio: Tensor, instruction: Instruction, seed: int, denoising: Denoising
    ) -> Iterator[Tensor]:
        """Yield the goal's latents (1, C, h, w) after each Euler step; the last decode to what `preview` gives.

        Each step is one forward of the backbone, so a caller can do other work in between.
        """
