# SPDX-License-Identifier: Apache-2.0
"""Forward and inverse kinematics of both arms on one URDF. Poses are (4, 4) in the URDF's root frame.

Joint vectors are the embodiment's: left arm, left gripper, right arm, right gripper; rad and m.
"""

from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
import pinocchio as pin

from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import ConfigError, unknown_name
from imagewam_ros.core.schema import Floats

TOLERANCE = 1e-4
"""Solved when every component of the tool's error, m and rad, is below this."""
DAMPING = 1e-4
"""Damping far from the target; nearer it is the squared error, so that the last digits come quickly."""
MAX_STEP_RAD = 0.3
MAX_ITERATIONS = 40


class Solution(NamedTuple):
    """Inverse kinematics: (joints,) positions, the largest remaining error (m or rad), and whether it is small."""

    positions: Floats
    error: float
    converged: bool


class _Mimic(NamedTuple):
    """A joint that follows a commanded one: its place = multiplier * positions[leader] + offset."""

    name: str
    leader: int
    multiplier: float
    offset: float


class Chains:
    """Both arms of a robot. Not safe to share between threads: pinocchio's workspace is inside."""

    def __init__(self, urdf: str, embodiment: Embodiment) -> None:
        self.embodiment = embodiment
        self.model = pin.buildModelFromXML(urdf)
        self._data = self.model.createData()
        joints = [self._joint(name) for name in embodiment.joint_names]
        self._velocity_index = np.array([joint.idx_v for joint in joints])
        mimics = _mimics(urdf, self.model, embodiment.joint_names)
        self._leaders = np.array([mimic.leader for mimic in mimics], dtype=np.intp)
        self._multipliers, self._offsets = np.array([mimic[2:] for mimic in mimics]).reshape(-1, 2).T
        joints += [self._joint(mimic.name) for mimic in mimics]
        self._place = np.array([joint.idx_q for joint in joints])
        self._endless = np.array([joint.nq == 2 for joint in joints])
        self._sines = self._place[self._endless] + 1
        self._tools = {arm.side: self._frame(arm.tool_frame) for arm in embodiment.arms}
        whole = {arm.side: embodiment.arm_slice(arm.side) for arm in embodiment.arms}
        self._arms = {side: slice(part.start, part.stop - 1) for side, part in whole.items()}

    def configuration(self, positions: Floats) -> Floats:
        """Return pinocchio's configuration for (joints,) positions; joints that we do not command stay neutral.

        Joints that mimic follow. Where a joint turns without end, the configuration holds its cosine and sine.
        """
        positions = np.asarray(positions)
        values = np.concatenate([positions, self._multipliers * positions[self._leaders] + self._offsets])
        configuration: Floats = pin.neutral(self.model)
        configuration[self._place] = np.where(self._endless, np.cos(values), values)
        configuration[self._sines] = np.sin(values[self._endless])
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

    def inverse(self, side: str, target: Floats, positions: Floats, tolerance: float = TOLERANCE) -> Solution:
        """Move one arm from `positions` to the tool pose `target`; the nearest solution, inside the bounds.

        Damped least squares on the pose error, until each of its components is below `tolerance`. A joint at
        a bound that would go on is left out of the step. Returns where it ended when it does not converge.
        """
        arm = self._arms[side]
        lower, upper = self.embodiment.limits.lower[arm], self.embodiment.limits.upper[arm]
        solved = np.array(positions, dtype=np.float64)
        for _ in range(MAX_ITERATIONS):
            configuration = self.configuration(solved)
            jacobian = self._jacobian(side, configuration)
            error = self._pose_error(side, target)
            if np.abs(error).max() < tolerance:
                break
            step = _damped(jacobian, error)
            stuck = ((solved[arm] <= lower) & (step < 0)) | ((solved[arm] >= upper) & (step > 0))
            if stuck.any():
                step = _damped(jacobian * ~stuck, error)
            solved[arm] = np.clip(solved[arm] + np.clip(step, -MAX_STEP_RAD, MAX_STEP_RAD), lower, upper)
        pin.framesForwardKinematics(self.model, self._data, self.configuration(solved))
        remaining = float(np.abs(self._pose_error(side, target)).max())
        return Solution(solved, remaining, remaining < tolerance)

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
        return self.model.joints[self.model.getJointId(name)]

    def _frame(self, name: str) -> int:
        if not self.model.existFrame(name):
            raise ConfigError(unknown_name("frame", name, (frame.name for frame in self.model.frames)))
        return int(self.model.getFrameId(name))


def _damped(jacobian: Floats, error: Floats) -> Floats:
    """Step of damped least squares, (arm joints,)."""
    damping = min(DAMPING, float(error @ error))
    step: Floats = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + damping * np.eye(6), error)
    return step


def _mimics(urdf: str, model: pin.Model, commanded: tuple[str, ...]) -> list[_Mimic]:
    """Read what pinocchio leaves out: it takes mimicking joints for free ones.

    A joint may mimic one that itself mimics; what follows no commanded joint in the end rests at its offset.
    Raises ConfigError where a joint mimics one that the URDF lacks, or itself.
    """
    rules = {}
    for joint in ElementTree.fromstring(urdf).iter("joint"):
        mimic = joint.find("mimic")
        if mimic is not None and model.existJointName(joint.attrib["name"]):
            rule = mimic.attrib["joint"], float(mimic.get("multiplier", "1")), float(mimic.get("offset", "0"))
            rules[joint.attrib["name"]] = rule
    return [_resolved(name, rules, model, commanded) for name in rules]


def _resolved(
    name: str, rules: dict[str, tuple[str, float, float]], model: pin.Model, commanded: tuple[str, ...]
) -> _Mimic:
    leader, multiplier, offset = rules[name]
    seen = {name}
    while leader in rules and leader not in commanded:
        if leader in seen:
            raise ConfigError(f"URDF: joint {name!r} mimics itself by way of {leader!r}; let one of them lead")
        seen.add(leader)
        leader, factor, more = rules[leader]
        multiplier, offset = multiplier * factor, multiplier * more + offset
    if not model.existJointName(leader):
        raise ConfigError(f"URDF: joint {name!r} mimics an {unknown_name('joint', leader, model.names)}")
    if leader not in commanded:
        return _Mimic(name, 0, 0.0, offset)
    return _Mimic(name, commanded.index(leader), multiplier, offset)
