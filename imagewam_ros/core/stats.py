# SPDX-License-Identifier: Apache-2.0
"""Statistics of a dataset and the affine normalisation that they define.

Source: the authors' normaliser: (x - offset) / divisor, output clamped to +-5, no clamp on the
way back.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.schema import Floats, frozen

MODES = ("zscore", "minmax", "quantile")
CLAMP = 5.0
ZSCORE_EPS = 1e-8
DEGENERATE_RANGE = 1e-4
"""A range narrower than this has no scale: the constant maps to 0 (Source: the authors)."""


@dataclass(frozen=True)
class Statistics:
    """Per-dimension statistics of one field, each (dims,)."""

    mean: Floats
    std: Floats
    minimum: Floats
    maximum: Floats
    q01: Floats
    q99: Floats

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            object.__setattr__(self, name, frozen(getattr(self, name), 1))

    @classmethod
    def of(cls, values: Floats) -> "Statistics":
        """Pooled statistics of (samples, dims)."""
        q01, q99 = np.quantile(values, (0.01, 0.99), axis=0)
        return cls(values.mean(0), values.std(0), values.min(0), values.max(0), q01, q99)

    def to_dict(self) -> dict[str, list[float]]:
        """Return plain lists for stats.json."""
        return {name: getattr(self, name).tolist() for name in self.__dataclass_fields__}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "statistics") -> "Statistics":
        """Read what `to_dict` wrote. Raises ConfigError naming what is missing."""
        missing = [name for name in cls.__dataclass_fields__ if name not in data]
        if missing:
            raise ConfigError(f"{where}: missing {', '.join(missing)}; write the statistics again")
        return cls(**{name: data[name] for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Normaliser:
    """x -> clamp((x - offset) / divisor) and back. offset and divisor are (dims,)."""

    offset: Floats
    divisor: Floats

    def __post_init__(self) -> None:
        object.__setattr__(self, "offset", frozen(self.offset, 1))
        object.__setattr__(self, "divisor", frozen(self.divisor, 1))

    def forward(self, values: Floats) -> Floats:
        """Normalise (..., dims)."""
        scaled: Floats = np.clip((values - self.offset) / self.divisor, -CLAMP, CLAMP)
        return scaled

    def inverse(self, values: Floats) -> Floats:
        """Bring (..., dims) back to rad and m."""
        return values * self.divisor + self.offset


def normaliser(mode: str, statistics: Statistics) -> Normaliser:
    """Return the normaliser of `mode`. Raises ConfigError for an unknown mode."""
    if mode == "zscore":
        return Normaliser(statistics.mean, statistics.std + ZSCORE_EPS)
    if mode == "minmax":
        return _range_normaliser(statistics.minimum, statistics.maximum)
    if mode == "quantile":
        return _range_normaliser(statistics.q01, statistics.q99)
    limits = constant_range(mode)
    if limits is None:
        raise ConfigError(f"normalisation must be one of {', '.join(MODES)}, found {mode!r} (a range is low/high)")
    return _range_normaliser(*(np.full_like(statistics.mean, limit) for limit in limits))


def constant_range(mode: str) -> tuple[float, float] | None:
    """Limits of a mode such as "-2.0/2.0", the same for every dimension; None for anything else."""
    low, _, high = mode.partition("/")
    try:
        limits = float(low), float(high)
    except ValueError:
        return None
    return limits if limits[0] < limits[1] else None


def _range_normaliser(low: Floats, high: Floats) -> Normaliser:
    """Map [low, high] to [-1, 1]; a constant dimension maps to 0 with scale 1."""
    degenerate = high - low < DEGENERATE_RANGE
    divisor = np.where(degenerate, 1.0, (high - low) / 2)
    return Normaliser(np.where(degenerate, low, (high + low) / 2), divisor)
