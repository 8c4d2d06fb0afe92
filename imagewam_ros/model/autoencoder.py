# SPDX-License-Identifier: Apache-2.0
"""Frozen image autoencoders: a diffusers module, and the packing and normalisation around it.

The posterior's mean is the latent, or a seeded draw from it where `posterior_seed` is set (the authors draw
for OmniGen2 and Ovis-U1, without a seed). Source: docs/model.md, section 1.5 (FLUX.2), and
docs/variants.md, sections 1 and 2.
"""

import json
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKL, AutoencoderKLFlux2
from torch import Tensor, nn
from torch.nn import functional as F

from imagewam_ros.core.errors import CheckpointError
from imagewam_ros.model.frozen import load_whole

PATCH = 2
"""Latent pixels per token side."""


class Flux2Codec(nn.Module):
    """FLUX.2: mean, 2x2 pixels to channels in order (c, row, column), batch-norm statistics.

    Latents are (B, 4 z, H / 16, W / 16) for an autoencoder with z latent channels and three halvings.
    """

    def __init__(self, autoencoder: Any) -> None:
        super().__init__()
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        self.posterior_seed: int | None = None

    @classmethod
    def load(cls, directory: Path, dtype: torch.dtype = torch.float32) -> "Flux2Codec":
        """Load a diffusers directory. Raises CheckpointError."""
        return cls(load_autoencoder(AutoencoderKLFlux2, directory, dtype))

    @property
    def channels(self) -> int:
        """Latent channels that a network takes."""
        return int(self.autoencoder.bn.num_features)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """See `protocol.ImageCodec`."""
        packed = drawn(*self.moments(images), self.posterior_seed)
        mean, deviation = self._statistics(packed)
        return (packed - mean) / deviation

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """See `protocol.ImageCodec`."""
        require_decoder(self.autoencoder)
        latents = latents.to(self.autoencoder.dtype)
        mean, deviation = self._statistics(latents)
        pixels: Tensor = self.autoencoder.decode(F.pixel_shuffle(latents * deviation + mean, PATCH)).sample
        return pixels.clamp(-1, 1)

    @torch.no_grad()
    def moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Packed posterior mean and log variance before normalisation, each like the latents."""
        posterior = self.autoencoder.encode(images.to(self.autoencoder.dtype)).latent_dist
        return F.pixel_unshuffle(posterior.mean, PATCH), F.pixel_unshuffle(posterior.logvar, PATCH)

    def set_statistics(self, mean: Tensor, variance: Tensor) -> None:
        """Set what latents are normalised with, each (channels,), when the autoencoder was trained here."""
        self.autoencoder.bn.running_mean.copy_(mean)
        self.autoencoder.bn.running_var.copy_(variance)

    def save(self, directory: Path, dtype: torch.dtype | None = None) -> None:
        """See `protocol.ImageCodec`."""
        _save(self.autoencoder, directory, dtype)

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        norm = self.autoencoder.bn
        deviation = (norm.running_var + norm.eps).sqrt()
        return norm.running_mean.view(1, -1, 1, 1).to(like), deviation.view(1, -1, 1, 1).to(like)


class KlCodec(nn.Module):
    """Plain diffusers AutoencoderKL: latent = (mean - shift) * scaling, packed 2x2 if the network wants it."""

    packed: ClassVar[bool] = False

    def __init__(self, autoencoder: Any) -> None:
        super().__init__()
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        self.posterior_seed: int | None = None

    @classmethod
    def load(cls, directory: Path, dtype: torch.dtype = torch.float32) -> "KlCodec":
        """Load a diffusers directory. Raises CheckpointError."""
        return cls(load_autoencoder(AutoencoderKL, directory, dtype))

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """See `protocol.ImageCodec`."""
        config = self.autoencoder.config
        latents = drawn(*self.moments(images), self.posterior_seed)
        latents = (latents - (config.shift_factor or 0.0)) * config.scaling_factor
        return F.pixel_unshuffle(latents, PATCH) if self.packed else latents

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """See `protocol.ImageCodec`."""
        require_decoder(self.autoencoder)
        config = self.autoencoder.config
        latents = F.pixel_shuffle(latents, PATCH) if self.packed else latents
        latents = latents.to(self.autoencoder.dtype) / config.scaling_factor + (config.shift_factor or 0.0)
        pixels: Tensor = self.autoencoder.decode(latents).sample
        return pixels.clamp(-1, 1)

    @torch.no_grad()
    def moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean and log variance (B, z, H / 8, W / 8)."""
        posterior = self.autoencoder.encode(images.to(self.autoencoder.dtype)).latent_dist
        return posterior.mean, posterior.logvar

    def save(self, directory: Path, dtype: torch.dtype | None = None) -> None:
        """See `protocol.ImageCodec`."""
        _save(self.autoencoder, directory, dtype)


class PackedKlCodec(KlCodec):
    """Ovis-U1: 2x2 pixels to channels in order (c, row, column)."""

    packed = True


def drawn(mean: Tensor, logvar: Tensor, seed: int | None) -> Tensor:
    """Mean of the posterior, or one draw from it, the same for the same seed on every device."""
    if seed is None:
        return mean
    return mean + (0.5 * logvar.clamp(-30, 20)).exp() * _noise(mean.shape, seed, mean.device, mean.dtype)


@cache
def _noise(shape: torch.Size, seed: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Noise of a seed, fetched from the host once: a CUDA graph cannot wait for it."""
    with torch.inference_mode(False):  # training may need it next
        return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed)).to(device, dtype)


def channels_last(codec: Any) -> None:
    """Lay a codec's convolutions out as processors like them; latents change by rounding only."""
    codec.autoencoder.to(memory_format=torch.channels_last)


def require_decoder(autoencoder: Any) -> None:
    """Raise CheckpointError where the decoder's weights were left out, as acting needs none."""
    if autoencoder.decoder is None:
        raise CheckpointError(
            "this checkpoint's autoencoder has no decoder, so images can be read but none imagined; "
            "copy the weights decoder.* of the original autoencoder into it to see previews"
        )


def load_autoencoder(cls: Any, directory: Path, dtype: torch.dtype) -> Any:
    """Load a diffusers autoencoder from its directory, perhaps without decoder. Raises CheckpointError."""
    if not (directory / "config.json").is_file():
        raise CheckpointError(
            f"no autoencoder in {directory}; expected a diffusers directory with config.json and weights"
        )
    return load_whole(cls, directory, "autoencoder", without="decoder", torch_dtype=dtype)


def _save(autoencoder: Any, directory: Path, dtype: torch.dtype | None) -> None:
    """Write a diffusers directory that does not tell where the autoencoder was loaded from."""
    deepcopy(autoencoder).to(dtype or autoencoder.dtype).save_pretrained(directory)
    path = directory / "config.json"
    config = json.loads(path.read_text())
    config.pop("_name_or_path", None)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
