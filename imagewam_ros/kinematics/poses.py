# SPDX-License-Identifier: Apache-2.0
"""Tool poses as a model writes them, to (4, 4) matrices and back. Formats: `core.spaces.PoseFormat`."""

import numpy as np
import pinocchio as pin

from imagewam_ros.core.errors import LimitViolation
from imagewam_ros.core.schema import Floats
from imagewam_ros.core.spaces import PoseFormat

SHORTEST = 1e-3
"""A quaternion shorter than this has no direction to be renormalised to."""

TURN = 2 * np.pi


def matrix(values: Floats, form: PoseFormat) -> Floats:
    """(4, 4) pose from position and rotation (numbers,); a quaternion of any length is renormalised.

    Raises LimitViolation for numbers that are no pose.
    """
    pose = np.eye(4)
    pose[:3, 3], rotation = values[:3], values[3:]
    if not np.isfinite(values).all():
        raise LimitViolation(f"pose {np.round(values, 4).tolist()} is not finite; check the weights and the images")
    if form.rotation == "rotvec":
        pose[:3, :3] = pin.exp3(np.asarray(rotation))
        return pose
    length = float(np.linalg.norm(rotation))
    if length < SHORTEST:
        raise LimitViolation(
            f"quaternion {np.round(rotation, 6).tolist()} has length {length:.1e}, expected 1; is the order of the "
            "action's numbers in the contract the checkpoint's?"
        )
    x, y, z, w = rotation / length if form.rotation == "xyzw" else np.roll(rotation, -1) / length
    pose[:3, :3] = pin.Quaternion(w, x, y, z).toRotationMatrix()
    return pose


def numbers(pose: Floats, form: PoseFormat, near: Floats | None = None) -> Floats:
    """Position and rotation (numbers,) of a (4, 4) pose, a unit quaternion with w >= 0 or a turn of at most pi.

    Each rotation has a second way to be written: q and -q, or a turn of 2 pi less the other way round. With
    `near` (numbers,) the one nearer to it is taken, because a model has seen one of them.
    """
    if form.rotation == "rotvec":
        rotation = np.asarray(pin.log3(pose[:3, :3]))
        angle = float(np.linalg.norm(rotation))
        other = rotation * (1 - TURN / angle) if angle > 0 else rotation
    else:
        x, y, z, w = pin.Quaternion(pose[:3, :3]).coeffs()
        rotation = np.array([x, y, z, w] if form.rotation == "xyzw" else [w, x, y, z]) * (1 if w >= 0 else -1)
        other = -rotation
    if near is not None and np.linalg.norm(other - near[3:]) < np.linalg.norm(rotation - near[3:]):
        rotation = other
    return np.concatenate([pose[:3, 3], rotation])


def stepped(pose: Floats, delta: Floats, form: PoseFormat) -> Floats:
    """(4, 4) pose one delta (6,) in -1..1 after `pose`; numbers beyond are cut, as the controller that was
    recorded did (Source: robosuite, operational space control).
    """
    step = np.clip(delta, -1.0, 1.0)
    result = matrix(np.concatenate([step[:3] * form.step_m, step[3:] * form.step_rad]), form)
    result[:3, :3] = result[:3, :3] @ pose[:3, :3]
    result[:3, 3] += pose[:3, 3]
    return result


def delta(before: Floats, after: Floats, form: PoseFormat) -> Floats:
    """(6,) delta from one (4, 4) pose to another, not cut."""
    turn = np.asarray(pin.log3(after[:3, :3] @ before[:3, :3].T))
    return np.concatenate([(after[:3, 3] - before[:3, 3]) / form.step_m, turn / form.step_rad])


def inverted(pose: Floats) -> Floats:
    """Inverse of a rigid (4, 4) pose."""
    result = np.eye(4)
    result[:3, :3] = pose[:3, :3].T
    result[:3, 3] = -pose[:3, :3].T @ pose[:3, 3]
    return result
