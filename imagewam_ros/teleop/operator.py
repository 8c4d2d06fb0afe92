# SPDX-License-Identifier: Apache-2.0
"""What every way of teleoperation gives: a chunk per step while engaged, a reason while not."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol

import numpy as np

from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.schema import ActionChunk, Floats, JointState, Source


class Clutch(Enum):
    """Whether the operator moves the robot."""

    RELEASED = "released"
    MATCHING = "matching"
    ENGAGED = "engaged"


class Step(NamedTuple):
    """Result of one step: the chunk to send, if any, the clutch, and why it is not engaged."""

    chunk: ActionChunk | None
    clutch: Clutch
    reason: str


class Operator(Protocol):
    """One operator with one kind of device. Time is an argument, in the clock of the joint states."""

    def arm(self) -> None:
        """Allow engaging. Nothing moves before the operator's device says so."""

    def release(self, reason: str) -> None:
        """Let go; only `arm` allows engaging again."""

    def step(self, now_ns: int, follower: JointState) -> Step:
        """Turn the device's present state into a chunk. Called once per chunk period."""

    def close(self) -> None:
        """Release the device."""


@dataclass(frozen=True)
class ChunkConfig:
    """Shape of the chunks: one is sent per period, each looks `rows` periods ahead.

    The look-ahead is what the arm goes on doing when the operator's process dies: the present
    velocity fading away with time constant fade_s.
    """

    rate_hz: float = 50.0
    rows: int = 6
    fade_s: float = 0.05

    def __post_init__(self) -> None:
        if not 10 <= self.rate_hz <= 200:
            raise ConfigError(f"rate_hz must be 10 to 200, found {self.rate_hz}")
        if self.rows < 2 or self.fade_s <= 0:
            raise ConfigError(f"rows must be at least 2 and fade_s positive, found {self.rows} and {self.fade_s}")

    @property
    def period_ns(self) -> int:
        """Time between rows and between chunks."""
        return round(1e9 / self.rate_hz)


class ChunkMaker:
    """Numbers chunks of one source and rolls the present motion out into rows."""

    def __init__(self, embodiment: Embodiment, config: ChunkConfig, source: Source) -> None:
        self._embodiment, self._config, self._source = embodiment, config, source
        self._sequence = 0

    @property
    def period_s(self) -> float:
        """Time between chunks."""
        return self._config.period_ns / 1e9

    def make(self, now_ns: int, position: Floats, velocity: Floats, sides: Sequence[str]) -> ActionChunk:
        """Return the chunk of `sides` for (joints,) position in rad and m now, and velocity per s, inside the bounds.

        Arms that the chunk does not name are left alone. Row i lies at
        position + velocity * fade * (1 - exp(-t / fade)), t = (i + 1) * period.
        """
        config, limits = self._config, self._embodiment.limits
        ahead_s = np.arange(1, config.rows + 1) * (config.period_ns / 1e9)
        travelled_s = config.fade_s * -np.expm1(-ahead_s / config.fade_s)
        rows = np.clip(position + travelled_s[:, None] * velocity, limits.lower, limits.upper)
        parts = [self._embodiment.arm_slice(arm.side) for arm in self._embodiment.arms if arm.side in sides]
        self._sequence += 1
        return ActionChunk(
            stamp_ns=now_ns,
            period_ns=config.period_ns,
            joint_names=tuple(name for part in parts for name in self._embodiment.joint_names[part]),
            positions=np.concatenate([rows[:, part] for part in parts], axis=1),
            first_row_offset_periods=1.0,
            sequence=self._sequence,
            source=self._source,
            ready_ns=now_ns,
        )
