# SPDX-License-Identifier: Apache-2.0
"""`imagewam attention`: numbers that say what they claim, on maps that are known, and the command end to end."""

import dataclasses
import json

import numpy as np
import pytest
from small_checkpoint import cell_contract, small_checkpoint
from small_training import write_episodes

from imagewam_ros.attention_figure import draw_heads
from imagewam_ros.attention_frames import ALL, NAMED, UNNAMED, Frame, recorded
from imagewam_ros.attention_study import CONDITIONS, OTHER, SHUFFLED, Seen, controls, gain, ratio
from imagewam_ros.cli import main
from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.schema import Observation
from imagewam_ros.model.capture import Attention
from imagewam_ros.policy import Policy
from imagewam_ros.sim.gl import BACKEND

ROBOT = load_embodiment("sim_cell")
needs_gl = pytest.mark.skipif(BACKEND == "disable", reason="no EGL or OSMesa library for off-screen rendering")
EPISODES = np.repeat(np.arange(6), 5)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return small_checkpoint(tmp_path_factory.mktemp("attention") / "small")


def drawn(rng, mean_mass):
    """Frames whose mass scatters from episode to episode and little within one."""
    level = mean_mass + 0.05 * rng.standard_normal(6)
    return [Seen(level[episode] + 0.001 * rng.standard_normal(), 0.2) for episode in EPISODES]


def test_attention_that_does_not_look_is_one_time_its_pixels():
    rng = np.random.default_rng(0)
    seen = [Seen(area, area) for area in rng.uniform(0.1, 0.3, 30)]
    assert ratio(seen, EPISODES) == pytest.approx((1, 1, 1))
    assert gain(seen, seen, EPISODES) == (0, 0, 0)


def test_bounds_hold_the_truth_and_count_episodes_not_frames():
    """Frames of one episode say the same, so many of them must not narrow the interval."""
    inside, widths = 0, []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        found = ratio(drawn(rng, 0.3), EPISODES)
        inside += found.low <= 1.5 <= found.high
        widths.append(found.high - found.low)
    assert inside >= 45
    naive = 2 * 1.96 * 0.05 / 0.2 / np.sqrt(len(EPISODES))
    assert np.mean(widths) > 1.5 * naive


def test_gain_is_the_paired_difference():
    rng = np.random.default_rng(1)
    own = drawn(rng, 0.3)
    less = [Seen(seen.mass - 0.01, seen.area) for seen in own]
    assert gain(own, less, EPISODES) == pytest.approx((0.01, 0.01, 0.01))


def test_controls_keep_the_words_or_ask_for_something_else():
    blocks = ("lift the red block", "lift the blue block")
    found = controls(blocks[0], blocks, seed=3)
    assert sorted(found[SHUFFLED].split()) == sorted(blocks[0].split()) and found[SHUFFLED] != blocks[0]
    assert found[OTHER] == blocks[1]
    alone = controls("lift the tray with both hands", ("lift the tray with both hands",), seed=4)
    assert alone[OTHER] != "lift the tray with both hands" and " " in alone[OTHER]
    assert controls("stop", ("stop",), 0)[SHUFFLED] == "stop"


def frame(instruction, *names):
    masks = {name: np.full((16, 16), 0.5, dtype=np.float32) for name in names}
    return Frame(0, 0, Observation(0, {}, np.zeros(14), instruction), masks)


def test_objects_that_the_words_tell_apart_are_groups():
    found = frame("lift the red block", "red_block", "blue_block").groups()
    assert set(found) == {ALL, NAMED, UNNAMED} and found[ALL].max() == 1 and found[NAMED].max() == 0.5
    assert set(frame("lift the tray", "tray").groups()) == {ALL}
    assert set(frame("lift", "red_block", "blue_block").groups()) == {ALL}
    assert frame("lift").groups() == {}


def test_recorded_episodes_are_looked_at_without_masks(checkpoint, tmp_path):
    write_episodes(tmp_path, count=1, frames=8)
    policy = Policy.load(checkpoint, ROBOT)
    frames = recorded(tmp_path / "episode_0", policy, 7, every_ns=200_000_000)
    assert [frame.time_ns for frame in frames] == [0, 200_000_000] and not frames[0].objects
    assert frames[0].episode == 7 and set(frames[0].observation.images) == set(ROBOT.camera_names)


def last_line(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@needs_gl
@pytest.mark.parametrize("driver", ["policy", "expert"])
def test_command_measures_and_draws(checkpoint, driver, tmp_path, capsys):
    words = ["attention", "--policy", str(checkpoint), "--task", "block_lift", "--driver", driver, "--episodes", "2"]
    words += ["--every", "1.5", "--figure", str(tmp_path / "a.png"), "--grid", str(tmp_path / "b.png"), "--json"]
    assert main(words) == 0
    line = last_line(capsys)
    assert sum(line["mass"].values()) == pytest.approx(1, abs=1e-3)
    assert set(line["groups"]) == {ALL, NAMED, UNNAMED}
    for group in line["groups"].values():
        assert 0 < group["area"] < 0.5 and set(group["rows"]) == set(CONDITIONS)
        for row in group["rows"].values():
            bounds = row["times_area"]
            assert 0 < row["mass"] < 1 and bounds["low"] <= bounds["mean"] <= bounds["high"]
    assert len(line["layers_times_area"]) == 3
    assert all((tmp_path / name).stat().st_size > 10_000 for name in ("a.png", "b.png"))


def test_command_reads_recorded_episodes(checkpoint, tmp_path, capsys):
    write_episodes(tmp_path, count=2, frames=6)
    episodes = [str(tmp_path / f"episode_{i}") for i in range(2)]
    words = ["attention", "--policy", str(checkpoint), "--recorded", *episodes, "--layers", "2", "--heads", "0", "1"]
    assert main([*words, "--figure", str(tmp_path / "a.png"), "--json"]) == 0
    line = last_line(capsys)
    assert line["frames"] == 2 and not line["groups"] and line["layers"] == [2] and line["heads"] == [0, 1]
    assert (tmp_path / "a.png").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--driver", "exprt"], "unknown driver 'exprt'; did you mean 'expert'?"),
        (["--episodes", "1"], "asked for 1 episodes, a frame every 0.4 s; at least 2 are needed, because one is"),
        (["--every", "0"], "a frame every 0.0 s"),
    ],
)
def test_impossible_questions_are_refused(words, message, capsys):
    assert main(["attention", *words]) == 2
    assert message in capsys.readouterr().err


def test_too_many_panels_are_refused(tmp_path):
    attention = Attention(np.zeros((30, 10, 1, 3), dtype=np.float32), 1, 1, 1)
    image = np.zeros((16, 16, 3), dtype=np.uint8)
    with pytest.raises(ConfigError, match="30 layers of 10 heads are too many panels; choose some of them"):
        draw_heads(tmp_path / "a.png", image, attention, range(30), range(10), "")


def test_episode_of_another_robot_is_refused(tmp_path):
    write_episodes(tmp_path, count=1, frames=6)
    other = dataclasses.replace(cell_contract(ROBOT), joint_names=tuple(f"joint_{i}" for i in range(14)))
    policy = Policy.load(small_checkpoint(tmp_path / "other", other))
    with pytest.raises(ConfigError, match="has other joints than the checkpoint; name episodes of its own robot"):
        recorded(tmp_path / "episode_0", policy, 0, 50_000_000)
