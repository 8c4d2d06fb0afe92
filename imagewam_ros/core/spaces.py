# SPDX-License-Identifier: Apache-2.0
"""What the numbers of a policy's vectors mean: joints, gripper openings, tool poses, in the model's own conventions.

A contract without parts speaks of the robot's joints in rad and m, and `JointSpace` turns its numbers into
targets. Poses need the robot's kinematics: `kinematics/arm_space.py`. Source: docs/model.md, section 6.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from imagewam_ros.core.errors import ConfigError, unknown_name
from imagewam_ros.core.schema import Floats, frozen

ROTATIONS = {"xyzw": ("qx", "qy", "qz", "qw"), "wxyz": ("qw", "qx", "qy", "qz"), "rotvec": ("rx", "ry", "rz")}
"""Names of a rotation's numbers by format: quaternions in either order, or axis times angle in rad."""

SIDES = ("left", "right")


@dataclass(frozen=True)
class GripperScale:
    """The model's numbers for one gripper against the robot's.

    closed and opened are what the model says of a closed and of an open gripper, one value per number (a
    state may have one per finger); robot_closed and robot_opened are the same in the robot's unit: m, rad
    or per cent. Between them the mapping is linear. With a threshold the action has two states: open from
    that share of the opening on, closed below.
    """

    closed: tuple[float, ...]
    opened: tuple[float, ...]
    robot_closed: float
    robot_opened: float
    threshold: float | None = None

    def __post_init__(self) -> None:
        if len(self.closed) != len(self.opened) or not self.closed:
            raise ConfigError(f"gripper: closed has {len(self.closed)} numbers, opened {len(self.opened)}; give pairs")
        flat = [i for i, (a, b) in enumerate(zip(self.closed, self.opened, strict=True)) if a == b]
        if flat or self.robot_closed == self.robot_opened:
            where = f"number {flat[0]}" if flat else "the robot"
            raise ConfigError(f"gripper: closed and opened are the same for {where}; say what tells them apart")
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise ConfigError(f"gripper: threshold must lie between 0 closed and 1 open, found {self.threshold}")

    def to_robot(self, values: Floats) -> Floats:
        """Command (...,) in the robot's unit from the model's (..., numbers), never beyond closed and open."""
        closed, opened = np.array(self.closed), np.array(self.opened)
        share = np.clip(((values - closed) / (opened - closed)).mean(-1), 0.0, 1.0)
        if self.threshold is not None:
            share = np.where(share >= self.threshold, 1.0, 0.0)
        return np.asarray(self.robot_closed + share * (self.robot_opened - self.robot_closed))

    def to_model(self, position: Floats) -> Floats:
        """The model's (..., numbers) for positions (...,) in the robot's unit; a sensor may go a little beyond."""
        share = (np.asarray(position) - self.robot_closed) / (self.robot_opened - self.robot_closed)
        closed, opened = np.array(self.closed), np.array(self.opened)
        values: Floats = closed + share[..., None] * (opened - closed)
        return values


@dataclass(frozen=True)
class PoseFormat:
    """How a tool pose is written: position in m, then the rotation.

    rotation is a key of ROTATIONS. frame names the URDF frame that poses are given in and tool the one that
    they are of; empty means the URDF's root and the arm's tool frame. A delta is a step from the pose of the
    row before (the measured one for row 0) along the axes of `frame`, in -1..1 of step_m and step_rad.
    """

    rotation: str
    frame: str = ""
    tool: str = ""
    delta: bool = False
    step_m: float = 1.0
    step_rad: float = 1.0

    def __post_init__(self) -> None:
        if self.rotation not in ROTATIONS:
            raise ConfigError(unknown_name("rotation", self.rotation, ROTATIONS))
        if self.delta and self.rotation != "rotvec":
            raise ConfigError(f"a delta pose turns by a rotvec, found {self.rotation!r}; give rotation: rotvec")
        if not (self.step_m > 0 and self.step_rad > 0):
            raise ConfigError(f"step_m and step_rad must be positive, found {self.step_m} and {self.step_rad}")


@dataclass(frozen=True)
class Part:
    """Neighbouring numbers of a vector that speak of one arm: its joints, its tool's pose or its gripper."""

    side: str
    joints: int = 0
    pose: PoseFormat | None = None
    gripper: GripperScale | None = None

    def __post_init__(self) -> None:
        if self.side not in SIDES:
            raise ConfigError(unknown_name("side", self.side, SIDES))
        if (self.joints > 0) + (self.pose is not None) + (self.gripper is not None) != 1:
            raise ConfigError(f"a part of the {self.side} arm must be one of joints, pose and gripper")

    @property
    def size(self) -> int:
        """How many numbers."""
        return len(self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """One name per number, such as left_x, left_qw, left_joint_1, left_gripper; deltas begin with d."""
        if self.pose is not None:
            parts = ("x", "y", "z", *ROTATIONS[self.pose.rotation])
            return tuple(f"{self.side}_{'d' if self.pose.delta else ''}{part}" for part in parts)
        if self.gripper is not None:
            several = len(self.gripper.closed) > 1
            return tuple(
                f"{self.side}_gripper{f'_{i + 1}' if several else ''}" for i in range(len(self.gripper.closed))
            )
        return tuple(f"{self.side}_joint_{i + 1}" for i in range(self.joints))

    @property
    def units(self) -> tuple[str, ...]:
        """One unit per number; 1 where the model's own scale counts."""
        if self.gripper is not None or (self.pose is not None and self.pose.delta):
            return ("1",) * self.size
        if self.pose is not None:
            return ("m",) * 3 + (("rad",) * 3 if self.pose.rotation == "rotvec" else ("1",) * 4)
        return ("rad",) * self.joints


def names(parts: Sequence[Part]) -> tuple[str, ...]:
    """Names of all numbers of a vector."""
    return tuple(name for part in parts for name in part.names)


def units(parts: Sequence[Part]) -> tuple[str, ...]:
    """Units of all numbers of a vector."""
    return tuple(unit for part in parts for unit in part.units)


def sides(parts: Sequence[Part]) -> tuple[str, ...]:
    """Arms that a vector speaks of, left first."""
    return tuple(side for side in SIDES if any(part.side == side for part in parts))


def check_parts(state: Sequence[Part], action: Sequence[Part]) -> None:
    """Raise ConfigError unless the two vectors describe the same arms, each of them once."""
    if bool(state) != bool(action):
        raise ConfigError("state and action parts go together: give both or none")
    if sides(state) != sides(action):
        raise ConfigError(f"state speaks of {', '.join(sides(state))}, action of {', '.join(sides(action))}")
    for kind, parts in (("state", state), ("action", action)):
        given = [(part.side, part.gripper is not None) for part in parts]
        for side in sides(parts):
            if given.count((side, False)) != 1 or given.count((side, True)) > 1:
                raise ConfigError(
                    f"{kind}: the {side} arm needs its joints or its pose once, and its gripper at most once"
                )
    if any(part.pose is not None and part.pose.delta for part in state):
        raise ConfigError("a state is no delta; give the pose itself")


class Space(Protocol):
    """Between the robot's joints, rad and m in the embodiment's order, and the model's vectors in its own units.

    joints is how many are measured.
    """

    joints: int

    def state(self, positions: Floats) -> Floats:
        """State vector (numbers,) of measured (joints,)."""
        ...

    def targets(self, actions: Floats, positions: Floats) -> Floats:
        """Targets (rows, commanded joints) for actions (rows, numbers) that follow measured (joints,)."""
        ...

    def actions(self, targets: Floats, positions: Floats) -> Floats:
        """Undo `targets`."""
        ...


class JointSpace:
    """The vectors are the joints themselves; `relative` (joints,) marks targets that are differences from the
    measured positions.
    """

    def __init__(self, relative: Sequence[bool]) -> None:
        self.joints = len(relative)
        self._relative = frozen(np.array(relative, dtype=bool), 1)

    def state(self, positions: Floats) -> Floats:
        """See `Space`."""
        return positions

    def targets(self, actions: Floats, positions: Floats) -> Floats:
        """See `Space`."""
        return actions + self._relative * positions

    def actions(self, targets: Floats, positions: Floats) -> Floats:
        """See `Space`."""
        return targets - self._relative * positions
