# SPDX-License-Identifier: Apache-2.0
"""What the numbers of the released checkpoints' vectors mean, and how they drive a robot.

LIBERO: one arm, six steps of a tool pose and a gripper. RoboTwin: two arms of six joints and a gripper.
InternData-A1: per arm a tool pose with a quaternion and a gripper. Nothing is guessed: what the files leave
open is an option or a refusal. Source: docs/model.md, section 6.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from imagewam_ros.core.embodiment import Arm, Embodiment
from imagewam_ros.core.errors import CheckpointError, ConfigError
from imagewam_ros.core.spaces import GripperScale, Part, PoseFormat, names, units
from imagewam_ros.core.stats import Statistics
from imagewam_ros.model.official_config import OfficialFacts

STEP_M, STEP_RAD = 0.05, 0.5
"""What 1 stands for in LIBERO's actions (Source: robosuite, the defaults of its OSC_POSE controller)."""

LIBERO_DELTAS = (True,) * 6 + (False,)
LIBERO_FINGERS = ((0.0, 0.0), (0.04, -0.04))
"""Joints of the Panda's two fingers, closed and open (Source: robosuite, panda_gripper.xml)."""

LIBERO_GRIPPER = (0.0, 1.0)
"""LIBERO's action says 0 for a closed and 1 for an open gripper, and the evaluation takes the nearer one."""

PER_ARM = 8
"""Numbers of one arm in InternData: position, quaternion, gripper."""

SPARE = 0.05
"""Recorded grippers may leave the robot's bounds by this share of their range."""


@dataclass(frozen=True)
class Driving:
    """What only the user can say. gripper and robot_gripper are (closed, opened), the model's and the robot's."""

    arm: str | None = None
    rotation: str | None = None
    frame: str = ""
    tool: str = ""
    gripper: tuple[float, float] | None = None
    robot_gripper: tuple[float, float] | None = None
    step_m: float = STEP_M
    step_rad: float = STEP_RAD


def kind_of(facts: OfficialFacts, action: int, state: int, driving: Driving, path: Path) -> str:
    """Name the vectors: "libero", "poses" or "joints". Raises CheckpointError where it cannot be told.

    action and state are the numbers that remain without padding.
    """
    if facts.deltas is not None:
        if facts.deltas == LIBERO_DELTAS and (action, state) == (7, 8):
            return "libero"
        raise CheckpointError(
            f"{path} marks {sum(facts.deltas)} of {len(facts.deltas)} action numbers as steps from row to row "
            f"(delta_action_dim_mask), with {state} state numbers; this import knows LIBERO's 6 of 7 with 8 alone. "
            "Of other steps neither their unit nor what they start from is said"
        )
    if facts.arms is not None:
        return "poses"
    if action != state:
        raise CheckpointError(f"{path}: {action} action and {state} state numbers are none of the released vectors")
    if action == 2 * PER_ARM and facts.raw_action_dim == 16:
        if driving.rotation is None:
            raise CheckpointError(
                f"{path} does not say whether the 16 numbers are two tool poses or two arms of 7 joints; say it with "
                "--rotation xyzw or wxyz (as the data set writes quaternions) or --rotation none (joints)"
            )
        return "joints" if driving.rotation == "none" else "poses"
    if action % 2 or action < 4:
        raise CheckpointError(f"{path}: {action} numbers are not two arms with grippers; this import cannot name them")
    return "joints"


def plain_names(kind: str, numbers: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and units of an action's numbers without a robot; q0 to q3 is a quaternion of unknown order."""
    if kind == "libero":
        parts = _libero("left", Driving(), GripperScale(LIBERO_GRIPPER[:1], LIBERO_GRIPPER[1:], 0, 1))[1]
        return tuple(name.removeprefix("left_") for name in names(parts)), units(parts)
    sides = ("left", "right") if kind == "joints" or numbers == 2 * PER_ARM else ("left",)
    if kind == "poses":
        one: tuple[str, ...] = ("x", "y", "z", "q0", "q1", "q2", "q3", "gripper")
        unit: tuple[str, ...] = ("m",) * 3 + ("1",) * 5
    else:
        joints = numbers // 2 - 1
        one, unit = (*(f"joint_{i + 1}" for i in range(joints)), "gripper"), ("rad",) * joints + ("1",)
    return tuple(f"{side}_{part}" for side in sides for part in one), unit * len(sides)


def parts_for(
    kind: str, robot: Embodiment, numbers: int, statistics: Mapping[str, Statistics], driving: Driving
) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """State and action parts that drive `robot`; none where the numbers are its joints as they are.

    Raises ConfigError naming the option that is missing.
    """
    if kind == "libero":
        arm = _one_arm(robot, driving)
        return _libero(arm.side, driving, _scale(arm, driving, LIBERO_GRIPPER, threshold=0.5))
    if kind == "poses":
        if driving.rotation not in ("xyzw", "wxyz"):
            raise ConfigError(
                "the checkpoint does not say how its quaternions are written; look into the data set that it was "
                "trained on and say --rotation xyzw or wxyz"
            )
        arms = robot.arms if numbers == 2 * PER_ARM else (_one_arm(robot, driving),)
        form = PoseFormat(driving.rotation, driving.frame, driving.tool)
        parts: list[Part] = []
        for i, arm in enumerate(arms):
            if driving.gripper is None:
                grip = _unscaled(arm, statistics["action"], (i + 1) * PER_ARM - 1)
            else:
                grip = _scale(arm, driving, driving.gripper)
            parts += [Part(arm.side, pose=form), Part(arm.side, gripper=grip)]
        return tuple(parts), tuple(parts)
    if len(robot.joints) != numbers:
        raise ConfigError(f"the checkpoint has {numbers} action dims, robot {robot.name!r} {len(robot.joints)} joints")
    if driving.gripper is None:
        for arm in robot.arms:
            _unscaled(arm, statistics["action"], robot.joint_names.index(arm.gripper.name))
        return (), ()
    joints = tuple(
        part
        for arm in robot.arms
        for part in (Part(arm.side, len(arm.joints)), Part(arm.side, gripper=_scale(arm, driving, driving.gripper)))
    )
    return joints, joints


def _libero(side: str, driving: Driving, gripper: GripperScale) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    form = PoseFormat("rotvec", driving.frame, driving.tool)
    step = PoseFormat("rotvec", driving.frame, driving.tool, True, driving.step_m, driving.step_rad)
    fingers = GripperScale(*LIBERO_FINGERS, gripper.robot_closed, gripper.robot_opened)
    return (Part(side, pose=form), Part(side, gripper=fingers)), (Part(side, pose=step), Part(side, gripper=gripper))


def _one_arm(robot: Embodiment, driving: Driving) -> Arm:
    if driving.arm is None:
        raise ConfigError(
            f"the checkpoint drives one arm, robot {robot.name!r} has two; choose with --arm left or right"
        )
    return next(arm for arm in robot.arms if arm.side == driving.arm)


def _scale(arm: Arm, driving: Driving, model: tuple[float, float], threshold: float | None = None) -> GripperScale:
    """Scale between the model's closed and opened and the robot's. Raises ConfigError where the robot's is open."""
    closed, opened = driving.robot_gripper or (arm.gripper.closed, arm.gripper.opened)
    if driving.robot_gripper is None and arm.gripper.open is None and arm.gripper.unit != "m":
        raise ConfigError(
            f"gripper {arm.gripper.name!r} turns between {arm.gripper.lower:g} and {arm.gripper.upper:g} rad, and "
            "which of them is closed is not said; say open: upper or open: lower in the robot's YAML, or "
            "--robot-gripper CLOSED OPENED"
        )
    model = driving.gripper or model
    return GripperScale(model[:1], model[1:], closed, opened, threshold)


def _unscaled(arm: Arm, statistics: Statistics, column: int) -> GripperScale:
    """The robot's own numbers, where the data lies inside its bounds. Raises ConfigError where it does not."""
    low, high = float(statistics.minimum[column]), float(statistics.maximum[column])
    lower, upper, spare = arm.gripper.lower, arm.gripper.upper, SPARE * (arm.gripper.upper - arm.gripper.lower)
    if low < lower - spare or high > upper + spare:
        raise ConfigError(
            f"gripper {arm.gripper.name!r} was between {low:g} and {high:g} in the data and moves between {lower:g} "
            f"and {upper:g} {arm.gripper.unit} on the robot; say --gripper CLOSED OPENED, the data's numbers for both "
            "(RoboTwin: 0 1)"
        )
    return GripperScale((lower,), (upper,), lower, upper)
