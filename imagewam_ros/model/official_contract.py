# SPDX-License-Identifier: Apache-2.0
"""The contract of an official checkpoint, from what its files say and what the user adds."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from imagewam_ros.core.contract import Contract, Denoising, Mosaic
from imagewam_ros.core.embodiment import Embodiment, load_embodiment
from imagewam_ros.core.errors import CheckpointError, ConfigError
from imagewam_ros.core.spaces import Part, sides
from imagewam_ros.core.stats import Statistics
from imagewam_ros.model import layouts
from imagewam_ros.model.official_config import OfficialFacts
from imagewam_ros.model.official_vectors import Driving, kind_of, parts_for, plain_names

TEXT_LENGTH = 128
"""Tokens of a prompt in the released runs; longer ones are refused."""


@dataclass(frozen=True)
class ImportOptions:
    """What the checkpoint's own files leave open."""

    period_ns: int
    first_row_offset_periods: float
    layout: str | None = None
    robot: str | None = None
    driving: Driving = field(default_factory=Driving)
    encoders: Path | None = None
    embodiment: str | None = None
    normalisation: str | None = None
    horizon: int | None = None
    raw_action_dim: int | None = None
    lora_alpha: float | None = None


def check_sizes(numbers: Mapping[str, int], statistics: Mapping[str, Statistics], path: Path) -> None:
    """Raise CheckpointError unless the statistics have as many numbers as the weights."""
    for name, wanted in numbers.items():
        found = statistics[name].mean.size
        if found != wanted:
            raise CheckpointError(
                f"{path}: {name} has statistics of {found} numbers, the weights take {wanted}; are both of one run?"
            )


def contract_of(
    variant: str,
    numbers: Mapping[str, int],
    statistics: Mapping[str, Statistics],
    facts: OfficialFacts,
    options: ImportOptions,
    path: Path,
) -> Contract:
    """Return the contract of a checkpoint whose vectors have `numbers` of "state" and "action", padding left out.

    path names config.yaml in messages. Raises CheckpointError and ConfigError where something is still open.
    """
    kind = kind_of(facts, numbers["action"], numbers["state"], options.driving, path)
    robot = load_embodiment(options.robot) if options.robot else None
    layout = _layout(facts, options, path)
    state: tuple[Part, ...] = ()
    action: tuple[Part, ...] = ()
    if robot is None:
        joint_names, joint_units = plain_names(kind, numbers["action"])
    else:
        state, action = parts_for(kind, robot, numbers["action"], statistics, options.driving)
        driven = sides(action) or tuple(arm.side for arm in robot.arms)
        joints = [joint for arm in robot.arms if arm.side in driven for joint in arm.members]
        joint_names, joint_units = tuple(joint.name for joint in joints), tuple(joint.unit for joint in joints)
    assert facts.normalisation is not None and facts.horizon is not None
    return Contract(
        variant=variant,
        joint_names=joint_names,
        joint_units=joint_units,
        relative=(False,) * len(joint_names),
        mosaic=_mosaic(layout, robot, sides(action)),
        period_ns=options.period_ns,
        horizon=facts.horizon,
        first_row_offset_periods=options.first_row_offset_periods,
        text_length=facts.text_length or TEXT_LENGTH,
        normalisation=facts.normalisation,
        denoising=Denoising(time_grid="bfloat16"),
        state=state,
        action=action,
    )


def _layout(facts: OfficialFacts, options: ImportOptions, path: Path) -> str:
    """Name of the camera mosaic. Raises CheckpointError where option and configuration differ or neither says it."""
    layout = options.layout or facts.layout
    if layout is None:
        raise CheckpointError(f"{path} does not say how cameras are tiled; say --layout ({', '.join(layouts.LAYOUTS)})")
    size = layouts.LAYOUTS[layout][:2] if layout in layouts.LAYOUTS else None
    if size and facts.image_size and size != facts.image_size:
        found, wanted = ("x".join(map(str, pair)) for pair in (facts.image_size, size))
        raise CheckpointError(f"{path} trains on images of {found}, layout {layout} is {wanted}; choose another layout")
    return layout


def _mosaic(layout: str, robot: Embodiment | None, driven: tuple[str, ...]) -> Mosaic:
    """The layout with the robot's cameras in order; one arm has its own wrist camera, and the other's tile is black."""
    cameras = robot.camera_names if robot else ("head", "left_wrist", "right_wrist")
    places = len(layouts.LAYOUTS[layout][2]) if layout in layouts.LAYOUTS else len(cameras)
    if len(driven) != 1:
        return layouts.mosaic(layout, cameras[:places])
    wrist = [name for name in cameras if name.startswith(driven[0])]
    if len(wrist) != 1:
        raise ConfigError(
            f"{len(wrist)} cameras are named after the {driven[0]} arm, expected one: {', '.join(cameras)}"
        )
    whole = layouts.mosaic(layout, (cameras[0], wrist[0], "")[:places])
    return dataclasses.replace(whole, tiles=tuple(tile for tile in whole.tiles if tile.camera))
