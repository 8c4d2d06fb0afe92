# SPDX-License-Identifier: Apache-2.0
"""What a hand-held device says at one instant, and the protocol of all of them."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from imagewam_ros.core.schema import Floats

LEFT, RIGHT = 0, 1


@dataclass(frozen=True)
class Jog:
    """Wishes in [-1, 1] for both arms: row 0 left, row 1 right; x forward, y left, z up (REP 103).

    enabled: the dead-man switch of each arm; False means rest, whatever the rest says.
    gripper: positive opens.
    """

    linear: Floats
    angular: Floats
    gripper: Floats
    enabled: NDArray[np.bool_]

    @classmethod
    def rest(cls) -> "Jog":
        """No wish at all, with arrays of its own."""
        return cls(np.zeros((2, 3)), np.zeros((2, 3)), np.zeros(2), np.zeros(2, dtype=np.bool_))


class JogDevice(Protocol):
    """One device in an operator's hands. A new device is one class and one line in `devices.py`."""

    def read(self, now_ns: int) -> Jog:
        """Return the wish of this instant without waiting. Raises DeviceError while the device is lost."""

    def close(self) -> None:
        """Release the device."""


class Stick(NamedTuple):
    """Shape of an axis: dead zone as a share of full deflection, then a mix of linear and cubic."""

    dead: float = 0.1
    cubic: float = 0.5

    def shaped(self, value: float) -> float:
        """Map [-1, 1] to [-1, 1], 0 inside the dead zone and without a step at its edge."""
        if abs(value) <= self.dead:
            return 0.0
        share = min((abs(value) - self.dead) / (1 - self.dead), 1.0)
        curved = self.cubic * share**3 + (1 - self.cubic) * share
        return float(np.copysign(curved, value))
