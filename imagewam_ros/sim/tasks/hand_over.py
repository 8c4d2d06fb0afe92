# SPDX-License-Identifier: Apache-2.0
"""Pick up a bar with the right hand and give it to the left one, which alone holds it at the end."""

import math

import numpy as np

from imagewam_ros.sim.gl import mujoco
from imagewam_ros.sim.plan import CLOSED_M, OPEN_M, Segment, Waypoint, half_turn
from imagewam_ros.sim.world import World

HALF_SIZE = (0.022, 0.08, 0.016)
GRASP_Y = 0.05
"""Distance of each hand's grasp from the bar's centre along it, m."""
MEETING = (0.34, 0.0, 0.20)
"""Where the bar changes hands, lying along y."""
ACROSS = math.pi / 2
"""Heading at which the fingers close across a bar that lies along y."""
HELD_M = 0.08
GREEN = (0.16, 0.55, 0.30, 1)


class HandOver:
    """The bar lies on the right, out of the left arm's way, turned by up to 0.6 rad."""

    instructions: tuple[str, ...] = ("hand the bar from the right hand to the left hand",)
    time_limit_s: float = 9.0

    def add_objects(self, spec: mujoco.MjSpec) -> None:
        """Add the bar."""
        bar = spec.worldbody.add_body(name="bar", pos=[0.35, -0.2, 0.02])
        bar.add_freejoint(name="bar_free")
        bar.add_geom(
            name="bar", type=mujoco.mjtGeom.mjGEOM_BOX, size=HALF_SIZE, mass=0.12, condim=4, rgba=GREEN,
            friction=[1.0, 0.01, 0.001],
        )  # fmt: skip

    def place(self, world: World, rng: np.random.Generator) -> str:
        """Put the bar down: x .25 to .45 m, y -.38 to -.16 m, heading within .6 rad."""
        x, y, yaw = rng.uniform((0.25, -0.38, -0.6), (0.45, -0.16, 0.6))
        world.place("bar", (x, y, HALF_SIZE[2] + 0.001), yaw)
        return self.instructions[0]

    def achieved(self, world: World, instruction: str) -> bool:
        """In the air, and touched by nothing but the left hand."""
        touching = world.touching("bar")
        left_alone = bool(touching) and all(name.startswith("left_") for name in touching)
        return bool(left_alone and world.position("bar")[2] > HELD_M)

    def plan(self, world: World, instruction: str) -> tuple[Segment, ...]:
        """Fetch with the right hand, meet in the middle, close left, open right, part."""
        yaw = half_turn(world.yaw("bar"))
        end = world.position("bar") * (1, 1, 0) - GRASP_Y * np.array([-math.sin(yaw), math.cos(yaw), 0])
        meeting = np.array(MEETING)

        def right(position: tuple[float, ...], gripper: float, heading: float = ACROSS) -> Waypoint:
            return Waypoint(meeting + position, heading, gripper)

        def left(position: tuple[float, ...], gripper: float) -> Waypoint:
            return Waypoint(meeting + position, -ACROSS, gripper)

        def fetch(height: float, gripper: float) -> Waypoint:
            return Waypoint(np.add(end, (0, 0, height)), yaw + ACROSS, gripper)

        aside, give, take, over = (-0.02, 0.25, 0.02), (0, -GRASP_Y, 0), (0, GRASP_Y, 0), (0, GRASP_Y, 0.10)
        return (
            Segment(1.85, left(aside, OPEN_M), fetch(0.13, OPEN_M)),
            Segment(0.60, left(aside, OPEN_M), fetch(0.018, OPEN_M)),
            Segment(0.40, left(aside, OPEN_M), fetch(0.018, CLOSED_M)),
            Segment(0.80, left(aside, OPEN_M), fetch(0.20, CLOSED_M)),
            Segment(1.20, left(over, OPEN_M), right(give, CLOSED_M)),
            Segment(0.65, left(take, OPEN_M), right(give, CLOSED_M)),
            Segment(0.40, left(take, CLOSED_M), right(give, CLOSED_M)),
            Segment(0.40, left(take, CLOSED_M), right(give, OPEN_M)),
            Segment(0.60, left(take, CLOSED_M), right((0, -GRASP_Y, 0.10), OPEN_M)),
            Segment(0.80, left((0, 0.12, 0.02), CLOSED_M), right((0, -0.25, 0.10), OPEN_M)),
        )
