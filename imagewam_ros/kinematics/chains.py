# SPDX-License-Identifier: Apache-2.0
"""Forward and inverse kinematics of both arms on one URDF. Poses are (4, 4) in the URDF's root frame.

Joint vectors are the embodiment's: left arm, left gripper, right arm, right gripper; rad and m.
"""

from typing import NamedTuple

import numpy as np
import pinocchio as pin

from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import ConfigError, unknown_name
from imagewam_ros.core.schema import Floats

TOLERANCE = 1e-4
"""Solved when every component of the tool's error, m and rad, is below this."""
DAMPING = 1e-4
MAX_STEP_RAD = 0.3
MAX_ITERATIONS = 40


class Solution(NamedTuple):
    """Inverse kinematics: (joints,) positions, the largest remaining error (m or rad), and whether it is small."""

    positions: Floats
    error: float
    converged: bool


class Chains:
    """Both arms of a robot. Not safe to share between threads: pinocchio's workspace is inside."""

    def __init__(self, urdf: str, embodiment: Embodiment) -> None:
        self.embodiment = embodiment
        self.model = pin.buildModelFromXML(urdf, mimic=True)
        self._data = self.model.createData()
        self._position_index = np.array([self._joint(name).idx_q for name in embodiment.joint_names])
        self._velocity_index = np.array([self._joint(name).idx_v for name in embodiment.joint_names])
        self._tools = {arm.side: self._frame(arm.tool_frame) for arm in embodiment.arms}
        whole = {arm.side: embodiment.arm_slice(arm.side) for arm in embodiment.arms}
        self._arms = {side: slice(part.start, part.stop - 1) for side, part in whole.items()}

    def configuration(self, positions: Floats) -> Floats:
        """Return pinocchio's configuration for (joints,) positions; joints that we do not command stay neutral."""
        configuration: Floats = pin.neutral(self.model)
        configuration[self._position_index] = positions
        return configuration

    def forward(self, positions: Floats) -> dict[str, Floats]:
        """Return the pose of each arm's tool by side."""
        pin.framesForwardKinematics(self.model, self._data, self.configuration(positions))
        return {side: np.array(self._data.oMf[frame].homogeneous) for side, frame in self._tools.items()}

    def pose(self, positions: Floats, frame: str) -> Floats:
        """Return the pose of any frame of the URDF. Raises ConfigError with the nearest match."""
        index = self._frame(frame)
        pin.framesForwardKinematics(self.model, self._data, self.configuration(positions))
        return np.array(self._data.oMf[index].homogeneous)

    def jacobian(self, side: str, positions: Floats) -> Floats:
        """(6, arm joints): the tool's linear and angular velocity in the root frame's axes, per joint rate."""
        return self._jacobian(side, self.configuration(positions))

    def inverse(self, side: str, target: Floats, positions: Floats) -> Solution:
        """Move one arm from `positions` to the tool pose `target`; the nearest solution, inside the bounds.

        Damped least squares on the pose error; returns the best found when it does not converge.
        """
        arm = self._arms[side]
        lower, upper = self.embodiment.limits.lower[arm], self.embodiment.limits.upper[arm]
        solved = np.array(positions, dtype=np.float64)
        for _ in range(MAX_ITERATIONS):
            configuration = self.configuration(solved)
            jacobian = self._jacobian(side, configuration)
            error = self._pose_error(side, target)
            if np.abs(error).max() < TOLERANCE:
                break
            damped = jacobian @ jacobian.T + DAMPING * np.eye(6)
            step = jacobian.T @ np.linalg.solve(damped, error)
            solved[arm] = np.clip(solved[arm] + np.clip(step, -MAX_STEP_RAD, MAX_STEP_RAD), lower, upper)
        pin.framesForwardKinematics(self.model, self._data, self.configuration(solved))
        remaining = float(np.abs(self._pose_error(side, target)).max())
        return Solution(solved, remaining, remaining < TOLERANCE)

    def _jacobian(self, side: str, configuration: Floats) -> Floats:
        frame = self._tools[side]
        full = pin.computeFrameJacobian(
            self.model, self._data, configuration, frame, pin.ReferenceFrame.LOCAL_WORLD_ALIGNED
        )
        return np.array(full[:, self._velocity_index[self._arms[side]]])

    def _pose_error(self, side: str, target: Floats) -> Floats:
        """(6,) from the tool, whose placement is up to date, to the target: m and rad in root axes."""
        found = self._data.oMf[self._tools[side]]
        turn = pin.log3(target[:3, :3] @ found.rotation.T)
        return np.concatenate([target[:3, 3] - found.translation, turn])

    def _joint(self, name: str) -> "pin.JointModel":
        if not self.model.existJointName(name):
            raise ConfigError(
                f"URDF and robot {self.embodiment.name!r} differ: {unknown_name('joint', name, self.model.names)}"
            )
        joint = self.model.joints[self.model.getJointId(name)]
        if joint.nq != 1:
            raise ConfigError(f"joint {name!r} turns without end; give it limits in the URDF")
        return joint

    def _frame(self, name: str) -> int:
        if not self.model.existFrame(name):
            raise ConfigError(unknown_name("frame", name, (frame.name for frame in self.model.frames)))
        return int(self.model.getFrameId(name))
