# SPDX-License-Identifier: Apache-2.0
"""Measured joints as the executor wants them: in the robot's order, and inside the bounds to begin from."""

import numpy as np

from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import EmbodimentMismatch, LimitViolation
from imagewam_ros.core.schema import Floats, JointState

ROUNDING = 1e-3
"""At activation an arm's joint may be outside its bounds by this, rad: the first command is on the bound."""

GRIPPER_SHARE = 0.02
"""The same of a gripper, as a share of its range: fingers close beyond what their drivers call closed."""


def in_order(joint_state: JointState, robot: Embodiment) -> Floats:
    """Positions (joints,) in the robot's order. Raises EmbodimentMismatch where a joint is missing."""
    if joint_state.joint_names == robot.joint_names:
        return joint_state.position
    index = {name: i for i, name in enumerate(joint_state.joint_names)}
    missing = [name for name in robot.joint_names if name not in index]
    if missing:
        raise EmbodimentMismatch(f"joint states lack {', '.join(missing)}; is every driver running?")
    return joint_state.position[[index[name] for name in robot.joint_names]]


def inside(position: Floats, robot: Embodiment) -> Floats:
    """`position` (joints,) put inside the bounds, to begin from. Raises LimitViolation where it is outside."""
    limits = robot.limits
    allowed = np.where(robot.gripper_mask, GRIPPER_SHARE * (limits.upper - limits.lower), ROUNDING)
    over = np.maximum(limits.lower - position, position - limits.upper) / allowed
    worst = int(over.argmax())
    if over[worst] <= 1 and np.isfinite(position).all():
        return np.clip(position, limits.lower, limits.upper)
    joint = robot.joints[worst]
    raise LimitViolation(
        f"joint {joint.name!r} is at {position[worst]:.4f}, outside {joint.lower} to {joint.upper}; "
        "move it inside its bounds before activation"
    )
