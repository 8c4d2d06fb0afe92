# SPDX-License-Identifier: Apache-2.0
"""Moments that a policy is asked about: of simulated episodes with masks of the objects, or of recorded ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.schema import Observation
from imagewam_ros.evaluation.drivers import PolicyDriver
from imagewam_ros.evaluation.source import Source
from imagewam_ros.evaluation.trial import TrialConfig, run_trial
from imagewam_ros.model.preprocess import mosaic_pixels
from imagewam_ros.policy import Policy
from imagewam_ros.sim.cell import Cell
from imagewam_ros.sim.demonstration import follow
from imagewam_ros.sim.expert import PERIOD_NS, Expert

ALL, NAMED, UNNAMED = "task objects", "named object", "other object"
Mask = NDArray[np.float32]


@dataclass(frozen=True)
class Frame:
    """One moment of an episode and where its objects are: (H, W) in 0..1 over the mosaic, by body name."""

    episode: int
    time_ns: int
    observation: Observation
    objects: Mapping[str, Mask]

    def groups(self) -> dict[str, Mask]:
        """Masks of all objects and, where the instruction names some and not others, of these and those."""
        if not self.objects:
            return {}
        parts = {name: set(name.split("_")) for name in self.objects}
        shared = set.intersection(*parts.values())
        told = set(self.observation.instruction.split())
        named = [name for name, words in parts.items() if (words - shared) & told]
        groups = {ALL: list(self.objects)}
        if 0 < len(named) < len(self.objects):
            groups |= {NAMED: named, UNNAMED: [name for name in self.objects if name not in named]}
        return {group: np.clip(sum(self.objects[name] for name in names), 0, 1) for group, names in groups.items()}


def watch_policy(cell: Cell, policy: Policy, seed: int, every_ns: int) -> list[Frame]:
    """Frames of an episode that the policy plays."""
    frames: list[Frame] = []

    def look(now: Cell) -> None:
        if now.time_ns % every_ns == 0:
            frames.append(_frame(now, policy, seed))

    source = Source(policy, policy.contract.camera_names)
    run_trial(cell, PolicyDriver(source), "normal", seed, TrialConfig(), look)
    return frames


def watch_expert(cell: Cell, policy: Policy, seed: int, every_ns: int) -> list[Frame]:
    """Frames of an episode that the expert plays, as the policy would have seen them."""
    cell.reset(seed)
    expert = Expert(cell)
    expert.start()
    frames = []
    for step in range(expert.steps):
        if step * PERIOD_NS % every_ns == 0:
            frames.append(_frame(cell, policy, seed))
        follow(cell, expert.curve)
    return frames


def recorded(directory: Path, policy: Policy, number: int, every_ns: int) -> list[Frame]:
    """Frames of a recorded episode; nothing says where its objects are.

    Raises EpisodeError when it cannot be read, ConfigError when its joints are not the policy's.
    """
    from imagewam_ros.data.frames import read_frames

    found = read_frames(directory)
    if found.provenance.joint_names != policy.contract.joint_names:
        raise ConfigError(f"{directory} has other joints than the checkpoint; name episodes of its own robot")
    frames, due_ns = [], int(found.stamps_ns[0])
    for row, stamp_ns in enumerate(found.stamps_ns):
        if stamp_ns >= due_ns:
            images = {name: images[row] for name, images in found.images.items()}
            seen = Observation(int(stamp_ns), images, found.positions[row], found.provenance.instruction)
            frames.append(Frame(number, int(stamp_ns - found.stamps_ns[0]), seen, {}))
            due_ns += every_ns
    return frames


def _frame(cell: Cell, policy: Policy, seed: int) -> Frame:
    cameras, mosaic = policy.contract.camera_names, policy.contract.mosaic
    images = {name: cell.render(name) for name in cameras}
    masks = {name: cell.segment(name) for name in cameras}
    objects: dict[str, Mask] = {}
    for body in next(iter(masks.values())):
        as_images = {name: np.repeat(np.uint8(255) * masks[name][body][..., None], 3, 2) for name in cameras}
        objects[body] = ((mosaic_pixels(as_images, mosaic)[0, 0] + 1) / 2).numpy()
    observation = Observation(cell.time_ns, images, cell.joint_state().position, cell.instruction)
    return Frame(seed, cell.time_ns, observation, objects)
