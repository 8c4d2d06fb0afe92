# SPDX-License-Identifier: Apache-2.0
"""`imagewam preview`: goals in pieces, labelled, and nearer to what comes than the present is."""

import json

import numpy as np
import pytest
import torch
from small_checkpoint import small_checkpoint

from imagewam_ros.cli import main
from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.schema import Observation
from imagewam_ros.policy import Policy
from imagewam_ros.preview import BAND, ahead_s, imagine, labelled, psnr_db
from imagewam_ros.sim.gl import BACKEND

ROBOT = load_embodiment("sim_cell")
needs_gl = pytest.mark.skipif(BACKEND == "disable", reason="no EGL or OSMesa library for off-screen rendering")


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return Policy.load(small_checkpoint(tmp_path_factory.mktemp("preview") / "small"), ROBOT)


@pytest.fixture
def observation():
    images = {name: np.full((128, 128, 3), 90, dtype=np.uint8) for name in ROBOT.camera_names}
    return Observation(5, images, np.zeros(14), instruction="lift the tray")


def test_goal_comes_in_pieces_and_is_that_of_the_model(policy, observation):
    *pieces, goal = imagine(policy, observation, seed=3)
    assert pieces == [None] * (1 + policy.contract.denoising.steps)
    pixels, proprio = policy.inputs(observation)
    whole = policy.model.preview(pixels, proprio, policy.encoded("lift the tray"), 3, policy.contract.denoising)
    assert goal.dtype == np.uint8 and goal.shape == (32, 96, 3)
    assert np.abs(goal / 127.5 - 1 - whole[0].permute(1, 2, 0).numpy()).max() < 0.005
    other = [*imagine(policy, observation, seed=4)][-1]
    assert not np.array_equal(goal, other)


def test_imagining_changes_no_chunk(policy, observation):
    first = policy.infer(observation, seed=1)
    told = Observation(5, observation.images, observation.positions, instruction="do something else")
    for _ in imagine(policy, told, seed=1):
        between = policy.infer(observation, seed=1)
        assert np.array_equal(between.positions, first.positions)


def test_goal_is_one_chunk_ahead(policy):
    assert ahead_s(policy) == pytest.approx(0.8)


def test_strip_leaves_the_image_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (32, 96, 3), dtype=np.uint8)
    found = labelled(image)
    assert found.shape == (32 + BAND, 96, 3) and np.array_equal(found[:32], image)
    assert not np.array_equal(found[32:], labelled(image, "other words")[32:])


def test_psnr_of_a_known_error():
    image = np.zeros((4, 4, 3), dtype=np.uint8)
    assert psnr_db(image + 255, image) == pytest.approx(0.0)
    assert psnr_db(image + 1, image) == pytest.approx(20 * np.log10(255))
    assert psnr_db(image, image) > 80


@needs_gl
def test_shipped_policy_imagines_better_than_nothing_changes(tmp_path, capsys):
    """With the prefix at another time than in training its goals are blots, worse than the present image."""
    torch.set_num_threads(1)
    words = ["preview", "--episodes", "2", "--every", "1.2", "--out", str(tmp_path / "goals.png"), "--json"]
    assert main(words) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["goals"] >= 4 and line["nearer"] == line["goals"] and line["ahead_s"] == 0.8
    assert line["autoencoder_db"] > line["imagined_db"] > line["present_db"] + 2
    assert (tmp_path / "goals.png").stat().st_size > 10_000


@needs_gl
def test_goals_that_are_worse_than_the_present_end_with_one(policy, tmp_path, capsys):
    torch.manual_seed(0)
    checkpoint = small_checkpoint(tmp_path / "small")
    words = [
        "preview",
        "--policy",
        str(checkpoint),
        "--episodes",
        "1",
        "--every",
        "2",
        "--out",
        str(tmp_path / "a.png"),
    ]
    assert main(words) == 1
    assert "goals 0.80 s ahead, mean PSNR against what came: imagined" in capsys.readouterr().out


def test_impossible_numbers_are_refused(capsys):
    assert main(["preview", "--episodes", "0"]) == 2
    assert "episodes at least 1, every at least 0.05 s; found 0, 0.6" in capsys.readouterr().err
