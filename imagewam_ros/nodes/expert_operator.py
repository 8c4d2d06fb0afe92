# SPDX-License-Identifier: Apache-2.0
"""The simulator's scripted expert as an operator of the graph: what a human would show, without one. No ROS in here.

It plans in a cell of its own, from the joints and objects that it is told of, once the arms rest.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import LimitViolation
from imagewam_ros.core.schema import ActionChunk, Floats, JointState, Source
from imagewam_ros.sim.cell import Cell
from imagewam_ros.sim.expert import HORIZON, PERIOD_NS, Expert
from imagewam_ros.teleop.operator import Clutch, Step

RESTING = 0.02
"""Joint speed in rad/s or m/s below which the expert begins."""
EVERY_NS = 2 * PERIOD_NS
"""Time between two chunks."""
LINGER_NS = 500_000_000
"""The expert holds this long after its plan."""


class ExpertOperator:
    """Implements `teleop.operator.Operator`. With source TAKEOVER it first opens the hands and rises."""

    def __init__(self, robot: Embodiment, source: Source) -> None:
        self._robot, self._source = robot, source
        self._cell: Cell | None = None
        self._instruction, self._objects = "", dict[str, Floats]()
        self._expert: Expert | None = None
        self._armed, self._reason = False, "not armed"
        self._began_ns = self._sent_ns = self._sequence = 0

    def see(self, task: str, instruction: str, objects: Mapping[str, Floats]) -> None:
        """Take note of the scene: poses (7,) by object, m and quaternion wxyz."""
        if self._cell is None or self._cell.task_name != task:
            self._cell = Cell(self._robot, task, randomise=False)
        self._instruction, self._objects = instruction, dict(objects)

    def arm(self) -> None:
        """Begin as soon as the arms rest."""
        self._armed, self._expert, self._reason = True, None, ""

    def release(self, reason: str) -> None:
        """Let go; only `arm` begins anew."""
        self._armed, self._expert, self._reason = False, None, reason

    def step(self, now_ns: int, follower: JointState) -> Step:
        """Return the next rows of the plan, which is made from where the follower rests."""
        if not self._armed:
            return Step(None, Clutch.RELEASED, self._reason)
        if self._cell is None:
            return Step(None, Clutch.MATCHING, "no scene has been seen; is the simulator running?")
        if self._expert is None:
            speed = float(np.abs(follower.velocity).max())
            if speed > RESTING:
                return Step(None, Clutch.MATCHING, f"the arms move at {speed:.2f} rad/s; waiting until they rest")
            try:
                self._expert = self._plan(self._cell, follower)
            except LimitViolation as error:
                self.release(str(error))
                return Step(None, Clutch.RELEASED, self._reason)
            self._began_ns, self._sent_ns = now_ns, now_ns - EVERY_NS
        if now_ns - self._began_ns > self._expert.curve.end_ns + LINGER_NS:
            self.release("done")
            return Step(None, Clutch.RELEASED, self._reason)
        if now_ns - self._sent_ns < EVERY_NS:
            return Step(None, Clutch.ENGAGED, "")
        self._sent_ns = now_ns
        return Step(self._chunk(self._expert, now_ns), Clutch.ENGAGED, "")

    def close(self) -> None:
        """Nothing is open: the cell never renders."""

    def _plan(self, cell: Cell, follower: JointState) -> Expert:
        cell.mirror(follower.position, self._objects, self._instruction)
        expert = Expert(cell)
        expert.start(free=self._source is Source.TAKEOVER)
        return expert

    def _chunk(self, expert: Expert, now_ns: int) -> ActionChunk:
        """Rows due one period apart from now on."""
        self._sequence += 1
        due_ns = now_ns - self._began_ns + PERIOD_NS * np.arange(1, HORIZON + 1)
        rows = np.stack([expert.curve.at(int(at)) for at in due_ns])
        limits = self._robot.limits
        chunk = ActionChunk(now_ns, PERIOD_NS, self._robot.joint_names, np.clip(rows, limits.lower, limits.upper))
        return replace(chunk, sequence=self._sequence, source=self._source, ready_ns=now_ns)
