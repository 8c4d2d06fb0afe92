# SPDX-License-Identifier: Apache-2.0
"""Lift a 0.7 kg tray by its two handles and keep it level: one arm alone tilts it."""

import math

import numpy as np

from imagewam_ros.sim.gl import mujoco
from imagewam_ros.sim.plan import CLOSED_M, OPEN_M, Segment, Waypoint, half_turn
from imagewam_ros.sim.world import World

HANDLE_Y = 0.15
"""Distance of each handle from the tray's centre, m."""
REST_Z = 0.006
LIFT_M = 0.10
TILT_RAD = math.radians(6)
RED, GOLD = (0.72, 0.16, 0.15, 1), (0.93, 0.74, 0.16, 1)


class TrayLift:
    """The tray lies anywhere in reach of both arms, turned by up to half a radian."""

    instructions: tuple[str, ...] = ("lift the tray with both hands",)
    time_limit_s: float = 6.0

    def add_objects(self, spec: mujoco.MjSpec) -> None:
        """Add the tray: a plate with a rim and a handle at each end."""
        box = mujoco.mjtGeom.mjGEOM_BOX
        tray = spec.worldbody.add_body(name="tray", pos=[0.35, 0, 0.01])
        tray.add_freejoint(name="tray_free")
        friction = [1.0, 0.01, 0.001]
        tray.add_geom(name="tray_plate", type=box, size=[0.08, 0.15, 0.005], mass=0.6, rgba=RED, friction=friction)
        for x in (-0.077, 0.077):
            rim = {"size": [0.003, 0.142, 0.006], "pos": [x, 0, 0.011]}
            tray.add_geom(type=box, mass=0, contype=0, conaffinity=0, rgba=RED, **rim)
        for end, y in (("left", HANDLE_Y), ("right", -HANDLE_Y)):
            tray.add_geom(
                name=f"tray_handle_{end}", type=box, size=[0.03, 0.008, 0.03], pos=[0, y, 0.03], mass=0.05,
                condim=4, rgba=GOLD, friction=friction,
            )  # fmt: skip

    def place(self, world: World, rng: np.random.Generator) -> str:
        """Put the tray down: x .27 to .43 m, y within .10 m, heading within .5 rad."""
        x, y, yaw = rng.uniform((0.27, -0.10, -0.5), (0.43, 0.10, 0.5))
        world.place("tray", (x, y, REST_Z), yaw)
        return self.instructions[0]

    def achieved(self, world: World, instruction: str) -> bool:
        """Higher than 10 cm and tilted by less than 6 degrees."""
        return bool(world.position("tray")[2] > LIFT_M and world.tilt("tray") < TILT_RAD)

    def plan(self, world: World, instruction: str) -> tuple[Segment, ...]:
        """Hover over both handles, descend, close, lift together, hold."""
        yaw = half_turn(world.yaw("tray"))
        across = np.array([-math.sin(yaw), math.cos(yaw), 0.0]) * HANDLE_Y
        centre = world.position("tray") * (1, 1, 0)

        def at(duration_s: float, height: float, gripper: float) -> Segment:
            left, right = (Waypoint(centre + sign * across + (0, 0, height), yaw, gripper) for sign in (1, -1))
            return Segment(duration_s, left, right)

        return (
            at(1.10, 0.12, OPEN_M),
            at(0.55, 0.035, OPEN_M),
            at(0.40, 0.035, CLOSED_M),
            at(0.95, 0.17, CLOSED_M),
            at(0.60, 0.17, CLOSED_M),
        )
