# SPDX-License-Identifier: Apache-2.0
"""How near the robot is to itself: distances between collision shapes of the URDF, by coal.

Checked are all pairs of links that the arms' joints can move against each other, except those that
one joint joins. Links of one gripper and what it is mounted on move together and are one body, however
its fingers stand. A mesh counts as its convex hull. The room around the robot is not in the URDF and not
checked.
"""

from itertools import combinations
from typing import NamedTuple

import numpy as np
import pinocchio as pin

from imagewam_ros.core.schema import Floats
from imagewam_ros.kinematics.chains import Chains

FIXED = 0
"""pinocchio's joint of everything that never moves."""

FLAT_M = 1e-6
"""A mesh thinner than this has no hull with a volume; qhull ends the process on it."""


class Nearest(NamedTuple):
    """The two links that are nearest to each other; distance_m is negative where they overlap."""

    distance_m: float
    first: str
    second: str


class Clearance:
    """Distances on one robot. Not safe to share between threads: the workspace is inside."""

    def __init__(self, urdf: str, chains: Chains, package_dirs: tuple[str, ...] = ()) -> None:
        self._chains, model = chains, chains.model
        self._shapes = pin.buildGeomFromUrdfString(
            model, urdf, pin.GeometryType.COLLISION, package_dirs=list(package_dirs)
        )
        shapes = list(self._shapes.geometryObjects)
        for shape in shapes:
            _make_convex(shape)
        self._arm_joints = {model.getJointId(j.name) for arm in chains.embodiment.arms for j in arm.joints}
        bodies = [self._body(shape.parentJoint) for shape in shapes]
        pairs = [(a, b) for a, b in combinations(range(len(shapes)), 2) if self._may_meet(bodies[a], bodies[b])]
        for pair in pairs:
            self._shapes.addCollisionPair(pin.CollisionPair(*pair))
        links = [model.frames[shape.parentFrame].name for shape in shapes]
        self.pairs = [(links[a], links[b]) for a, b in pairs]
        radii = [_radius_m(shape) for shape in shapes]
        self._first, self._second = np.array(pairs, dtype=np.intp).reshape(-1, 2).T
        self._reach_m = np.array([radii[a] + radii[b] for a, b in pairs])
        self._data, self._shape_data = model.createData(), self._shapes.createData()

    def nearest(self, positions: Floats) -> Nearest:
        """Return the nearest pair of links at (joints,) positions."""
        distances = self.distances(positions)
        index = int(distances.argmin())
        return Nearest(float(distances[index]), *self.pairs[index])

    def distances(self, positions: Floats, within_m: "Floats | float" = np.inf) -> Floats:
        """(pairs,) distances in m, in the order of `pairs`; infinite for pairs that are not nearer than `within_m`.

        Exact distances are asked only where spheres around two shapes come `within_m`, one number or (pairs,).
        """
        configuration = self._chains.configuration(positions)
        pin.updateGeometryPlacements(self._chains.model, self._data, self._shapes, self._shape_data, configuration)
        middles = np.array([placement.translation for placement in self._shape_data.oMg]).reshape(-1, 3)
        between = middles[self._first] - middles[self._second]
        gaps = np.sqrt(np.einsum("ij,ij->i", between, between)) - self._reach_m
        found = np.full(len(self.pairs), np.inf)
        for index in np.flatnonzero(gaps < within_m).tolist():
            found[index] = pin.computeDistance(self._shapes, self._shape_data, index).min_distance
        found[found >= within_m] = np.inf
        return found

    def _body(self, joint: int) -> int:
        """The arm's joint that carries `joint`, or FIXED: they move as one, whatever the grippers do."""
        while joint != FIXED and joint not in self._arm_joints:
            joint = self._chains.model.parents[joint]
        return joint

    def _may_meet(self, a: int, b: int) -> bool:
        return a != b and self._carrier(a) != b and self._carrier(b) != a

    def _carrier(self, body: int) -> int:
        return FIXED if body == FIXED else self._body(self._chains.model.parents[body])


def _make_convex(shape: "pin.GeometryObject") -> None:
    """Turn a mesh into its convex hull, placed by its middle. A flat mesh stays: it has no hull with a volume."""
    if not hasattr(shape.geometry, "buildConvexHull"):
        return
    points = np.array(shape.geometry.vertices())
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    thin = np.linalg.svd(points - middle, full_matrices=False)[2][-1]
    if np.ptp(points @ thin) < FLAT_M:
        return
    cloud = type(shape.geometry)()
    cloud.beginModel(0, len(points))
    cloud.addVertices(points - middle)
    cloud.endModel()
    cloud.buildConvexHull(True, "Qt")
    shape.geometry = cloud.convex
    shape.placement = shape.placement * pin.SE3(np.eye(3), middle)


def _radius_m(shape: "pin.GeometryObject") -> float:
    """Of the sphere around the shape's origin that encloses it."""
    if hasattr(shape.geometry, "points"):
        return float(np.linalg.norm(shape.geometry.points(), axis=1).max())
    shape.geometry.computeLocalAABB()
    return float(np.linalg.norm(shape.geometry.aabb_center) + shape.geometry.aabb_radius)
