# SPDX-License-Identifier: Apache-2.0
"""What a scripted expert is told to do: where each tool shall be, and when. No dynamics, no joints."""

import math
from dataclasses import dataclass

import numpy as np

from imagewam_ros.core.schema import Floats

OPEN_M, CLOSED_M = 0.04, 0.0


@dataclass(frozen=True)
class Waypoint:
    """One tool above the table pointing straight down: position (3,) m, heading rad, finger travel m.

    At heading 0 the fingers close along y and the wrist camera is on the robot's side.
    """

    position: Floats
    yaw: float
    gripper: float = OPEN_M

    def pose(self) -> Floats:
        """(4, 4) pose of the tool in the world."""
        pose = np.eye(4)
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        pose[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag([-1.0, 1.0, -1.0])
        pose[:3, 3] = self.position
        return pose


@dataclass(frozen=True)
class Segment:
    """Both tools go to their next waypoint in duration_s, starting and ending at rest; None stays where it is."""

    duration_s: float
    left: Waypoint | None
    right: Waypoint | None


def half_turn(angle: float) -> float:
    """Wrap an angle into [-pi/2, pi/2): a gripper turned by half a turn grasps the same."""
    return (angle + math.pi / 2) % math.pi - math.pi / 2
