# SPDX-License-Identifier: Apache-2.0
"""Two UR5e with Robotiq 2F-85, of stand-ins for the vendors' descriptions, also with meshes as fine as theirs."""

import xml.etree.ElementTree as ET
from functools import cache
from pathlib import Path

import coal
import numpy as np
import pytest

from imagewam_ros.core.embodiment import Embodiment, load_embodiment
from imagewam_ros.core.schema import Floats
from imagewam_ros.kinematics.description import describe

STAND_INS = Path(__file__).parent.parent / "kinematics" / "stand_ins"
TRIANGLES = {
    "base_link": 420,
    "shoulder_link": 1400,
    "upper_arm_link": 1992,
    "forearm_link": 1064,
    "wrist_1_link": 1190,
    "wrist_2_link": 1350,
    "wrist_3_link": 142,
    "robotiq_85_base_link": 400,
    "inner_knuckle_link": 356,
    "knuckle_link": 86,
    "finger_link": 392,
    "finger_tip_link": 224,
}
"""Of the collision meshes of ur_description 2.4 and robotiq_description, by the end of the link's name."""

HOME = np.array([0.0, -1.57, 1.57, -1.57, -1.57, 0.0, 0.0] * 2)
"""Forearms level, grippers down and open: nothing is near."""


@cache
def fine_robot() -> Embodiment:
    """The robot's YAML."""
    return load_embodiment("ur5e")


@cache
def stand_in_urdf() -> str:
    """Its URDF: rods and boxes, joints as the vendors name and place them."""
    pytest.importorskip("ament_index_python", reason="xacro needs it to find packages")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AMENT_PREFIX_PATH", str(STAND_INS))
        return describe(fine_robot(), {"hardware": "mock"})


def finely_meshed(urdf: str, folder: Path) -> str:
    """The URDF with a round-edged mesh, written to `folder`, in place of every rod and box."""
    root = ET.fromstring(urdf)
    for link in root.findall("link"):
        for index, geometry in enumerate(link.findall("collision/geometry")):
            name = str(link.get("name"))
            longest = max((end for end in TRIANGLES if name.endswith(end)), key=len)
            path = folder / f"{name}_{index}.obj"
            _write(path, _rounded(_half_extents(geometry[0]), TRIANGLES[longest] // 2 + 2))
            geometry[:] = [ET.Element("mesh", {"filename": f"file://{path}"})]
    return ET.tostring(root, "unicode")


def _half_extents(shape: ET.Element) -> Floats:
    if shape.tag == "box":
        return np.array([float(size) for size in str(shape.get("size")).split()]) / 2
    radius = float(str(shape.get("radius")))
    return np.array([radius, radius, float(str(shape.get("length", 2 * radius))) / 2])


def _rounded(half_extents: Floats, count: int) -> Floats:
    """(count, 3) points, evenly around, on |x|^6 + |y|^6 + |z|^6 = 1 stretched to the extents."""
    height = 1 - 2 * (np.arange(count) + 0.5) / count
    turn = np.pi * (1 + np.sqrt(5)) * np.arange(count)
    around = np.sqrt(1 - height**2)
    points = np.stack([around * np.cos(turn), around * np.sin(turn), height], axis=1)
    return half_extents * points / (np.abs(points) ** 6).sum(axis=1, keepdims=True) ** (1 / 6)


def _write(path: Path, points: Floats) -> None:
    cloud = coal.BVHModelOBBRSS()
    cloud.beginModel(0, len(points))
    cloud.addVertices(points)
    cloud.endModel()
    cloud.buildConvexHull(True, "Qt")
    hull = cloud.convex
    lines = ["v {:.9f} {:.9f} {:.9f}".format(*point) for point in hull.points()]
    triangles = [hull.polygons(index) for index in range(hull.num_polygons)]
    lines += [f"f {t[0] + 1} {t[1] + 1} {t[2] + 1}" for t in triangles]
    path.write_text("\n".join(lines) + "\n")
