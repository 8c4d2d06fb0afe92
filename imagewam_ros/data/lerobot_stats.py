# SPDX-License-Identifier: Apache-2.0
"""Statistics of a data set in the three layouts that are asked for: ours, LeRobot's, the authors'.

Images are summed up in histograms, so that any part of a data set can be joined exactly.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagewam_ros.core.schema import Floats, Image
from imagewam_ros.core.stats import Statistics

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
Histogram = NDArray[np.int64]
"""(3, 256) how often each value occurs in each channel."""

PIXEL_STEP = 4
"""Every fourth row and column of a sampled image are looked at."""


def vector_statistics(values: NDArray[Any]) -> dict[str, Any]:
    """LeRobot's statistics of (frames, dims) or (frames,): a list of dims numbers each."""
    rows = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
    found = {"min": rows.min(0), "max": rows.max(0), "mean": rows.mean(0), "std": rows.std(0)}
    found |= {name: np.quantile(rows, q, axis=0) for name, q in QUANTILES.items()}
    return {**{name: value.tolist() for name, value in found.items()}, "count": [len(rows)]}


def histogram(images: Sequence[Image]) -> Histogram:
    """Count the values of the channels of some images."""
    flat = [np.asarray(image[::PIXEL_STEP, ::PIXEL_STEP]).reshape(-1, 3) for image in images]
    pixels = np.concatenate(flat)
    return np.stack([np.bincount(pixels[:, channel], minlength=256) for channel in range(3)]).astype(np.int64)


def image_statistics(counts: Histogram, images: int) -> dict[str, Any]:
    """LeRobot's statistics of a camera in [0, 1], each (3, 1, 1); `images` were looked at."""
    levels = np.arange(256) / 255.0
    share = counts / counts.sum(1, keepdims=True)
    mean = share @ levels
    std = np.sqrt(np.maximum(share @ levels**2 - mean**2, 0.0))
    present = [levels[row > 0] for row in counts]
    found = {
        "min": np.array([row[0] for row in present]),
        "max": np.array([row[-1] for row in present]),
        "mean": mean,
        "std": std,
    }
    below = np.cumsum(counts, axis=1)
    for name, q in QUANTILES.items():
        found[name] = levels[[int(np.searchsorted(row, q * row[-1])) for row in below]]
    return {**{name: value.reshape(3, 1, 1).tolist() for name, value in found.items()}, "count": [images]}


def windows(values: Floats, length: int) -> Floats:
    """(frames, length, dims): what follows each frame, the last row repeated past the end."""
    rows = np.arange(len(values))[:, None] + np.arange(length)
    followed: Floats = values[rows.clip(max=len(values) - 1)]
    return followed


def authors_statistics(states: Sequence[Floats], actions: Sequence[Floats], horizon: int) -> dict[str, Any]:
    """dataset_stats.json as ImageWAM's own training reads it; one (frames, dims) array per episode.

    Every episode weighs the same, and quantiles are the extremes over the episodes' quantiles, so
    these differ from pooled statistics. Source: the authors' BaseLerobotDataset.get_dataset_stats.
    """
    return {
        "state": {"default": _authors_field([windows(state, 1) for state in states])},
        "action": {"default": _authors_field([windows(action, horizon) for action in actions])},
        "num_episodes": len(states),
        "num_transition": sum(len(state) for state in states),
    }


def _authors_field(episodes: Sequence[Floats]) -> dict[str, Any]:
    """Statistics of (frames, steps, dims) per episode; stepwise are (steps, dims), global are (dims,)."""
    means = np.stack([episode.mean(0) for episode in episodes])
    variances = np.stack([episode.var(0, ddof=min(1, len(episode) - 1)) for episode in episodes])
    low, high = (np.stack([np.quantile(episode, q, axis=0) for episode in episodes]) for q in (0.01, 0.99))
    found = {
        "min": np.stack([episode.min(0) for episode in episodes]).min(0),
        "max": np.stack([episode.max(0) for episode in episodes]).max(0),
        "mean": means.mean(0),
        "std": np.sqrt((variances + (means - means.mean(0)) ** 2).mean(0)),
        "q01": low.min(0),
        "q99": high.max(0),
    }
    mean = means.mean((0, 1))
    whole = {
        "min": found["min"].min(0),
        "max": found["max"].max(0),
        "mean": mean,
        "std": np.sqrt((variances + (means - mean) ** 2).mean((0, 1))),
        "q01": found["q01"].min(0),
        "q99": found["q99"].max(0),
    }
    stepwise = {f"stepwise_{name}": value.tolist() for name, value in found.items()}
    return {**{f"global_{name}": value.tolist() for name, value in whole.items()}, **stepwise}


def own_statistics(states: Sequence[Floats], actions: Sequence[Floats]) -> Mapping[str, Any]:
    """Pooled statistics of states and of absolute actions, every frame weighing the same: stats.json's layout."""
    return {
        "state": Statistics.of(np.concatenate(list(states))).to_dict(),
        "action": Statistics.of(np.concatenate(list(actions))).to_dict(),
    }
