# SPDX-License-Identifier: Apache-2.0
"""The whole way from episodes to a checkpoint with very small numbers: seconds on one thread."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.schema import Floats, JointState
from imagewam_ros.data.episode import FIRST_SEED, EpisodeWriter, Provenance
from imagewam_ros.model.factory import ModelSpec
from imagewam_ros.model.flux2 import Flux2Config
from imagewam_ros.model.text import TextSpec
from imagewam_ros.training.pixels import ReadConfig
from imagewam_ros.training.presets import AutoencoderConfig, Preset, TrainConfig

PERIOD_NS = 50_000_000
INSTRUCTION = "lift the tray with both hands"

ALONE = ReadConfig(workers=1)
"""Episodes are read in this process: each of others takes seconds of CPU to import torch."""

SMALL = Preset(
    spec=ModelSpec(
        "flux2",
        Flux2Config(
            hidden=32, heads=2, axes=(4, 4, 4, 4), double=1, single=2, channels=16, text_dim=16, action_hidden=24
        ),
        TextSpec((1,)),
    ),
    autoencoder=AutoencoderConfig(
        encoder=(4, 4, 8, 8), decoder=(4, 4, 8, 8), latent_channels=4, groups=2, steps=3, batch=2, crop=16, warmup=1
    ),
    training=TrainConfig(steps=6, batch=4, draws=2, targets=2, learning_rate=1e-2, warmup=1, save_every=3),
    tile=16,
    horizon=4,
)


def changed(**training: object) -> Preset:
    """SMALL with other numbers of its training."""
    return replace(SMALL, training=replace(SMALL.training, **training))  # type: ignore[arg-type]


def write_episodes(
    root: Path, count: int = 3, frames: int = 8, label: str = "success",
    begin: Floats | float = 0.0, reach: Floats | float = 0.5, **about: object,
) -> Path:  # fmt: skip
    """Episodes of the shipped robot, moving each joint by up to `reach`, whose images tell where the joints are."""
    robot = load_embodiment("sim_cell")
    for seed in range(count):
        known: dict[str, object] = {"period_ns": PERIOD_NS, "task": "tray_lift", "seed": FIRST_SEED + seed, **about}
        instruction = str(known.pop("instruction", INSTRUCTION))
        provenance = Provenance.of(robot, instruction, **known)  # type: ignore[arg-type]
        rng = np.random.default_rng(seed)
        path = begin + reach * rng.uniform(-1, 1, 14) * np.arange(frames + 1)[:, None] / frames
        with EpisodeWriter(root / f"episode_{seed}", provenance) as writer:
            for t in range(frames):
                for name in robot.camera_names:
                    shade = int(127 + 100 * path[t, 0])
                    writer.image(name, t * PERIOD_NS, np.full((32, 32, 3), shade, np.uint8))
                writer.joints(JointState(t * PERIOD_NS, robot.joint_names, path[t], np.zeros(14)))
                writer.action(t * PERIOD_NS, path[t + 1])
            writer.finish(label)
    return root
