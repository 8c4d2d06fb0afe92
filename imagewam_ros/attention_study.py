# SPDX-License-Identifier: Apache-2.0
"""Does the policy attend to the task's objects? Its heat maps on many frames, and controls.

Each frame is asked for its map under the scene's own instruction and under wrong ones. A map that follows
the objects beats the same map laid over another scene; one that follows the words changes with them.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from imagewam_ros.attention_frames import ALL, Frame
from imagewam_ros.core.schema import Floats
from imagewam_ros.model.capture import Attention, Weights, camera_mass, capture_chunk, mass_on
from imagewam_ros.model.protocol import Instruction
from imagewam_ros.policy import Policy
from imagewam_ros.sim.tasks import TASKS

OWN, SHUFFLED, OTHER, MOVED = "own instruction", "shuffled words", "other instruction", "map of another scene"
CONDITIONS = (OWN, SHUFFLED, OTHER, MOVED)
RESAMPLES = 4000
"""Of the bootstrap."""


class Seen(NamedTuple):
    """Share of the image attention on some objects, and their share of the pixels."""

    mass: float
    area: float


class Measure(NamedTuple):
    """A mean over frames with bounds of 95 %, by resampling episodes: those of one episode resemble each other."""

    mean: float
    low: float
    high: float


class Study(NamedTuple):
    """seen holds, by group of objects and condition, one entry per frame of that group (`episodes` says whose).

    layers holds the same of each layer for all objects under the own instruction; mass is the mean
    share of all attention by camera, "text" and "action".
    """

    episodes: Mapping[str, NDArray[np.int64]]
    seen: Mapping[str, Mapping[str, Sequence[Seen]]]
    layers: Sequence[Sequence[Seen]]
    mass: Mapping[str, float]


@torch.inference_mode()
def attend(policy: Policy, frame: Frame, told: Instruction | None = None, seed: int = 0) -> Attention:
    """Attention while the policy makes one chunk for a frame, told its own instruction or another one."""
    model, (pixels, proprio) = policy.model, policy.inputs(frame.observation)
    plan = model.plan(policy.contract.denoising)
    cache = model.prefill(pixels, proprio, told or policy.encoded(frame.observation.instruction), plan)
    return capture_chunk(model.network, cache, model.noise(seed), plan, policy.contract.mosaic)


def controls(instruction: str, own_task: Sequence[str], seed: int) -> dict[str, str]:
    """Wrong instructions by condition: the words in another order, and another one of the same task or of any."""
    rng = np.random.default_rng(seed)
    words = instruction.split()
    shuffled = [words[i] for i in rng.permutation(len(words))]
    while len(set(words)) > 1 and shuffled == words:
        shuffled = [words[i] for i in rng.permutation(len(words))]
    others = [text for text in own_task if text != instruction]
    others = others or [text for task in TASKS.values() for text in task.instructions if text != instruction]
    return {SHUFFLED: " ".join(shuffled), OTHER: others[seed % len(others)]}


def study(
    policy: Policy, frames: Sequence[Frame], own_task: Sequence[str],
    layers: Sequence[int] = (), heads: Sequence[int] = (),
) -> Study:  # fmt: skip
    """Ask all frames under all conditions, for some layers and heads or all; `own_task` holds its instructions."""
    heats: dict[str, list[Weights]] = {condition: [] for condition in CONDITIONS}
    masses, by_layer = [], []
    encoded: dict[str, Instruction] = {}
    for frame in tqdm(frames, unit="frame", desc="attention"):
        own = frame.observation.instruction
        wrong = controls(own, own_task, frame.episode) if frame.objects else {}
        for condition, text in {OWN: own, **wrong}.items():
            if text not in encoded:
                encoded[text] = policy.encoded(text)
            attention = attend(policy, frame, encoded[text]).of(layers, heads)
            heats[condition].append(attention.heat())
            if condition == OWN:
                masses.append(camera_mass(attention, policy.contract.mosaic))
                by_layer.append([attention.of([i]).heat() for i in range(len(attention.weights))])
    heats[MOVED] = [heats[OWN][place] for place in _elsewhere(frames)]
    groups = [frame.groups() for frame in frames]
    seen, episodes = {}, {}
    for group in dict.fromkeys(name for each in groups for name in each):
        rows = [row for row, each in enumerate(groups) if group in each]
        episodes[group] = np.array([frames[row].episode for row in rows])
        seen[group] = {
            condition: [Seen(*mass_on(maps[row], groups[row][group])) for row in rows]
            for condition, maps in heats.items()
        }
    each_layer = zip(*by_layer, strict=True)
    by_mask = [each[ALL] for each in groups if ALL in each]
    layered = [[Seen(*mass_on(*pair)) for pair in zip(maps, by_mask, strict=True)] for maps in each_layer if by_mask]
    mean = {name: float(np.mean([mass[name] for mass in masses])) for name in masses[0]}
    return Study(episodes, seen, layered, mean)


def ratio(seen: Sequence[Seen], episodes: NDArray[np.int64], draw: int = 0) -> Measure:
    """Mean mass over mean area: 1 where the attention is indifferent to the objects."""
    values = np.array(seen)
    drawn = _resampled(values, episodes, draw)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], (0.025, 0.975))
    return Measure(float(values[:, 0].mean() / values[:, 1].mean()), float(low), float(high))


def gain(own: Sequence[Seen], other: Sequence[Seen], episodes: NDArray[np.int64], draw: int = 0) -> Measure:
    """Mean mass of `own` less that of `other` on the same frames."""
    gap = np.array(own)[:, :1] - np.array(other)[:, :1]
    low, high = np.quantile(_resampled(gap, episodes, draw), (0.025, 0.975))
    return Measure(float(gap.mean()), float(low), float(high))


def _resampled(values: Floats, episodes: NDArray[np.int64], draw: int) -> Floats:
    """Means (RESAMPLES, k) of values (frames, k) over episodes drawn with replacement."""
    names, owner = np.unique(episodes, return_inverse=True)
    sums = np.stack([values[owner == i].sum(0) for i in range(len(names))])
    drawn = np.random.default_rng(draw).integers(len(names), size=(RESAMPLES, len(names)))
    means: Floats = sums[drawn].sum(1) / np.bincount(owner)[drawn].sum(1)[:, None]
    return means


def _elsewhere(frames: Sequence[Frame]) -> list[int]:
    """For each frame the place of the one of the next episode that is nearest in time."""
    episodes = sorted({frame.episode for frame in frames})
    following = dict(zip(episodes, episodes[1:] + episodes[:1], strict=True))
    places = []
    for frame in frames:
        there = [i for i, other in enumerate(frames) if other.episode == following[frame.episode]]
        places.append(min(there, key=lambda i: abs(frames[i].time_ns - frame.time_ns)))
    return places
