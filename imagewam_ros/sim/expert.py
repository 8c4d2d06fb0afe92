# SPDX-License-Identifier: Apache-2.0
"""The scripted expert: sees the true state, plans once, and says the joint targets at 20 Hz.

It knows no dynamics: tools follow straight minimum-jerk paths between the task's waypoints, joints
follow by inverse kinematics, and a spline through the rows gives the samples in between.
"""

import math

import numpy as np
import pinocchio as pin

from imagewam_ros.core.errors import LimitViolation
from imagewam_ros.core.schema import ActionChunk, Floats
from imagewam_ros.kinematics.chains import Chains
from imagewam_ros.sim.cell import Cell
from imagewam_ros.sim.curve import Curve, minimum_jerk
from imagewam_ros.sim.plan import OPEN_M, Segment, Waypoint, half_turn

PERIOD_NS = 50_000_000
HORIZON = 16
STAY = Segment(2.0, None, None)
FREE_M, CEILING_M = 0.10, 0.20
REACH_TOLERANCE = 2e-3
"""A planned tool pose may be missed by this, m or rad, before the expert gives up."""


class Expert:
    """Plans for the cell's present task and state at start; the cell's clock says how far it is."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self._chains = Chains(cell.urdf, cell.embodiment)
        self._segments: tuple[Segment, ...] = ()
        self.curve = Curve(0, PERIOD_NS, cell.joint_state().position[None])

    def start(self, free: bool = False) -> None:
        """Plan from the present state; stay for an instruction that the task does not know.

        With `free` the hands open and rise first, from wherever somebody left them. Raises
        LimitViolation when a waypoint is out of reach.
        """
        state, task, instruction = self.cell.joint_state(), self.cell.task, self.cell.instruction
        self._segments = task.plan(self.cell.world, instruction) if instruction in task.instructions else (STAY,)
        if free:
            self._segments = (*self._freeing(state.position), *self._segments)
        self.curve = Curve(state.stamp_ns, PERIOD_NS, np.stack(self._rows(state.position)))

    @property
    def steps(self) -> int:
        """Number of 50 ms steps until the plan has been carried out."""
        return len(self.curve.rows) - 1

    def free_ns(self, side: str) -> int:
        """How long one hand stays open: time from the start until it first begins to close, or to the end."""
        seconds = 0.0
        for segment in self._segments:
            goal: Waypoint | None = getattr(segment, side)
            if goal is not None and goal.gripper < OPEN_M:
                break
            seconds += segment.duration_s
        return round(seconds * 1e9)

    def act(self) -> Floats:
        """Return the joint targets (joints,) one period from now."""
        return self.curve.at(self.cell.time_ns + PERIOD_NS)

    def chunk(self, rows: int = HORIZON) -> ActionChunk:
        """Return the next rows as a chunk stamped now; row i is due (1 + i) periods later."""
        now = self.cell.time_ns
        positions = np.stack([self.curve.at(now + (1 + i) * PERIOD_NS) for i in range(rows)])
        return ActionChunk(now, PERIOD_NS, self.cell.embodiment.joint_names, positions, ready_ns=now)

    def _freeing(self, positions: Floats) -> tuple[Segment, Segment]:
        """Open where the hands are, then rise by FREE_M, no higher than CEILING_M."""
        here, above = {}, {}
        for side, pose in self._chains.forward(positions).items():
            yaw = half_turn(math.atan2(-pose[0, 1], pose[1, 1]))
            here[side] = Waypoint(pose[:3, 3], yaw, OPEN_M)
            height = max(pose[2, 3], min(pose[2, 3] + FREE_M, CEILING_M))
            above[side] = Waypoint(np.array([*pose[:2, 3], height]), yaw, OPEN_M)
        return Segment(0.5, here["left"], here["right"]), Segment(0.7, above["left"], above["right"])

    def _rows(self, positions: Floats) -> list[Floats]:
        """(joints,) at each period from the start on, by warm-started inverse kinematics."""
        grippers = dict(zip(("left", "right"), np.flatnonzero(self.cell.embodiment.gripper_mask), strict=True))
        poses = self._chains.forward(positions)
        rows = [np.array(positions)]
        for segment in self._segments:
            goals = {side: goal for side in grippers if (goal := getattr(segment, side)) is not None}
            begin = rows[-1]
            count = round(segment.duration_s * 1e9 / PERIOD_NS)
            for fraction in minimum_jerk(np.arange(1, count + 1) / count):
                row = np.array(rows[-1])
                for side, goal in goals.items():
                    row = self._reach(side, _between(poses[side], goal.pose(), fraction), row)
                    finger = grippers[side]
                    row[finger] = begin[finger] + fraction * (goal.gripper - begin[finger])
                rows.append(row)
            poses.update({side: goal.pose() for side, goal in goals.items()})
        return rows

    def _reach(self, side: str, pose: Floats, positions: Floats) -> Floats:
        solution = self._chains.inverse(side, pose, positions)
        if solution.error > REACH_TOLERANCE:
            raise LimitViolation(
                f"the {side} tool cannot reach {np.round(pose[:3, 3], 3).tolist()} m (off by {solution.error:.3f}); "
                "bring the task's waypoint closer"
            )
        return solution.positions


def _between(start: Floats, goal: Floats, fraction: float) -> Floats:
    """Pose on the straight line from start to goal, turning about one axis."""
    pose = np.eye(4)
    pose[:3, :3] = start[:3, :3] @ pin.exp3(fraction * pin.log3(start[:3, :3].T @ goal[:3, :3]))
    pose[:3, 3] = start[:3, 3] + fraction * (goal[:3, 3] - start[:3, 3])
    return pose
