# SPDX-License-Identifier: Apache-2.0
"""How well sampled chunks match held-out demonstrations: a cheap forecast of closed-loop success."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from imagewam_ros.data.dataset import Rows
from imagewam_ros.model.network import ImageWamNetwork
from imagewam_ros.model.protocol import Context
from imagewam_ros.training.samples import Samples

FRAMES = 192
EARLY = 24
"""Frames into a demonstration that count as early: before the hands close, where sight matters most."""


class ChunkError(NamedTuple):
    """Mean squared error of normalised chunks over all frames, over early ones, and over those of each instruction."""

    all: float
    early: float
    of: Mapping[str, float]


def chunk_error(
    network: ImageWamNetwork, samples: Samples, rows: Rows, seed: int = 0, *, mask_past_end: bool = False
) -> ChunkError:
    """Sample chunks at up to 192 frames of `rows`, the same frames and noise on every call.

    Rows of a chunk that training leaves out do not count: what comes after an open end, with mask_past_end after any.
    """
    chosen = np.random.default_rng(seed).permutation(rows)[:FRAMES]
    wanted, past_end = samples.actions(chosen)
    counts = torch.from_numpy(~(past_end if mask_past_end else samples.dataset.unknown(chosen)))
    noise = torch.randn(samples.widened(wanted).shape, generator=torch.Generator().manual_seed(seed))
    sampled = sample_chunks(network, samples, chosen, noise).cpu()
    error = (((sampled - wanted).square().mean(2) * counts).sum(1) / counts.sum(1)).numpy()
    early = samples.dataset.time[chosen] < EARLY
    texts = np.array([samples.dataset.demonstrations[owner].instruction for owner in samples.dataset.owner[chosen]])
    return ChunkError(
        float(error.mean()),
        float(error[early].mean()) if early.any() else float("nan"),
        {str(text): float(error[texts == text].mean()) for text in np.unique(texts)},
    )


@torch.no_grad()
def sample_chunks(network: ImageWamNetwork, samples: Samples, rows: Rows, noise: Tensor) -> Tensor:
    """Normalised chunks (B, T, D) at frames `rows` from noise (B, T, D), on the network's device."""
    device = network.proprio_encoder.weight.device
    plan, chunks = network.plan(samples.contract.denoising), []
    for part in torch.arange(len(rows)).split(32):
        place = rows[part.numpy()]
        tokens, mask = samples.context(place)
        text = Context(tokens.to(device), None if mask is None else mask.to(device))
        images, state = samples.images(place).to(device), samples.widened(samples.states(place)).to(device)
        cache = network.prefill(images, text, state, noise.shape[1], plan)
        chunks.append(network.denoise(noise[part].to(device), cache, plan))
    return torch.cat(chunks)
