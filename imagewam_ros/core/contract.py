# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint promises about its inputs and outputs. Travels inside the checkpoint.

A robot may run a policy only when both name the same joints and cameras; the hash of the
contract is in every chunk, so a bag says which policy made it.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import ConfigError, EmbodimentMismatch
from imagewam_ros.core.spaces import Part, check_parts, sides
from imagewam_ros.core.stats import MODES, constant_range

PROMPT = "A video recorded from a robot's point of view executing the following instruction: {task}"
"""The prompt that released ImageWAM weights were trained with (Source: the authors' text cache)."""

TIME_GRIDS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Tile:
    """Where one camera lies in the mosaic, in pixels."""

    camera: str
    row: int
    column: int
    height: int
    width: int


@dataclass(frozen=True)
class Mosaic:
    """All cameras in one image of height x width pixels, both multiples of 16."""

    height: int
    width: int
    tiles: tuple[Tile, ...]

    def __post_init__(self) -> None:
        if self.height % 16 or self.width % 16:
            raise ConfigError(f"mosaic must be a multiple of 16 in both sizes, found {self.height}x{self.width}")
        for t in self.tiles:
            if t.row < 0 or t.column < 0 or t.row + t.height > self.height or t.column + t.width > self.width:
                raise ConfigError(f"tile of camera {t.camera!r} leaves the mosaic of {self.height}x{self.width}")


@dataclass(frozen=True)
class Denoising:
    """Euler steps, shift of the schedule, and the rounding of its times.

    Released weights were trained and run on times rounded to bfloat16; running them on exact
    times moves the actions, so the rounding is part of the model.
    """

    steps: int = 10
    shift: float = 5.0
    time_grid: str = "float32"

    def __post_init__(self) -> None:
        if self.steps < 1 or self.shift <= 0:
            raise ConfigError(f"denoising needs steps >= 1 and shift > 0, found {self.steps} and {self.shift}")
        if self.time_grid not in TIME_GRIDS:
            raise ConfigError(f"time_grid must be one of {', '.join(TIME_GRIDS)}, found {self.time_grid!r}")


@dataclass(frozen=True)
class Contract:
    """What goes in and what comes out of one policy.

    relative marks joints whose targets are predicted as differences from the measured
    position; the others are absolute. first_row_offset_periods is 1 where row 0 is the target
    one period after the observation, 0 where it is the command issued at it.
    statistics_hash ties the contract to the statistics file beside it. posterior_seed draws the image's
    latents from the autoencoder's posterior with that seed at every observation; None takes its mean.
    joint_names are what the chunks command. state and action say what the model's own vectors hold where
    they are not those joints: then joint_names are the joints of the arms that they speak of.
    """

    variant: str
    joint_names: tuple[str, ...]
    joint_units: tuple[str, ...]
    relative: tuple[bool, ...]
    mosaic: Mosaic
    period_ns: int
    horizon: int
    first_row_offset_periods: float
    text_length: int
    normalisation: str = "zscore"
    prompt: str = PROMPT
    denoising: Denoising = field(default_factory=Denoising)
    statistics_hash: str = ""
    posterior_seed: int | None = None
    state: tuple[Part, ...] = ()
    action: tuple[Part, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.joint_names) == len(self.joint_units) == len(self.relative):
            raise ConfigError("joint_names, joint_units and relative differ in length")
        if self.period_ns <= 0 or self.horizon < 1 or self.text_length < 1:
            raise ConfigError("period_ns, horizon and text_length must be positive")
        if "{task}" not in self.prompt:
            raise ConfigError(f"prompt must hold {{task}}, found {self.prompt!r}")
        if self.normalisation not in MODES and constant_range(self.normalisation) is None:
            raise ConfigError(
                f"normalisation must be one of {', '.join(MODES)}, found {self.normalisation!r} (a range is low/high)"
            )
        check_parts(self.state, self.action)
        if self.action and any(self.relative):
            raise ConfigError("relative joints and parts do not go together; a pose part may be a delta")

    @property
    def camera_names(self) -> tuple[str, ...]:
        """Cameras in the mosaic's order."""
        return tuple(tile.camera for tile in self.mosaic.tiles)

    @property
    def hash(self) -> str:
        """First 16 hex digits of the SHA-256 of the canonical JSON."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for config.json; `config.build(Contract, ...)` reads it back.

        Parts are left out where there are none, so that the hash of a contract of joints stays what it was.
        """
        data = dataclasses.asdict(self)
        return data if self.action else {key: data[key] for key in data if key not in ("state", "action")}

    def check(self, robot: Embodiment) -> None:
        """Raise EmbodimentMismatch, naming every line that differs, unless `robot` fits.

        A contract with parts may command one arm and look through some of the cameras.
        """
        joints, cameras = robot.joints, set(robot.camera_names)
        if self.action:
            joints = tuple(joint for arm in robot.arms if arm.side in sides(self.action) for joint in arm.members)
            cameras &= set(self.camera_names)
        found = {
            "joint_names": (self.joint_names, tuple(joint.name for joint in joints)),
            "joint_units": (self.joint_units, tuple(joint.unit for joint in joints)),
            "cameras": (tuple(sorted(self.camera_names)), tuple(sorted(cameras))),
        }
        lines = [_difference(key, mine, theirs) for key, (mine, theirs) in found.items() if mine != theirs]
        if lines:
            raise EmbodimentMismatch(
                f"checkpoint and robot {robot.name!r} differ: {'; '.join(lines)}. "
                "Choose the robot YAML that the checkpoint was trained for, or fine-tune on this robot"
            )


def _difference(key: str, mine: tuple[str, ...], theirs: tuple[str, ...]) -> str:
    if len(mine) != len(theirs):
        extra, absent = sorted(set(theirs) - set(mine)), sorted(set(mine) - set(theirs))
        return (
            f"{key}: checkpoint has {len(mine)}, robot {len(theirs)} (only robot: {extra}, only checkpoint: {absent})"
        )
    pairs = [f"[{i}] {a!r} against {b!r}" for i, (a, b) in enumerate(zip(mine, theirs, strict=True)) if a != b]
    return f"{key}: {', '.join(pairs)}"


def statistics_hash(statistics: Mapping[str, Any]) -> str:
    """First 16 hex digits of the SHA-256 of statistics as canonical JSON."""
    text = json.dumps(statistics, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
