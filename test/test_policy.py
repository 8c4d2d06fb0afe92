# SPDX-License-Identifier: Apache-2.0
"""Observation to chunk on a small real checkpoint."""

import json
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_training import ALONE, INSTRUCTION, PERIOD_NS, SMALL, write_episodes

from imagewam_ros.core.embodiment import Embodiment, load_embodiment
from imagewam_ros.core.errors import CheckpointError, ConfigError, EmbodimentMismatch, StaleObservation
from imagewam_ros.core.schema import Observation, Source
from imagewam_ros.core.stats import normaliser
from imagewam_ros.model.checkpoint import load_checkpoint
from imagewam_ros.model.flow import action_noise
from imagewam_ros.model.preprocess import mosaic_pixels
from imagewam_ros.model.text import TextSpec, small_text
from imagewam_ros.model.wam import ImageWam
from imagewam_ros.policy import Policy
from imagewam_ros.training.run import train


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("policy")
    data = write_episodes(root / "episodes", count=2)
    train(SMALL, [data], root / "run", load_embodiment("sim_cell"), seed=0, read=ALONE)
    return root / "run" / "checkpoint"


@pytest.fixture(scope="module")
def robot() -> Embodiment:
    return load_embodiment("sim_cell")


@pytest.fixture
def observation(robot: Embodiment) -> Observation:
    rng = np.random.default_rng(0)
    images = {c.name: rng.integers(0, 256, (c.height, c.width, 3), dtype=np.uint8) for c in robot.cameras}
    return Observation(123_000_000, images, rng.uniform(-0.5, 0.5, 14), INSTRUCTION, instruction_id=4)


def test_chunk_carries_what_the_executor_needs(directory: Path, robot: Embodiment, observation: Observation) -> None:
    policy = Policy.load(directory, robot)
    first = policy.infer(observation, seed=9, ready_ns=200)
    assert first.stamp_ns == 123_000_000 and first.period_ns == PERIOD_NS and first.ready_ns == 200
    assert first.joint_names == robot.joint_names and first.positions.shape == (4, 14)
    assert first.contract_hash == policy.contract.hash and first.instruction_id == 4
    assert (first.seed, first.denoise_steps, first.source) == (9, 10, Source.POLICY) and first.inference_s > 0
    assert first.due_ns(0) == 123_000_000 + PERIOD_NS
    assert policy.infer(observation).sequence == first.sequence + 1


def test_same_observation_and_seed_give_the_same_chunk(directory: Path, observation: Observation) -> None:
    policy, other = Policy.load(directory), Policy.load(directory)
    first, noisy = policy.infer(observation, seed=1), policy.infer(observation, seed=2)
    assert np.array_equal(first.positions, other.infer(observation, seed=1).positions)
    assert not np.array_equal(first.positions, noisy.positions)


def test_arms_are_relative_and_grippers_absolute(directory: Path, observation: Observation, robot: Embodiment) -> None:
    """Against the same steps written out by hand."""
    checkpoint = load_checkpoint(directory)
    model, contract, statistics = checkpoint.model, checkpoint.contract, checkpoint.statistics
    state = normaliser(contract.normalisation, statistics["state"]).forward(observation.positions)
    with torch.inference_mode():
        pixels = mosaic_pixels(observation.images, contract.mosaic)
        instruction = model.encode_instruction(INSTRUCTION)
        cache = model.prefill(pixels, torch.tensor(state, dtype=torch.float32)[None], instruction)
        actions = action_noise(3, 4, 14)
        plan = model.plan(contract.denoising)
        for timestep, delta in zip(plan.timesteps, plan.deltas, strict=True):
            actions = actions + model.velocity(actions, timestep[None], cache) * delta
    expected = normaliser(contract.normalisation, statistics["action"]).inverse(actions[0].double().numpy())
    expected[:, ~robot.gripper_mask] += observation.positions[~robot.gripper_mask]
    assert np.allclose(Policy.load(directory).infer(observation, seed=3).positions, expected, atol=1e-5)


def test_images_and_instruction_matter(directory: Path, observation: Observation) -> None:
    policy = Policy.load(directory)
    seen = policy.infer(observation).positions
    dark = {name: np.zeros_like(image) for name, image in observation.images.items()}
    assert not np.array_equal(seen, policy.infer(replace(observation, images=dark)).positions)
    assert not np.array_equal(seen, policy.infer(replace(observation, instruction="drop it")).positions)
    assert np.array_equal(seen, policy.infer(observation).positions)


def test_incomplete_observations_are_refused(directory: Path, observation: Observation) -> None:
    policy = Policy.load(directory)
    blind = {name: image for name, image in observation.images.items() if name != "left_wrist"}
    with pytest.raises(ConfigError, match="unknown camera 'left_wrist'"):
        policy.infer(replace(observation, images=blind))
    with pytest.raises(StaleObservation, match="expected 14 finite joint positions"):
        policy.infer(replace(observation, positions=np.zeros(13)))
    with pytest.raises(StaleObservation, match="nan"):
        policy.infer(replace(observation, positions=np.full(14, np.nan)))


def test_another_robot_is_refused(directory: Path, robot: Embodiment) -> None:
    left, right = robot.arms
    renamed = replace(left.joints[0], name="left_base")
    other = replace(robot, name="other", arms=(replace(left, joints=(renamed, *left.joints[1:])), right))
    with pytest.raises(EmbodimentMismatch, match=r"joint_names: \[0\] 'left_waist' against 'left_base'"):
        Policy.load(directory, other)


def test_torn_checkpoint_is_named(directory: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        Policy.load(tmp_path)
    config = json.loads((directory / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError):
        Policy.load(tmp_path)


def test_a_rehearsal_makes_a_chunk_per_length_of_text_and_changes_none(
    directory: Path, observation: Observation
) -> None:
    plain, policy = Policy.load(directory), Policy.load(directory)
    loops, denoise = [], policy.model.network.denoise
    policy.model.network.denoise = lambda *given: loops.append(given) or denoise(*given)
    other = f"{INSTRUCTION} and put it down again"
    for text, draws in ((INSTRUCTION, 2), (INSTRUCTION, 0), (other, 2), (INSTRUCTION, 0)):
        before = len(loops)
        policy.rehearse(text)
        assert len(loops) == before + draws
    asked = replace(observation, instruction=other)
    assert np.array_equal(policy.infer(asked).positions, plain.infer(asked).positions)
    assert policy.infer(observation).sequence == 2, "a rehearsal is no chunk"


def test_the_text_encoder_leaves_memory_between_instructions(directory: Path, observation: Observation) -> None:
    plain, policy = Policy.load(directory), Policy.load(directory, release_text=True)
    for text in (INSTRUCTION, "drop it"):
        encoder = weakref.ref(policy.model.text.model)
        asked = replace(observation, instruction=text)
        assert np.array_equal(policy.infer(asked).positions, plain.infer(asked).positions)
        assert encoder() is None


def test_an_encoder_that_cannot_be_read_again_is_not_released(directory: Path) -> None:
    found = load_checkpoint(directory)
    model = found.model
    text = small_text([INSTRUCTION], TextSpec((1,)), max_length=256)
    of_no_file = ImageWam(model.network, model.codec, text, model.spec, model.prompt, model.horizon)
    policy = Policy(of_no_file, found.contract, found.statistics, release_text=True)
    with pytest.raises(ConfigError, match="text encoder sees every image and must stay; set release_text to false"):
        policy.set_instruction(INSTRUCTION)


def test_clock_measures_inference(directory: Path, observation: Observation) -> None:
    checkpoint, ticks = load_checkpoint(directory), SimpleNamespace(now=0.0)

    def clock() -> float:
        ticks.now += 0.25
        return ticks.now

    policy = Policy(checkpoint.model, checkpoint.contract, checkpoint.statistics, clock=clock)
    assert policy.infer(observation).inference_s == 0.25
