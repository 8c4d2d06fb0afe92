# SPDX-License-Identifier: Apache-2.0
"""The checkpoint's contract against the robot: names, order, units, cameras, rate, and its data's range."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from imagewam_ros.core.config import build
from imagewam_ros.core.contract import Contract
from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import CheckpointError
from imagewam_ros.core.spaces import names, sides
from imagewam_ros.core.stats import Statistics
from imagewam_ros.doctor_checks.finding import Finding, failed, passed, warned

FINE_TUNE = "choose the robot YAML that the checkpoint was trained for, or fine-tune on this robot"
DEGREES = 57.3
BEYOND = 0.05
"""Data may leave the bounds by this share of a joint's range, as grippers and backlash do."""


class Promise(NamedTuple):
    """What a checkpoint directory says without its weights."""

    contract: Contract
    statistics: Mapping[str, Statistics]


def read_promise(directory: Path) -> Promise:
    """Read config.json and stats.json, without torch. Raises CheckpointError and ConfigError."""
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf8"))
        if config.get("untrained"):
            raise CheckpointError(f"{directory} was never trained; load the checkpoint of a run that went on from it")
        stats = json.loads((directory / "stats.json").read_text(encoding="utf8"))
        contract = build(Contract, config["contract"], str(directory / "config.json"))
        return Promise(contract, {key: Statistics.from_dict(stats[key], key) for key in ("state", "action")})
    except (FileNotFoundError, json.JSONDecodeError, KeyError) as error:
        raise CheckpointError(f"{directory} is not a whole checkpoint ({error}); train or copy it again") from error


def check_contract(promise: Promise, robot: Embodiment) -> Iterator[Finding]:
    """Compare what the policy was trained on with what the robot has."""
    contract = promise.contract
    yield from _check_joints(contract, robot)
    yield from _check_cameras(contract, robot)
    if contract.action:
        said = f"state {', '.join(names(contract.state))}; action {', '.join(names(contract.action))}"
        yield passed("vectors", f"{said}; joints come by inverse kinematics and gripper scales")
    elif contract.joint_names == robot.joint_names:
        yield from _check_range(promise, robot)


def _check_joints(contract: Contract, robot: Embodiment) -> Iterator[Finding]:
    wanted, found = contract.joint_names, robot.joint_names
    if contract.action:
        arms = [robot.arm_slice(side) for side in sides(contract.action)]
        found = tuple(name for part in arms for name in robot.joint_names[part])
    if sorted(wanted) == sorted(found) and wanted != found:
        moved = ", ".join(f"[{i}] {a}, robot {b}" for i, (a, b) in enumerate(zip(wanted, found, strict=True)) if a != b)
        remedy = "put the YAML's joints into the contract's order"
        yield failed("joint order", f"same joints, another order: contract {moved}", remedy)
    elif wanted != found:
        extra, absent = sorted(set(found) - set(wanted)), sorted(set(wanted) - set(found))
        yield failed("joint names", f"contract lacks {extra or 'none'}, robot lacks {absent or 'none'}", FINE_TUNE)
    else:
        yield passed("joint order", f"{len(wanted)} joints in the contract's order")
    units = {joint.name: joint.unit for joint in robot.joints}
    pairs = zip(contract.joint_names, contract.joint_units, strict=True)
    wrong = [f"{name} in {unit}, robot {units[name]}" for name, unit in pairs if units.get(name, unit) != unit]
    if wrong:
        yield failed("units", f"contract has {'; '.join(wrong)}", FINE_TUNE)
    else:
        yield passed("units", "rad and m as in the contract")


def _check_cameras(contract: Contract, robot: Embodiment) -> Iterator[Finding]:
    wanted, found = set(contract.camera_names), set(robot.camera_names)
    if wanted - found or (wanted != found and not contract.action):
        extra, absent = ", ".join(sorted(found - wanted)) or "none", ", ".join(sorted(wanted - found)) or "none"
        yield failed("cameras", f"contract lacks {extra}, robot lacks {absent}", FINE_TUNE)
        return
    small, slow = [], []
    for tile in contract.mosaic.tiles:
        camera = robot.camera(tile.camera)
        if camera.height < tile.height or camera.width < tile.width:
            small.append(f"{camera.name} {camera.width}x{camera.height} for a tile of {tile.width}x{tile.height}")
        if camera.rate_hz * contract.period_ns < 0.99e9:
            slow.append(f"{camera.name} {camera.rate_hz:g} Hz")
    rate_hz = 1e9 / contract.period_ns
    if small:
        found_small = f"images are blown up: {'; '.join(small)}"
        yield warned("camera sizes", found_small, "choose a larger profile in the camera's driver")
    if slow:
        found_slow = f"slower than the contract's {rate_hz:g} Hz: {', '.join(slow)}"
        yield warned("camera rates", found_slow, "raise the cameras' rate")
    if not small and not slow:
        mosaic = f"mosaic {contract.mosaic.width}x{contract.mosaic.height}"
        yield passed("cameras", f"{', '.join(contract.camera_names)}; {mosaic}, {rate_hz:g} Hz")


def _check_range(promise: Promise, robot: Embodiment) -> Iterator[Finding]:
    limits, state = robot.limits, promise.statistics["state"]
    if state.q01.shape != limits.lower.shape:
        yield failed(
            "training data", f"statistics of {state.q01.size} joints, robot has {limits.lower.size}", FINE_TUNE
        )
        return
    spare = BEYOND * (limits.upper - limits.lower)
    outside = (state.q01 < limits.lower - spare) | (state.q99 > limits.upper + spare)
    if not outside.any():
        yield passed("training data", "the data's positions lie inside this robot's bounds")
        return
    joint = int(np.argmax(outside))
    far = np.max(np.abs([state.q01, state.q99]) / np.maximum(np.abs(limits.lower), np.abs(limits.upper)))
    hint = "; it looks like degrees" if far > DEGREES / 4 else ""
    yield failed(
        "training data",
        f"{robot.joint_names[joint]} was between {state.q01[joint]:.3f} and {state.q99[joint]:.3f}, this robot allows "
        f"{limits.lower[joint]:g} to {limits.upper[joint]:g} ({int(outside.sum())} joints outside){hint}",
        "check units, zero positions and limits of the robot that the data came from",
    )
