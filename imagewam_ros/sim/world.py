# SPDX-License-Identifier: Apache-2.0
"""The physics state as tasks and experts see it: poses of bodies and who touches whom."""

import math

import numpy as np
from numpy.typing import ArrayLike

from imagewam_ros.core.schema import Floats
from imagewam_ros.sim.gl import mujoco


class World:
    """A compiled model with its data. Bodies are named; poses are in the world frame."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        self.model, self.data = model, data

    def position(self, body: str) -> Floats:
        """(3,) m."""
        return np.array(self.data.body(body).xpos)

    def rotation(self, body: str) -> Floats:
        """(3, 3), columns are the body's axes."""
        return np.array(self.data.body(body).xmat).reshape(3, 3)

    def yaw(self, body: str) -> float:
        """Heading of the body's x axis in rad."""
        rotation = self.rotation(body)
        return math.atan2(rotation[1, 0], rotation[0, 0])

    def tilt(self, body: str) -> float:
        """Angle in rad between the body's z axis and the vertical."""
        return math.acos(min(1.0, max(-1.0, self.rotation(body)[2, 2])))

    def place(self, body: str, position: ArrayLike, yaw: float) -> None:
        """Put a free body down at (3,) m with a heading in rad, at rest."""
        joint = self.data.joint(f"{body}_free")
        joint.qpos[:3] = position
        joint.qpos[3:] = (math.cos(yaw / 2), 0, 0, math.sin(yaw / 2))
        joint.qvel[:] = 0

    def refresh(self) -> None:
        """Bring poses and contacts up to date after bodies were placed."""
        mujoco.mj_forward(self.model, self.data)

    def touching(self, body: str) -> frozenset[str]:
        """Names of the bodies in contact with `body`; the table is "world"."""
        me = self.model.body(body).id
        others = set()
        for a, b in self.model.geom_bodyid[self.data.contact.geom]:
            if me in (a, b):
                others.add(self.model.body(b if a == me else a).name)
        return frozenset(others)
