# SPDX-License-Identifier: Apache-2.0
"""What a task is: objects, their random start, what counts as done, and how an expert does it."""

from typing import Protocol

import numpy as np

from imagewam_ros.sim.gl import mujoco
from imagewam_ros.sim.plan import Segment
from imagewam_ros.sim.world import World


class Task(Protocol):
    """One task. It keeps nothing between calls: the instruction says what this episode asks for."""

    instructions: tuple[str, ...]
    time_limit_s: float

    def add_objects(self, spec: mujoco.MjSpec) -> None:
        """Add the task's bodies to the scene; each is named B and has a free joint B_free."""
        ...

    def place(self, world: World, rng: np.random.Generator) -> str:
        """Put the objects at a random start and return the instruction of this episode."""
        ...

    def achieved(self, world: World, instruction: str) -> bool:
        """Whether the world now is as the instruction asks."""
        ...

    def plan(self, world: World, instruction: str) -> tuple[Segment, ...]:
        """What an expert who sees everything would do from the start on."""
        ...
