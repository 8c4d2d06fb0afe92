# SPDX-License-Identifier: Apache-2.0
"""Training goes on from checkpoints that speak of tool poses and scaled grippers, on episodes of joints."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_spaces import CHAINS, READY, ROBOT, bimanual_checkpoint, one_arm_checkpoint
from small_training import ALONE, SMALL, write_episodes

from imagewam_ros.core.contract import Denoising
from imagewam_ros.core.errors import EmbodimentMismatch
from imagewam_ros.core.schema import Observation
from imagewam_ros.core.spaces import PoseFormat
from imagewam_ros.core.stats import CLAMP, normaliser
from imagewam_ros.data.dataset import Dataset
from imagewam_ros.kinematics.poses import matrix
from imagewam_ros.model.checkpoint import load_checkpoint
from imagewam_ros.policy import Policy, arm_space_of
from imagewam_ros.training import run
from imagewam_ros.training.fit import check_fit
from imagewam_ros.training.pixels import load_demonstrations
from imagewam_ros.training.samples import Samples

REACH = np.where(ROBOT.gripper_mask, 0.003, 0.08)
OPEN = np.where(ROBOT.gripper_mask, 0.04, READY)
"""As READY, with open grippers, which a gripper of two states can say."""
PRESET = replace(SMALL, needs_base=True)


@pytest.fixture(scope="module")
def episodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_episodes(tmp_path_factory.mktemp("episodes"), begin=READY, reach=REACH)


@pytest.fixture(scope="module")
def bimanual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bimanual_checkpoint(tmp_path_factory.mktemp("bimanual") / "small", spread=0.1)


@pytest.fixture(scope="module")
def one_arm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return one_arm_checkpoint(tmp_path_factory.mktemp("one_arm") / "small")


@pytest.fixture(scope="module")
def trained(bimanual: Path, episodes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    run.train(PRESET, [episodes], out, ROBOT, seed=0, base=bimanual, read=ALONE)
    return out


def samples_of(trained: Path, base: Path) -> Samples:
    """What the network learned from, read again from the run folder."""
    found = load_checkpoint(base)
    dataset = Dataset(load_demonstrations(trained / "demonstrations.npz"), 16, (False,) * 14)
    space = arm_space_of(found.contract, ROBOT, found.statistics)
    return Samples(dataset, np.load(trained / "latents.npy"), found.contract, found.statistics, {}, space=space)


def test_training_goes_on_from_tools_of_both_arms(bimanual: Path, trained: Path) -> None:
    before, after = load_checkpoint(bimanual), load_checkpoint(trained / "checkpoint")
    assert after.contract == before.contract and after.statistics["action"].mean == pytest.approx(
        before.statistics["action"].mean
    )
    assert json.loads((trained / "report.json").read_text())["chunk_error"] > 0
    old, new = before.model.network.state_dict(), after.model.network.state_dict()
    assert any(not torch.allclose(old[name], new[name], atol=1e-4) for name in old)
    samples = samples_of(trained, bimanual)
    taught, _ = samples.actions(np.arange(8))
    said = normaliser(after.contract.normalisation, before.statistics["action"]).inverse(taught.double().numpy())
    for frame, chunk in enumerate(said):
        for row, numbers in enumerate(chunk[: 8 - frame]):
            target = samples.dataset.actions[frame + row]
            tools = CHAINS.forward(target)
            assert np.allclose(matrix(numbers[:7], PoseFormat("wxyz")), tools["left"], atol=1e-5)
            assert np.allclose(matrix(numbers[8:15], PoseFormat("wxyz")), tools["right"], atol=1e-5)
            assert numbers[[7, 15]] * 0.02 + 0.02 == pytest.approx(target[[6, 13]], abs=1e-6)


def test_what_is_taught_is_what_a_policy_would_command(one_arm: Path, tmp_path: Path) -> None:
    """Steps of one tool, through the policy's own way back, are the demonstrated joints of that arm."""
    episodes = write_episodes(tmp_path / "open", begin=OPEN, reach=np.where(ROBOT.gripper_mask, 0, 0.04))
    run.train(PRESET, [episodes], tmp_path, ROBOT, seed=0, base=one_arm, read=ALONE)
    samples = samples_of(tmp_path, one_arm)
    contract = samples.contract
    back = normaliser(contract.normalisation, samples.statistics["action"])
    taught, _ = samples.actions(np.arange(24))
    assert samples.space is not None
    for frame, chunk in enumerate(taught.double().numpy()):
        found = samples.space.targets(back.inverse(chunk), samples.dataset.positions[frame])
        wanted = samples.dataset.chunks(np.array([frame]))[0][0][:, :7]
        tool = CHAINS.forward(np.concatenate([found[-1], READY[7:]]))["left"]
        assert np.allclose(tool, CHAINS.forward(np.concatenate([wanted[-1], READY[7:]]))["left"], atol=1e-4)
        assert np.abs(found - wanted).max() < 1e-3
    seen = {camera.name: np.zeros((camera.height, camera.width, 3), np.uint8) for camera in ROBOT.cameras}
    chunk_ = Policy.load(tmp_path / "checkpoint", ROBOT).infer(Observation(0, seen, READY, "lift"), seed=1)
    assert chunk_.joint_names == ROBOT.joint_names[:7]


def test_states_are_the_policys(bimanual: Path, trained: Path) -> None:
    samples = samples_of(trained, bimanual)
    space = arm_space_of(samples.contract, ROBOT, samples.statistics)
    forward = normaliser(samples.contract.normalisation, samples.statistics["state"]).forward
    wanted = [forward(space.state(positions)) for positions in samples.dataset.positions[3:6]]
    assert np.allclose(samples.states(np.arange(3, 6)).numpy(), wanted, atol=1e-5)


def test_padding_carries_nothing(episodes: Path, tmp_path: Path) -> None:
    """A network with numbers that mean nothing learns as one without them."""
    base = bimanual_checkpoint(tmp_path / "base", spread=0.1, padded_dims=(3, 17))
    run.train(PRESET, [episodes], tmp_path / "run", ROBOT, seed=0, base=base, read=ALONE)
    samples = replace(samples_of(tmp_path / "run", base), padded_dims=(3, 17))
    instruction = load_checkpoint(base).model.encode_instruction("lift the tray with both hands")
    samples.instructions["lift the tray with both hands"] = instruction  # type: ignore[index]
    batch = samples.draw(np.arange(8), replace(SMALL.training, proprio_noise=0.1), 0, 0)
    kept = [place for place in range(18) if place not in (3, 17)]
    assert batch.actions.shape[-1] == batch.action_noise.shape[-1] == batch.proprio.shape[-1] == 18
    assert not batch.actions[..., [3, 17]].any() and not batch.proprio[..., [3, 17]].any()
    assert batch.proprio[..., kept].abs().min() > 0
    assert batch.action_dim_is_pad is not None and batch.action_dim_is_pad.sum(1).tolist() == [2] * 4
    assert batch.action_dim_is_pad[:, [3, 17]].all()


def test_times_lie_on_the_checkpoints_grid(bimanual: Path, trained: Path) -> None:
    samples = samples_of(trained, bimanual)
    samples.instructions["lift the tray with both hands"] = load_checkpoint(bimanual).model.encode_instruction("x")  # type: ignore[index]
    assert samples.contract.denoising.time_grid == "bfloat16"
    batch = samples.draw(np.arange(8), SMALL.training, 0, 0)
    exact = replace(samples, contract=replace(samples.contract, denoising=Denoising()))
    other = exact.draw(np.arange(8), SMALL.training, 0, 0)
    for mine, drawn in (
        (batch.action_timestep, other.action_timestep),
        (batch.target_timestep, other.target_timestep),
    ):
        assert mine is not None and drawn is not None
        assert torch.equal(mine, drawn.bfloat16().float()) and not torch.equal(mine, drawn)


def test_targets_beyond_the_checkpoints_scale_are_refused(episodes: Path, tmp_path: Path) -> None:
    """Clipped, they would teach the policy to go elsewhere, and the held-out error would not show it."""
    base = bimanual_checkpoint(tmp_path / "base", spread=0.002)
    with pytest.raises(
        EmbodimentMismatch, match=r"action left_x: \d+\.\d% of the demonstrated values lie beyond.*frame"
    ):
        run.train(PRESET, [episodes], tmp_path / "run", ROBOT, seed=0, base=base, read=ALONE)


def test_a_few_values_beyond_the_scale_are_told(bimanual: Path, trained: Path) -> None:
    samples = samples_of(trained, bimanual)
    states = samples.statistics["state"]
    second = np.sort(np.abs(samples.measured(np.arange(24))[:, 2] - states.mean[2]))[-2]
    narrow = replace(states, std=np.where(np.arange(16) == 2, 1.001 * second / CLAMP, states.std))
    few = replace(samples, statistics={**samples.statistics, "state": narrow})
    (line,) = check_fit(few, np.arange(24))
    assert line.startswith("state left_z: 4.2% of") and not check_fit(samples, np.arange(24))


def test_a_gripper_of_two_states_is_not_taught_half_open_ones(one_arm: Path, episodes: Path, tmp_path: Path) -> None:
    with pytest.raises(EmbodimentMismatch, match="of the left gripper are neither open nor closed"):
        run.train(PRESET, [episodes], tmp_path / "run", ROBOT, seed=0, base=one_arm, read=ALONE)


def test_episodes_of_other_joints_are_named(bimanual: Path, tmp_path: Path) -> None:
    arms = tuple(
        replace(arm, joints=tuple(replace(joint, name=f"other_{joint.name}") for joint in arm.joints))
        for arm in ROBOT.arms
    )
    data = write_episodes(tmp_path / "episodes", begin=READY, reach=REACH)
    with pytest.raises(EmbodimentMismatch, match="other_left_waist"):
        run.train(PRESET, [data], tmp_path / "run", replace(ROBOT, arms=arms), seed=0, base=bimanual, read=ALONE)
