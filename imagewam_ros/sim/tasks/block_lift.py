# SPDX-License-Identifier: Apache-2.0
"""Lift the block of the colour that the instruction names; the nearer arm does it, the other stays.

The scene is the same for both instructions, so no policy can do it without reading.
"""

import math

import numpy as np

from imagewam_ros.sim.gl import mujoco
from imagewam_ros.sim.plan import CLOSED_M, OPEN_M, Segment, Waypoint, half_turn
from imagewam_ros.sim.world import World

HALF_SIZE = 0.02
COLOURS = {"red": (0.78, 0.13, 0.13, 1), "blue": (0.13, 0.28, 0.75, 1)}
LIFT_M, LEFT_M = 0.10, 0.04
"""The named block must be above the one, the other block below the other."""


class BlockLift:
    """A red and a blue block, one on each side, which on which is random."""

    instructions: tuple[str, ...] = ("lift the red block", "lift the blue block")
    time_limit_s: float = 6.0

    def add_objects(self, spec: mujoco.MjSpec) -> None:
        """Add both blocks."""
        for (colour, rgba), y in zip(COLOURS.items(), (0.2, -0.2), strict=True):
            block = spec.worldbody.add_body(name=f"{colour}_block", pos=[0.35, y, 0.03])
            block.add_freejoint(name=f"{colour}_block_free")
            block.add_geom(
                name=f"{colour}_block", type=mujoco.mjtGeom.mjGEOM_BOX, size=[HALF_SIZE] * 3, mass=0.08, condim=4,
                rgba=rgba, friction=[1.0, 0.01, 0.001],
            )  # fmt: skip

    def place(self, world: World, rng: np.random.Generator) -> str:
        """Put a block on each side: x .27 to .42 m, .08 to .26 m off the middle, heading within .5 rad."""
        for colour, side in zip(rng.permutation(list(COLOURS)), (1, -1), strict=True):
            x, y, yaw = rng.uniform((0.27, 0.08, -0.5), (0.42, 0.26, 0.5))
            world.place(f"{colour}_block", (x, side * y, HALF_SIZE + 0.001), yaw)
        return str(rng.choice(self.instructions))

    def achieved(self, world: World, instruction: str) -> bool:
        """The named block is higher than 10 cm, the other still on the table."""
        heights = {colour: world.position(f"{colour}_block")[2] for colour in COLOURS}
        named = heights.pop(_colour(instruction))
        return bool(named > LIFT_M and max(heights.values()) < LEFT_M)

    def plan(self, world: World, instruction: str) -> tuple[Segment, ...]:
        """Hover, descend, close and lift with the arm on the block's side."""
        body = f"{_colour(instruction)}_block"
        position, yaw = world.position(body) * (1, 1, 0), half_turn(world.yaw(body))
        yaw = (yaw + math.pi / 4) % (math.pi / 2) - math.pi / 4  # a block looks the same every quarter turn

        def at(duration_s: float, height: float, gripper: float) -> Segment:
            tool = Waypoint(np.add(position, (0, 0, height)), yaw, gripper)
            return Segment(duration_s, tool, None) if position[1] > 0 else Segment(duration_s, None, tool)

        return (
            at(1.10, 0.12, OPEN_M),
            at(0.55, 0.022, OPEN_M),
            at(0.40, 0.022, CLOSED_M),
            at(0.95, 0.16, CLOSED_M),
            at(0.60, 0.16, CLOSED_M),
        )


def _colour(instruction: str) -> str:
    return next(colour for colour in COLOURS if colour in instruction)
