# SPDX-License-Identifier: Apache-2.0
"""The whole model: one network with its frozen encoders. Satisfies `protocol.WorldActionModel`."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from imagewam_ros.core.contract import Denoising
from imagewam_ros.core.errors import CheckpointError
from imagewam_ros.model import flow
from imagewam_ros.model.factory import ModelSpec
from imagewam_ros.model.network import ImageWamNetwork
from imagewam_ros.model.protocol import (
    Context,
    ImageCodec,
    Instruction,
    JointBatch,
    JointOutput,
    Plan,
    PrefixCache,
    TextEncoder,
)


class ImageWam(nn.Module):
    """Network, image codec and text encoder of one checkpoint.

    Only the network's parameters are this module's: the encoders are frozen and stay out of
    `parameters()` and `state_dict()`. spec says what config.json will; prompt holds {task};
    horizon is the rows of a chunk.
    """

    network: ImageWamNetwork

    def __init__(
        self,
        network: ImageWamNetwork,
        codec: ImageCodec,
        text: TextEncoder,
        spec: ModelSpec,
        prompt: str,
        horizon: int,
    ) -> None:
        super().__init__()
        self.network = network
        self.spec = spec
        self.prompt = prompt
        self.horizon = horizon
        self._frozen = (codec, text)

    @property
    def codec(self) -> ImageCodec:
        """The frozen autoencoder."""
        return self._frozen[0]

    @property
    def text(self) -> TextEncoder:
        """The frozen text encoder."""
        return self._frozen[1]

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What the network computes in."""
        return next(self.network.parameters()).dtype

    def noise(self, seed: int) -> Tensor:
        """See `protocol.WorldActionModel`."""
        return flow.action_noise(seed, self.horizon, self.network.config.action_dim).to(self.device)

    def encode_instruction(self, text: str) -> Instruction:
        """See `protocol.WorldActionModel`."""
        return Instruction(text, self.text.encode(self.prompt.format(task=text)).to(self.device))

    def encode_images(self, images: Tensor) -> Tensor:
        """See `protocol.WorldActionModel`."""
        return self.codec.encode(images).to(self.dtype)

    @torch.no_grad()
    def prefill(
        self,
        images: Tensor,
        proprio: Tensor,
        instruction: Instruction,
        plan: Plan | None = None,
        cache: PrefixCache | None = None,
    ) -> PrefixCache:
        """See `protocol.WorldActionModel`."""
        return self.prefill_from(images, proprio, self.text.condition(instruction.tokens, images), plan, cache)

    @torch.no_grad()
    def prefill_from(
        self,
        images: Tensor,
        proprio: Tensor,
        context: Context,
        plan: Plan | None = None,
        cache: PrefixCache | None = None,
    ) -> PrefixCache:
        """The same from text features that are there already."""
        return self.network.prefill(
            self.encode_images(images), context, self._state(proprio), self.horizon, plan, cache
        )

    def velocity(self, actions: Tensor, timestep: Tensor, cache: PrefixCache) -> Tensor:
        """See `protocol.WorldActionModel`."""
        return self.network.velocity(actions, timestep, cache)

    def plan(self, denoising: Denoising) -> Plan:
        """See `protocol.WorldActionModel`."""
        return self.network.plan(denoising)

    def denoise(self, noise: Tensor, cache: PrefixCache, plan: Plan) -> Tensor:
        """See `protocol.WorldActionModel`."""
        return self.network.denoise(noise, cache, plan)

    def joint_forward(self, batch: JointBatch) -> JointOutput:
        """See `protocol.WorldActionModel`."""
        return self.network.joint_forward(batch)

    @torch.no_grad()
    def preview(
        self, images: Tensor, proprio: Tensor, instruction: Instruction, seed: int, denoising: Denoising
    ) -> Tensor:
        """See `protocol.WorldActionModel`."""
        *_, goal = self.imagine(images, proprio, instruction, seed, denoising)
        return self.codec.decode(goal)

    @torch.no_grad()
    def imagine(
        self, images: Tensor, proprio: Tensor, instruction: Instruction, seed: int, denoising: Denoising
    ) -> Iterator[Tensor]:
        """See `protocol.WorldActionModel`."""
        context = self.text.condition(instruction.tokens, images)
        latents, proprio = self.encode_images(images), self._state(proprio)
        grid = flow.schedule(denoising.steps, denoising.shift, denoising.time_grid)
        target = self.network.goal_noise(seed, latents).float()
        for timestep, delta in zip(grid.timesteps, grid.deltas, strict=True):
            time = timestep.to(target.device).expand(target.shape[0])
            noised = target.to(self.dtype)
            velocity = self.network.preview_velocity(noised, time, latents, context, proprio, self.spec.prefix_at_zero)
            if not velocity.any():
                raise CheckpointError(
                    "this checkpoint imagines nothing: its video head is all zeros, so it was trained without goal "
                    "images; train with targets above 0 to see previews"
                )
            target = target + velocity.float() * delta
            yield target

    def _state(self, proprio: Tensor) -> Tensor:
        return self.network.with_padding(proprio.to(self.dtype))
