# SPDX-License-Identifier: Apache-2.0
"""The values that cross the rooms: observation, action chunk, joint state, command.

Units everywhere: rad for revolute and m for prismatic joints, int nanoseconds for time,
uint8 RGB [H, W, 3] for images. Arrays that a value holds are read-only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

CHUNK_SCHEMA = 1
"""Version of ActionChunk's fields; grows when a field is appended."""

Floats = NDArray[np.float64]
Image = NDArray[np.uint8]


class Source(IntEnum):
    """Who made a chunk. The order is the priority of two commanders at once, lowest first."""

    POLICY = 0
    REPLAY = 1
    TELEOP = 2
    TAKEOVER = 3


def frozen(values: ArrayLike, ndim: int | None = None) -> Floats:
    """Copy `values` into a read-only float64 array, of `ndim` dimensions when given."""
    array = np.array(values, dtype=np.float64)
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"expected {ndim} dimensions, found shape {array.shape}")
    array.flags.writeable = False
    return array


@dataclass(frozen=True)
class JointState:
    """Measured joints at one instant; position and velocity are (joints,), rad or m and per s."""

    stamp_ns: int
    joint_names: tuple[str, ...]
    position: Floats
    velocity: Floats

    def __post_init__(self) -> None:
        object.__setattr__(self, "position", frozen(self.position, 1))
        object.__setattr__(self, "velocity", frozen(self.velocity, 1))
        if not len(self.joint_names) == self.position.size == self.velocity.size:
            raise ValueError(
                f"{len(self.joint_names)} joint names, {self.position.size} positions, {self.velocity.size} velocities"
            )


@dataclass(frozen=True)
class Observation:
    """What the policy sees: one image per camera and the joints at the same instant.

    stamp_ns is the shutter of the paired images; ages_ns says per stream how much older than
    stamp_ns its sample was; positions follow the contract's joint order.
    """

    stamp_ns: int
    images: Mapping[str, Image]
    positions: Floats
    instruction: str
    instruction_id: int = 0
    ages_ns: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "positions", frozen(self.positions, 1))
        object.__setattr__(self, "images", MappingProxyType(dict(self.images)))
        object.__setattr__(self, "ages_ns", MappingProxyType(dict(self.ages_ns)))


@dataclass(frozen=True)
class ActionChunk:
    """Joint targets on a time grid that starts at an observation.

    Row i is due at stamp_ns + (first_row_offset_periods + i) * period_ns. positions is
    (rows, joints), rad or m, in the order of joint_names. committed_rows counts the leading
    rows copied from the running chunk; spread is (joints,), the standard deviation over noise
    samples, empty when one sample was drawn.
    """

    stamp_ns: int
    period_ns: int
    joint_names: tuple[str, ...]
    positions: Floats
    first_row_offset_periods: float = 1.0
    sequence: int = 0
    source: Source = Source.POLICY
    ready_ns: int = 0
    instruction_id: int = 0
    contract_hash: str = ""
    committed_rows: int = 0
    spread: Floats = field(default_factory=lambda: np.zeros(0))
    seed: int = 0
    denoise_steps: int = 0
    inference_s: float = 0.0
    schema: int = CHUNK_SCHEMA

    def __post_init__(self) -> None:
        object.__setattr__(self, "positions", frozen(self.positions, 2))
        object.__setattr__(self, "spread", frozen(self.spread, 1))

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.positions.shape[0])

    def due_ns(self, row: int) -> int:
        """Time at which `row` is due, in ns of the observation's clock."""
        return self.stamp_ns + round((self.first_row_offset_periods + row) * self.period_ns)


@dataclass(frozen=True)
class Command:
    """One sent sample: all (joints,) in the embodiment's order.

    tick counts control periods since activation; nominal_ns = start + tick * period_ns is the
    time the sample is meant for, whatever the moment it left the process.
    """

    tick: int
    nominal_ns: int
    period_ns: int
    joint_names: tuple[str, ...]
    position: Floats
    velocity: Floats
    acceleration: Floats

    def __post_init__(self) -> None:
        for name in ("position", "velocity", "acceleration"):
            object.__setattr__(self, name, frozen(getattr(self, name), 1))
