# SPDX-License-Identifier: Apache-2.0
"""What is trained and how, by name. A preset is plain numbers; `train.py` may change a few of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from imagewam_ros.core.contract import PROMPT, Contract, Denoising, Mosaic, Tile
from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import ConfigError, unknown_name
from imagewam_ros.data.episode import Provenance
from imagewam_ros.model.factory import ModelSpec
from imagewam_ros.model.flux2 import Flux2Config
from imagewam_ros.model.text import TextSpec


@dataclass(frozen=True)
class AutoencoderConfig:
    """A small diffusers autoencoder and its training on crops of the mosaic.

    encoder and decoder are channels per level, outermost first; three halvings. kl weighs the
    divergence per latent channel, absolute the L1 part of the loss. vivid makes strongly coloured
    pixels count for more: small objects are few pixels, and their colour may decide what to do.
    """

    encoder: tuple[int, ...] = (8, 16, 32, 64)
    decoder: tuple[int, ...] = (8, 16, 32, 64)
    latent_channels: int = 8
    groups: int = 8
    steps: int = 2500
    batch: int = 8
    crop: int = 64
    learning_rate: float = 2e-3
    warmup: int = 50
    weight_decay: float = 1e-3
    kl: float = 1e-4
    absolute: float = 0.1
    vivid: float = 0.0


@dataclass(frozen=True)
class TrainConfig:
    """Joint image and action flow matching.

    draws is the number of (noise, time) pairs per prefix, targets the number of samples of a
    batch that also learn the image. prefix_at_zero modulates the prefix as at inference; False
    is the authors' way. mask_past_end leaves rows after a demonstration's end out of the loss;
    otherwise they say to stay. A batch is drawn from every `every`-th frame of a demonstration:
    neighbours differ little, and only what is used is encoded. Frames of its first EARLY are drawn
    `early` times as often as the others: there sight and words decide. Frames of the instructions `held_back` are
    drawn only from step hold_back_steps on: of two that share a scene, one is learned before the words must choose.
    average is the weight of the past in the mean of the weights.
    lora_rank above 0 trains adapters beside frozen weights. precision bfloat16 computes in it and
    keeps the weights in float32. recompute (gradient checkpointing) keeps only what enters each layer
    for the backward pass. A batch is cut into `accumulate` parts that go through the network one after another and
    whose gradients are summed: less memory, the same step.
    """

    steps: int = 3500
    batch: int = 32
    draws: int = 3
    targets: int = 8
    learning_rate: float = 2e-3
    floor: float = 0.03
    warmup: int = 200
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    average: float = 0.999
    proprio_noise: float = 0.03
    prefix_at_zero: bool = True
    mask_past_end: bool = False
    every: int = 1
    early: int = 1
    held_back: tuple[str, ...] = ()
    hold_back_steps: int = 0
    held_out: float = 0.05
    save_every: int = 200
    lora_rank: int = 0
    lora_alpha: float = 16.0
    precision: str = "float32"
    recompute: bool = False
    accumulate: int = 1

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or self.draws < 1 or not 0 <= self.targets <= self.batch:
            raise ConfigError("steps, batch and draws are positive, targets at most batch")
        if not self.prefix_at_zero and self.targets != self.batch:
            raise ConfigError("with prefix_at_zero false every sample needs a target: set targets to batch")
        if self.precision not in ("float32", "bfloat16") or self.lora_rank < 0:
            raise ConfigError(f"precision is float32 or bfloat16, found {self.precision!r}; lora_rank is not negative")
        if self.accumulate < 1:
            raise ConfigError(f"accumulate is at least 1, found {self.accumulate}")
        if not self.learning_rate >= 0:
            raise ConfigError(f"learning_rate is not negative, found {self.learning_rate}")
        if self.every < 1 or self.early < 1:
            raise ConfigError(f"every and early are at least 1, found {self.every} and {self.early}")
        if bool(self.held_back) != (self.hold_back_steps > 0):
            raise ConfigError(
                f"what is held back needs a number of steps, and steps something to hold back; found {self.held_back} "
                f"and {self.hold_back_steps}"
            )
        if not 0 <= self.held_out < 1 or not 0 <= self.average < 1:
            raise ConfigError("held_out and average are at least 0 and below 1")


@dataclass(frozen=True)
class Preset:
    """Everything about one kind of training run.

    tile is the side of a camera's square in the mosaic. A text encoder that was not trained on
    the authors' prompt needs none of its words: fewer tokens make every step cheaper. begin_with
    names a checkpoint of the same sizes whose autoencoder and network are the first weights, instead
    of random ones; words and statistics are learned anew, unlike with a base.
    """

    spec: ModelSpec
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    training: TrainConfig = field(default_factory=TrainConfig)
    tile: int = 64
    horizon: int = 16
    text_length: int = 64
    prompt: str = PROMPT
    denoising: Denoising = field(default_factory=Denoising)
    needs_base: bool = False
    begin_with: str = ""


TINY = Preset(
    spec=ModelSpec(
        "flux2",
        Flux2Config(
            hidden=128,
            heads=4,
            axes=(8, 8, 8, 8),
            double=2,
            single=3,
            mlp_ratio=3.0,
            channels=32,
            text_dim=64,
            action_dim=14,
            proprio_dim=14,
            action_hidden=96,
            action_mlp_ratio=4.0,
        ),
        TextSpec((1, 2)),
    ),
    prompt="{task}",
)

TINY_MULTITASK = replace(
    TINY,
    begin_with="tiny",
    autoencoder=replace(TINY.autoencoder, steps=700, learning_rate=1e-3, vivid=4.0),
    training=replace(TINY.training, steps=4500, batch=16, draws=4, targets=4, learning_rate=1.5e-3, every=4, early=4),
)
"""Several tasks at once, from the weights of the policy that knows one."""

AUTHORS = TrainConfig(
    steps=7000,
    batch=64,
    draws=1,
    targets=64,
    learning_rate=1e-4,
    floor=0.01,
    warmup=350,
    average=0.0,
    proprio_noise=0.0,
    prefix_at_zero=False,
    mask_past_end=True,
    save_every=500,
    precision="bfloat16",
    recompute=True,
)
"""The authors' configuration; the number of steps is what a user of a real robot reported as enough."""


def _adapters(rank: int) -> TrainConfig:
    return replace(AUTHORS, lora_rank=rank, lora_alpha=float(rank))


def _pretrained(training: TrainConfig) -> Preset:
    """Go on from a checkpoint, whatever its size: network, encoders and contract are the checkpoint's."""
    return replace(TINY, training=training, needs_base=True)


PRESETS: Mapping[str, Preset] = {
    "tiny": TINY,
    "tiny_multitask": TINY_MULTITASK,
    # What each needs of memory: docs/training.md.
    "flux2_4b": _pretrained(AUTHORS),
    "flux2_9b": _pretrained(AUTHORS),
    "flux2_4b_lora": _pretrained(_adapters(16)),
    "flux2_9b_lora": _pretrained(_adapters(32)),
    "omnigen2": _pretrained(AUTHORS),
    "omnigen2_lora": _pretrained(_adapters(16)),
    "ovis_u1": _pretrained(AUTHORS),
    "ovis_u1_lora": _pretrained(_adapters(16)),
}


def find_preset(name: str) -> Preset:
    """Return the preset called `name`. Raises ConfigError with the nearest match."""
    if name not in PRESETS:
        raise ConfigError(unknown_name("preset", name, PRESETS))
    return PRESETS[name]


def contract_of(preset: Preset, robot: Embodiment, about: Provenance) -> Contract:
    """Contract of a policy for `robot` learned from episodes like `about`: cameras side by side.

    Arms are relative to the measured joints, grippers absolute.
    """
    side = preset.tile
    tiles = tuple(Tile(name, 0, i * side, side, side) for i, name in enumerate(robot.camera_names))
    return Contract(
        variant=preset.spec.variant,
        joint_names=robot.joint_names,
        joint_units=tuple(joint.unit for joint in robot.joints),
        relative=tuple(not bool(gripper) for gripper in robot.gripper_mask),
        mosaic=Mosaic(side, side * len(tiles), tiles),
        period_ns=about.period_ns,
        horizon=preset.horizon,
        first_row_offset_periods=about.first_row_offset_periods,
        text_length=preset.text_length,
        prompt=preset.prompt,
        denoising=preset.denoising,
    )
