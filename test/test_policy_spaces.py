# SPDX-License-Identifier: Apache-2.0
"""A checkpoint whose vectors are tool poses drives joints, from the observation to the chunk."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_checkpoint import small_checkpoint
from small_spaces import CHAINS, LIBERO_ACTION, READY, ROBOT, bimanual_checkpoint, one_arm_checkpoint, tools

from imagewam_ros.core.errors import ConfigError, EmbodimentMismatch, LimitViolation, StaleObservation
from imagewam_ros.core.schema import Observation
from imagewam_ros.core.spaces import PoseFormat, names
from imagewam_ros.core.stats import normaliser
from imagewam_ros.kinematics.poses import matrix, numbers, stepped
from imagewam_ros.model.checkpoint import load_checkpoint
from imagewam_ros.model.flow import action_noise
from imagewam_ros.model.preprocess import mosaic_pixels
from imagewam_ros.model.sampler import SamplerConfig
from imagewam_ros.nodes.inference import warm_up
from imagewam_ros.policy import Policy


@pytest.fixture(scope="module")
def bimanual(tmp_path_factory):
    torch.set_num_threads(1)
    return bimanual_checkpoint(tmp_path_factory.mktemp("bimanual") / "small")


@pytest.fixture(scope="module")
def one_arm(tmp_path_factory):
    return one_arm_checkpoint(tmp_path_factory.mktemp("one_arm") / "small")


@pytest.fixture
def observation():
    rng = np.random.default_rng(0)
    images = {c.name: rng.integers(0, 256, (c.height, c.width, 3), dtype=np.uint8) for c in ROBOT.cameras}
    return Observation(123_000_000, images, READY + 0.01 * rng.normal(size=14), "lift the tray")


def raw_actions(directory, observation, state, seed):
    """What the network says of a state vector, in the model's own units, written out by hand."""
    checkpoint = load_checkpoint(directory)
    model, contract, statistics = checkpoint.model, checkpoint.contract, checkpoint.statistics
    proprio = normaliser(contract.normalisation, statistics["state"]).forward(state)
    with torch.inference_mode():
        pixels = mosaic_pixels(observation.images, contract.mosaic)
        instruction = model.encode_instruction(observation.instruction)
        cache = model.prefill(pixels, torch.tensor(proprio, dtype=torch.float32)[None], instruction)
        actions = action_noise(seed, contract.horizon, statistics["action"].mean.size)
        plan = model.plan(contract.denoising)
        for timestep, delta in zip(plan.timesteps, plan.deltas, strict=True):
            actions = actions + model.velocity(actions, timestep[None], cache) * delta
    return normaliser(contract.normalisation, statistics["action"]).inverse(actions[0].double().numpy())


def test_both_tools_go_where_the_network_says(bimanual, observation):
    chunk = Policy.load(bimanual, ROBOT).infer(observation, seed=3)
    assert chunk.joint_names == ROBOT.joint_names and chunk.positions.shape == (16, 14)
    poses, state = CHAINS.forward(observation.positions), []
    for side, gripper in (("left", 6), ("right", 13)):
        pose = numbers(poses[side], PoseFormat("wxyz"))
        state += [*pose[:3], *-pose[3:], observation.positions[gripper] / 0.02 - 1]
    wanted = raw_actions(bimanual, observation, np.array(state), seed=3)
    for row, said in zip(chunk.positions, wanted, strict=True):
        reached = CHAINS.forward(row)
        assert np.allclose(reached["left"], matrix(said[:7], PoseFormat("wxyz")), atol=1e-5)
        assert np.allclose(reached["right"], matrix(said[8:15], PoseFormat("wxyz")), atol=1e-5)
        assert np.allclose(row[[6, 13]], 0.02 + 0.02 * np.clip(said[[7, 15]], -1, 1), atol=1e-6)
    assert np.abs(np.diff(chunk.positions[:, ~ROBOT.gripper_mask], axis=0)).max() < 0.2


def test_one_arm_follows_deltas_and_the_other_is_not_named(one_arm, observation):
    policy = Policy.load(one_arm, ROBOT)
    assert names(policy.contract.action)[:1] == ("left_dx",)
    chunk = policy.infer(observation, seed=1)
    assert chunk.joint_names == ROBOT.joint_names[:7] and chunk.positions.shape == (16, 7)
    before = CHAINS.forward(observation.positions)["left"]
    opening = observation.positions[6]
    state = np.array([*numbers(before, PoseFormat("rotvec")), opening, -opening])
    wanted = raw_actions(one_arm, observation, state, seed=1)
    for row, said in zip(chunk.positions, wanted, strict=True):
        before = stepped(before, said[:6], LIBERO_ACTION[0].pose)
        reached = CHAINS.forward(np.concatenate([row, observation.positions[7:]]))["left"]
        assert np.allclose(reached, before, atol=1e-4)
        assert row[6] == (0.04 if said[6] >= 0.5 else 0.0)


def test_committed_rows_keep_the_running_chunk(bimanual, observation):
    """Rows that the arms follow already go through the model's own vectors and come back the same."""
    policy = Policy.load(bimanual, ROBOT, sampling=SamplerConfig(chunking="frozen"))
    period_ns = policy.contract.period_ns
    running = policy.infer(observation, seed=1)
    later = replace(observation, stamp_ns=observation.stamp_ns + 4 * period_ns, positions=running.positions[3])
    chunk = policy.infer(later, seed=2, running=running, delay_ns=round(3.2 * period_ns))
    assert chunk.committed_rows == 3
    assert np.allclose(chunk.positions[:3], running.positions[4:7], atol=1e-4)


def test_several_draws_spread_in_joints(bimanual, observation):
    chunk = Policy.load(bimanual, ROBOT, sampling=SamplerConfig(samples=3)).infer(observation, seed=1)
    assert chunk.positions.shape == (16, 14) and chunk.spread.shape == (14,) and (chunk.spread > 0).any()


def test_a_pose_out_of_reach_stops_the_inference(bimanual, observation, tmp_path):
    contract = load_checkpoint(bimanual).contract
    far = tools(0.002)
    moved = replace(far, mean=far.mean + (np.arange(16) == 0) * 5.0)
    directory = small_checkpoint(tmp_path / "far", contract, {"state": tools(0.05), "action": moved})
    policy = Policy.load(directory, ROBOT)
    with pytest.raises(LimitViolation, match=r"row 0: the left tool cannot reach \[\d\."):
        policy.infer(observation)
    warm_up(policy, ROBOT)  # grey images say nothing about the robot


def test_poses_need_their_robot(bimanual, one_arm, observation):
    with pytest.raises(ConfigError, match="speaks of tools or grippers in its own units; name the robot"):
        Policy.load(bimanual)
    with pytest.raises(StaleObservation, match="expected 14 finite joint positions"):
        Policy.load(one_arm, ROBOT).infer(replace(observation, positions=READY[:7]))
    left, right = ROBOT.arms
    other = replace(ROBOT, arms=(replace(left, joints=(replace(left.joints[0], name="l0"), *left.joints[1:])), right))
    with pytest.raises(EmbodimentMismatch, match=r"\[0\] 'left_waist' against 'l0'"):
        Policy.load(one_arm, other)
