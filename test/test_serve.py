# SPDX-License-Identifier: Apache-2.0
"""`imagewam serve`: what the command builds from a checkpoint and a robot, asked by our client."""

import argparse

import numpy as np
import pytest
import torch
from small_checkpoint import small_checkpoint
from small_spaces import left_arm_contract

from imagewam_ros import serve
from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.schema import Observation
from imagewam_ros.core.spaces import GripperScale, Part
from imagewam_ros.core.stats import Statistics
from imagewam_ros.policy import Policy
from imagewam_ros.remote.client import RemotePolicy, parse_address
from imagewam_ros.remote.layout import find_layout

ROBOT = load_embodiment("sim_cell")
LEFT = (Part("left", joints=6), Part("left", gripper=GripperScale((0.0,), (1.0,), 0.0, 0.04)))
READY = np.array([0.0, 0.05, 1.85, 0.0, 1.24, 0.0, 0.02] * 2)


def test_a_policy_of_one_arm_is_told_all_joints(tmp_path) -> None:
    torch.set_num_threads(1)
    left = ROBOT.arms[0].members
    contract = left_arm_contract(LEFT, LEFT)
    data = np.random.default_rng(0).normal(READY[:7], 0.01, size=(200, 7))
    statistics = {"state": Statistics.of(data), "action": Statistics.of(data)}
    checkpoint = small_checkpoint(tmp_path / "left", contract, statistics)
    images = {name: np.zeros((128, 128, 3), np.uint8) for name in ROBOT.camera_names}
    served = Policy.load(checkpoint, ROBOT)
    with serve.open_server(served, ROBOT, find_layout("aloha"), "127.0.0.1", 0) as server:
        policy = RemotePolicy(parse_address(server.address), contract.joint_names)
        chunk = policy.infer(Observation(0, images, READY, "lift the tray with both hands"))
        policy.close()
    assert policy.metadata["joint_names"] == [joint.name for joint in left]
    assert chunk.positions.shape == (contract.horizon, 7)


def test_devices_are_checked() -> None:
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    with pytest.raises(ConfigError, match="unknown device 'gpu'; use auto, cpu, cuda or cuda:N"):
        serve.run(parser.parse_args(["--device", "gpu"]))
