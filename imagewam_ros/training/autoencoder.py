# SPDX-License-Identifier: Apache-2.0
"""Train a small image autoencoder on mosaics, and encode every frame once with it.

Crops make the steps cheap: all layers are convolutions, so what is learned on crops serves the mosaic.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKLFlux2
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm, trange

from imagewam_ros.model.autoencoder import Flux2Codec
from imagewam_ros.model.protocol import ImageCodec
from imagewam_ros.training.disk import reserve, writing
from imagewam_ros.training.pixels import Pixels, to_unit
from imagewam_ros.training.presets import AutoencoderConfig
from imagewam_ros.training.rates import cosine

LOG_VARIANCE = (-12.0, 4.0)
"""The posterior's log variance is kept in here while training."""

ENCODE_BATCH = 64


class Quality(NamedTuple):
    """psnr_db of the decoded mean against the image, on held-out frames."""

    psnr_db: float


def build_autoencoder(config: AutoencoderConfig) -> AutoencoderKLFlux2:
    """Build the untrained autoencoder that `config` describes."""
    levels = len(config.encoder)
    return AutoencoderKLFlux2(
        block_out_channels=config.encoder,
        decoder_block_out_channels=config.decoder,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1,
        latent_channels=config.latent_channels,
        norm_num_groups=config.groups,
        mid_block_add_attention=False,
        sample_size=config.crop,
    )


def train_autoencoder(
    config: AutoencoderConfig, mosaics: Pixels, rows: NDArray[np.int64], seed: int, begin: Flux2Codec | None = None
) -> Flux2Codec:
    """Train on frames `rows` of mosaics (frames, H, W, 3), the same on every run with this seed.

    begin is an autoencoder to go on from, with its sizes; it is changed.
    """
    torch.manual_seed(seed)
    model: Any = build_autoencoder(config) if begin is None else begin.autoencoder.requires_grad_(True)
    model = model.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    bar = trange(config.steps, unit="step", desc="autoencoder")
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * cosine(step, config.steps, config.warmup, 0.02)
        rng = np.random.default_rng((seed, step))
        image = to_unit(_crops(mosaics, rows, config, rng)).contiguous(memory_format=torch.channels_last)
        noise = torch.Generator().manual_seed(int(rng.integers(2**62)))
        loss, error = autoencoder_loss(model, image, config, noise)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0:
            bar.set_postfix_str(f"psnr {psnr(float(error)):.1f} dB", refresh=False)
    codec = Flux2Codec(model)
    _measure(codec, mosaics, rows, np.random.default_rng(seed))
    return codec


def autoencoder_loss(
    model: Any, image: Tensor, config: AutoencoderConfig, noise: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return the loss and the mean squared error of images (B, 3, H, W) in [-1, 1]."""
    posterior = model.encode(image).latent_dist
    mean, log_variance = posterior.mean, posterior.logvar.clamp(*LOG_VARIANCE)
    drawn = mean + torch.randn(mean.shape, generator=noise) * (0.5 * log_variance).exp()
    difference = model.decode(drawn).sample - image
    error = difference.square().mean()
    if config.vivid:
        vividness = (image.amax(1, keepdim=True) - image.amin(1, keepdim=True)).square()
        weight = 1 + config.vivid * vividness
        difference = difference * (weight / weight.mean()).sqrt()
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    loss = difference.square().mean() + config.absolute * difference.abs().mean()
    return loss + config.kl * config.latent_channels * divergence, error.detach()


def encode_all(
    codec: ImageCodec, mosaics: Pixels, path: Path, rows: NDArray[np.int64] | None = None
) -> NDArray[np.float16]:
    """Encode mosaics to latents (frames, C, h, w) in `path`, float16; whole or not there.

    Frames that are not among `rows` (all without it) stay zero. Raises DiskError when the disk has no space for them.
    """
    rows = np.arange(len(mosaics)) if rows is None else rows
    part, shape = path.with_suffix(".part.npy"), codec.encode(to_unit(mosaics[:1])).shape[1:]
    latents = reserve(part, np.float16, (len(mosaics), *shape))
    for start in tqdm(range(0, len(rows), ENCODE_BATCH), unit="batch", desc="encoding"):
        some = rows[start : start + ENCODE_BATCH]
        latents[some] = codec.encode(to_unit(mosaics[some])).numpy()
    with writing(path):
        latents.flush()
        part.replace(path)
    return np.load(path)  # type: ignore[no-any-return]


def quality(codec: ImageCodec, mosaics: Pixels) -> Quality:
    """Measure reconstruction of mosaics (frames, H, W, 3)."""
    image = to_unit(mosaics)
    return Quality(psnr(float(F.mse_loss(codec.decode(codec.encode(image)), image))))


def psnr(error: float) -> float:
    """Peak signal to noise in dB of a mean squared error on [-1, 1]."""
    return 10 * math.log10(4 / max(error, 1e-12))


def _crops(mosaics: Pixels, rows: NDArray[np.int64], config: AutoencoderConfig, rng: np.random.Generator) -> Pixels:
    """Crops (batch, H, crop, 3) at columns that the autoencoder's grid allows."""
    frames = rng.choice(rows, config.batch)
    places = 8 * rng.integers(0, (mosaics.shape[2] - config.crop) // 8 + 1, config.batch)
    return np.stack([mosaics[f, :, p : p + config.crop] for f, p in zip(frames, places, strict=True)])


def _measure(codec: Flux2Codec, mosaics: Pixels, rows: NDArray[np.int64], rng: np.random.Generator) -> None:
    """Set the statistics that latents are normalised with, from up to 2000 frames."""
    chosen = np.sort(rng.permutation(rows)[:2000])
    batches = np.array_split(chosen, max(1, len(chosen) // ENCODE_BATCH))
    moments = torch.cat([codec.moments(to_unit(mosaics[batch]))[0] for batch in batches])
    codec.set_statistics(moments.mean((0, 2, 3)), moments.var((0, 2, 3)))
