# SPDX-License-Identifier: Apache-2.0
"""How near the robot is to itself: distances between collision shapes of the URDF, by coal.

Checked are all pairs of links except those that a joint joins, the fingers of one hand, and what
never moves against each other. The room around the robot is not in the URDF and not checked.
"""

from itertools import combinations
from typing import NamedTuple

import numpy as np
import pinocchio as pin

from imagewam_ros.core.schema import Floats
from imagewam_ros.kinematics.chains import Chains

FIXED = 0
"""pinocchio's joint of everything that never moves."""


class Nearest(NamedTuple):
    """The two links that are nearest to each other; distance_m is negative where they overlap."""

    distance_m: float
    first: str
    second: str


class Clearance:
    """Distances on one robot. Not safe to share between threads: the workspace is inside."""

    def __init__(self, urdf: str, chains: Chains, package_dirs: tuple[str, ...] = ()) -> None:
        self._chains = chains
        model = chains.model
        self._shapes = pin.buildGeomFromUrdfString(
            model, urdf, pin.GeometryType.COLLISION, package_dirs=list(package_dirs)
        )
        links = [model.frames[shape.parentFrame].name for shape in self._shapes.geometryObjects]
        joints = [shape.parentJoint for shape in self._shapes.geometryObjects]
        self.pairs: list[tuple[str, str]] = []
        for a, b in combinations(range(self._shapes.ngeoms), 2):
            if self._may_meet(joints[a], joints[b]):
                self._shapes.addCollisionPair(pin.CollisionPair(a, b))
                self.pairs.append((links[a], links[b]))
        self._data, self._shape_data = model.createData(), self._shapes.createData()

    def nearest(self, positions: Floats) -> Nearest:
        """Return the nearest pair of links at (joints,) positions."""
        distances = self.distances(positions)
        index = int(distances.argmin())
        return Nearest(float(distances[index]), *self.pairs[index])

    def distances(self, positions: Floats) -> Floats:
        """(pairs,) distances in m, in the order of `pairs`."""
        configuration = self._chains.configuration(positions)
        pin.computeDistances(self._chains.model, self._data, self._shapes, self._shape_data, configuration)
        return np.array([result.min_distance for result in self._shape_data.distanceResults])

    def _may_meet(self, a: int, b: int) -> bool:
        parents = self._chains.model.parents
        siblings = parents[a] == parents[b] and parents[a] != FIXED
        return a != b and parents[a] != b and parents[b] != a and not siblings
