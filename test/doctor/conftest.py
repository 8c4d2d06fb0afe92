# SPDX-License-Identifier: Apache-2.0
"""A robot, a contract that fits it, and what a healthy cell sounds like."""

import dataclasses

import numpy as np
import pytest
from small_contract import small_contract

from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.stats import Statistics
from imagewam_ros.doctor_checks.contract import Promise
from imagewam_ros.doctor_checks.streams import Heard, Joints, Stream

SECOND = 1_000_000_000


@pytest.fixture(scope="session")
def robot():
    return load_embodiment("sim_cell")


@pytest.fixture
def contract(robot):
    return small_contract(robot)


@pytest.fixture
def promise(contract, robot):
    middle = (robot.limits.lower + robot.limits.upper) / 2
    spread = np.linspace(-0.3, 0.3, 50)[:, None] * (robot.limits.upper - robot.limits.lower)
    statistics = Statistics.of(middle + spread)
    return Promise(contract, {"state": statistics, "action": statistics})


@pytest.fixture
def swap_joints():
    """Swap two joints of the left arm, limits and all, as a hand-edited YAML does."""

    def swap(robot, one, other):
        left, right = robot.arms
        joints = list(left.joints)
        joints[one], joints[other] = joints[other], joints[one]
        return dataclasses.replace(robot, arms=(dataclasses.replace(left, joints=tuple(joints)), right))

    return swap


def stream(topic, rate_hz, age_ns=10_000_000, frame="", seconds=3):
    stamps = 100 * SECOND + (np.arange(seconds * rate_hz) * SECOND / rate_hz).astype(np.int64)
    return Stream(topic, stamps + age_ns, stamps, frame)


@pytest.fixture
def make_stream():
    return stream


@pytest.fixture
def healthy(robot):
    """Three seconds of a cell in which the left arm moves."""
    joints = stream("joint_states", 200)
    times = (joints.stamps_ns - joints.stamps_ns[0]) / SECOND
    positions = np.tile((robot.limits.lower + robot.limits.upper) / 2, (times.size, 1))
    positions[:, 0] += 0.2 * np.sin(times)
    cameras = {c.name: stream(c.topic, 20, frame=c.frame) for c in robot.cameras}
    noise = np.random.default_rng(0)
    images = {}
    for name, about in cameras.items():
        stamps = about.stamps_ns[::4]
        scene = noise.integers(40, 200, (32, 48, 3), dtype=np.uint8)
        shift = 3 if name == "left_wrist" else 0
        images[name] = (stamps, [np.roll(scene, i * shift, axis=1) for i in range(stamps.size)])
    return Heard(
        seconds=3,
        topics=tuple(camera.topic for camera in robot.cameras),
        cameras=cameras,
        images=images,
        joints=Joints(joints, robot.joint_names, positions),
        feedback={"arms": joints, "grippers": joints},
        commanders={"left_forward_position_controller/commands": ("executor",)},
    )
