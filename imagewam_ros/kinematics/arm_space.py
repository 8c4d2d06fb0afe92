# SPDX-License-Identifier: Apache-2.0
"""Joints, gripper openings and tool poses of a model's vectors, to the robot's joints and back.

Poses become joints row by row, each solved from the row before (row 0 from the measured joints), so that a
chunk stays on one branch of the inverse kinematics. What cannot be reached is refused as a whole.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from imagewam_ros.core.contract import Contract
from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import ConfigError, LimitViolation
from imagewam_ros.core.schema import Floats
from imagewam_ros.core.spaces import Part, PoseFormat, names, sides
from imagewam_ros.kinematics.chains import TOLERANCE, Chains
from imagewam_ros.kinematics.poses import delta, inverted, matrix, numbers, stepped

PRECISE = 1e-8
"""Solved to this, m and rad; accepted up to `chains.TOLERANCE`, which near a singularity is all that comes."""

MAX_ROW_STEP_RAD = 0.5
"""A joint that goes farther from one row to the next has changed branch: that is no motion of the tool.
The step to row 0 from the measured joints counts too.
"""


class ArmSpace:
    """The space of a contract with parts, on one robot. Not safe to share between threads, as `chains` is not.

    commanded are the places of the joints that `targets` speaks of. Poses need `chains`. means (numbers,) of the
    training data's state and action decide between the two ways to write a rotation.
    """

    def __init__(
        self,
        contract: Contract,
        robot: Embodiment,
        chains: Chains | None = None,
        means: tuple[Floats | None, Floats | None] = (None, None),
    ) -> None:
        self._robot, self._kinematics = robot, chains
        self.joints = len(self._robot.joints)
        self._state, self._action = contract.state, contract.action
        self.commanded = np.concatenate(
            [np.arange(len(self._robot.joints))[self._robot.arm_slice(side)] for side in sides(contract.action)]
        )
        self._state_mean, self._action_mean = means
        for kind, parts, mean in zip(("state", "action"), (self._state, self._action), means, strict=True):
            _check_joints(kind, parts, self._robot)
            if mean is not None and mean.size != len(names(parts)):
                raise ConfigError(
                    f"the contract's {kind} has {len(names(parts))} numbers, its statistics {mean.size}; "
                    "both must come from the same checkpoint"
                )
        neutral = (self._robot.limits.lower + self._robot.limits.upper) / 2
        self._frames = {part: self._fixed(part, neutral) for part in (*self._state, *self._action) if part.pose}

    @property
    def _chains(self) -> Chains:
        assert self._kinematics is not None, "a contract of poses needs chains"
        return self._kinematics

    def state(self, positions: Floats) -> Floats:
        """See `core.spaces.Space`."""
        found = []
        for part, columns in _columns(self._state):
            near = None if self._state_mean is None else self._state_mean[columns]
            found.append(self._measured(part, positions, near))
        return np.concatenate(found)

    def targets(self, actions: Floats, positions: Floats) -> Floats:
        """See `core.spaces.Space`. Raises LimitViolation naming row and arm of a pose that cannot be reached."""
        result = np.tile(positions, (len(actions), 1))
        for part, columns in _columns(self._action):
            values, whole = actions[:, columns], self._robot.arm_slice(part.side)
            if part.pose is not None:
                result[:, whole.start : whole.stop - 1] = self._solved(part, part.pose, values, positions)
            elif part.gripper is not None:
                result[:, whole.stop - 1] = part.gripper.to_robot(values)
            else:
                result[:, whole.start : whole.stop - 1] = values
        return result[:, self.commanded]

    def actions(self, targets: Floats, positions: Floats) -> Floats:
        """See `core.spaces.Space`. A rotation is written as the training data does, then as the row before."""
        result = np.zeros((len(targets), len(names(self._action))))
        last = self._action_mean
        before = positions
        for row, target in enumerate(targets):
            now = np.array(positions)
            now[self.commanded] = target
            for part, columns in _columns(self._action):
                if part.pose is not None and part.pose.delta:
                    result[row, columns] = delta(self._pose(part, before), self._pose(part, now), part.pose)
                else:
                    near = None if last is None else last[columns]
                    result[row, columns] = self._measured(part, now, near)
            before, last = now, result[row]
        return result

    def _measured(self, part: Part, positions: Floats, near: Floats | None) -> Floats:
        """What a part says of the joints (joints,)."""
        whole = self._robot.arm_slice(part.side)
        if part.pose is not None:
            return numbers(self._pose(part, positions), part.pose, near)
        if part.gripper is not None:
            return part.gripper.to_model(positions[whole.stop - 1])
        return positions[whole.start : whole.stop - 1]

    def _pose(self, part: Part, positions: Floats) -> Floats:
        """(4, 4) pose of the part's tool in its frame."""
        base, tip = self._frames[part]
        return inverted(base) @ self._chains.forward(positions)[part.side] @ tip

    def _solved(self, part: Part, form: PoseFormat, values: Floats, positions: Floats) -> Floats:
        """(rows, arm joints) that bring the tool to the poses."""
        base, tip = self._frames[part]
        whole = self._robot.arm_slice(part.side)
        joints, pose, rows = np.array(positions), self._pose(part, positions), []
        for row, numbers_ in enumerate(values):
            pose = stepped(pose, numbers_, form) if form.delta else matrix(numbers_, form)
            found = self._chains.inverse(part.side, base @ pose @ inverted(tip), joints, PRECISE)
            if found.error > TOLERANCE:
                raise LimitViolation(self._unreachable(part, row, pose, found.error))
            jump = np.abs(found.positions - joints)[whole]
            if jump.max() > MAX_ROW_STEP_RAD:
                name = self._robot.joint_names[whole.start + int(jump.argmax())]
                raise LimitViolation(
                    f"row {row}: joint {name} would have to turn by {jump.max():.2f} rad within one row (limit "
                    f"{MAX_ROW_STEP_RAD}) to follow the {part.side} tool; the arm is near a singularity or a bound, "
                    "start from another posture"
                )
            joints = found.positions
            rows.append(joints[whole.start : whole.stop - 1])
        return np.array(rows)

    def _unreachable(self, part: Part, row: int, pose: Floats, error: float) -> str:
        assert part.pose is not None
        where = part.pose.frame or "the URDF's root"
        return (
            f"row {row}: the {part.side} tool cannot reach {np.round(pose[:3, 3], 3).tolist()} m in {where}; the "
            f"nearest posture is {error:.3g} m or rad off. Are the contract's frame, tool and rotation order those of "
            "the data, and does the scene stand where it stood in training?"
        )

    def _fixed(self, part: Part, neutral: Floats) -> tuple[Floats, Floats]:
        """Pose of the part's frame in the root, and of its tool in the arm's tool frame. Both must be rigid."""
        assert part.pose is not None
        moved = neutral + 0.01 * (self._robot.limits.upper - neutral)
        pairs = []
        for joints in (neutral, moved):
            hand = self._chains.forward(joints)[part.side]
            base = self._chains.pose(joints, part.pose.frame) if part.pose.frame else np.eye(4)
            tip = inverted(hand) @ self._chains.pose(joints, part.pose.tool) if part.pose.tool else np.eye(4)
            pairs.append((base, tip))
        (base, tip), again = pairs
        if not np.allclose(base, again[0], atol=1e-9):
            raise ConfigError(f"frame {part.pose.frame!r} moves with the joints; poses need a frame that stands still")
        if not np.allclose(tip, again[1], atol=1e-9):
            raise ConfigError(
                f"tool {part.pose.tool!r} does not move with the {part.side} tool; name a frame on its hand"
            )
        return base, tip


def _columns(parts: Sequence[Part]) -> Iterator[tuple[Part, slice]]:
    """Each part with its place in the vector."""
    start = 0
    for part in parts:
        yield part, slice(start, start + part.size)
        start += part.size


def _check_joints(kind: str, parts: Sequence[Part], robot: Embodiment) -> None:
    for part in parts:
        arm = next(arm for arm in robot.arms if arm.side == part.side)
        if part.joints and part.joints != len(arm.joints):
            raise ConfigError(
                f"{kind}: the contract's {part.side} arm has {part.joints} joints, that of robot {robot.name!r} "
                f"{len(arm.joints)}; choose the robot that the checkpoint was trained for"
            )
