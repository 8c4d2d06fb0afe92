# SPDX-License-Identifier: Apache-2.0
"""Recording demonstrations: whole, labelled, repeatable, and never from the seeds of evaluation."""

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from blank_message import blank_message

from imagewam_ros import record
from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import ConfigError, DiskError, EpisodeError
from imagewam_ros.core.schema import JointState
from imagewam_ros.data.bag import Topic
from imagewam_ros.data.episode import EpisodeWriter, Provenance, read_provenance
from imagewam_ros.data.frames import read_frames
from imagewam_ros.data.interventions import lessons


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    record.add_arguments(parser)
    return parser.parse_args(words)


def test_expert_demonstrates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--expert", "--episodes", "2", "--out", str(tmp_path), "--workers", "1", "--json")
    (tmp_path / "episode_1000001").mkdir()  # a cut-off recording is replaced
    assert record.run(parse(*words)) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["recorded"] == last["successes"] == 2 and last["kept"] == 0
    about = read_provenance(tmp_path / "episode_1000001")
    assert (about.robot, about.task, about.seed, about.label) == ("sim_cell", "tray_lift", 1_000_001, "success")
    frames = read_frames(tmp_path / "episode_1000000")
    assert frames.positions.shape[1] == 14 and frames.images["head"].shape[1:] == (128, 128, 3)
    assert np.abs(frames.actions - frames.positions)[:, 0].max() < 0.5
    assert record.run(parse(*words)) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["kept"] == 2
    with pytest.raises(ConfigError, match="episode_1000000 is of task 'tray_lift', asked is 'hand_over'"):
        record.run(parse(*words, "--task", "hand_over"))


def test_expert_stays_for_what_its_task_does_not_know(tmp_path: Path) -> None:
    wrong = "lift the red block"
    assert record.record_episode(1_000_000, tmp_path, "tray_lift", "sim_cell", wrong).success
    about, frames = read_provenance(tmp_path / "episode_1000000"), read_frames(tmp_path / "episode_1000000")
    assert (about.task, about.instruction, about.label) == ("tray_lift", wrong, "success")
    assert np.ptp(frames.actions, axis=0).max() < 1e-6


def test_seeds_of_evaluation_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="seed 5 belongs to evaluation"):
        record.run(parse("--expert", "--seed", "5", "--out", str(tmp_path)))


def test_somebody_must_demonstrate(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="say who demonstrates"):
        record.run(parse("--out", str(tmp_path)))


def test_the_episodes_need_a_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="say where the episodes go: --out FOLDER"):
        record.run(parse("--expert"))
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match="cannot make .*/file/deep: Not a directory; choose another --out"):
        record.run(parse("--expert", "--out", str(tmp_path / "file" / "deep")))
    with pytest.raises(EpisodeError, match="no episode at .*absent; check the path"):
        record.run(parse("--label", "success", "--episode", str(tmp_path / "absent")))


def test_cut_off_recordings_are_recovered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    about = Provenance("pair", "wave", ("waist",), (("head", "head"),), 50_000_000, 1.0)
    with EpisodeWriter(tmp_path / "episode_0", about) as writer:
        for i in range(20_000):
            writer.joints(JointState(i, ("waist",), np.array([i]), np.zeros(1)))
        writer._bag.flush()
    (tmp_path / "episode_1").mkdir()
    (tmp_path / "episode_1" / "episode_1_0.mcap").write_bytes(b"")
    assert record.run(parse("--recover", str(tmp_path), "--json")) == 1
    out = capsys.readouterr().out
    assert "episode_0: 20000 messages" in out and "episode_1: " in out
    assert json.loads(out.splitlines()[-1]) == {"recovered": 1, "failed": 1}
    assert read_provenance(tmp_path / "episode_0").instruction == "wave"
    (tmp_path / "episode_1" / "episode_1_0.mcap").unlink()
    with pytest.raises(EpisodeError, match="no recording in .* is cut off; check the path"):
        record.run(parse("--recover", str(tmp_path)))


OURS = {"executor/event": "ExecutorEvent", "executor/status": "ExecutorStatus", "policy/action_chunk": "ActionChunk"}


def foreign_bag(
    folder: Path, action_topic: str = "/cell/leader/joint_states", ours: tuple[tuple[str, dict[str, object]], ...] = ()
) -> Path:
    """What `ros2 bag record` gives: 30 frames, one of `ours` per 100 ms, nothing of ours in the metadata."""
    robot = load_embodiment("sim_cell")
    cameras = tuple((camera.name, f"/cell/{camera.topic}") for camera in robot.cameras)
    about = Provenance("x", "x", robot.joint_names, cameras, 50_000_000, 1.0, joint_topic="/cell/joint_states")
    with EpisodeWriter(folder, dataclasses.replace(about, action_topic=action_topic)) as writer:
        for i in range(30):
            for camera, _ in cameras:
                writer.image(camera, i * 50_000_000, np.full((32, 32, 3), i, np.uint8))
            writer.joints(JointState(i * 50_000_000, robot.joint_names, np.full(14, i / 100), np.zeros(14)))
            writer.action(i * 50_000_000, np.full(14, (i + 1) / 100))
        kinds = {topic: f"imagewam_ros/msg/{OURS[topic]}" for topic, _ in ours}
        channels = {topic: writer._bag.add(Topic(f"/cell/{topic}", kind)) for topic, kind in kinds.items()}
        for i, (topic, says) in enumerate(ours):
            message = blank_message(kinds[topic], i * 100_000_000, **says)
            writer._bag.write(channels[topic], i * 100_000_000, message)
        writer._bag.close({})
    return folder


def test_bags_of_other_programs_become_episodes(tmp_path: Path) -> None:
    folder = foreign_bag(tmp_path / "bag")
    words = ("--label", "success", "--episode", str(folder), "--action-topic")
    with pytest.raises(ConfigError, match="was recorded by another program; say what was done: --instruction"):
        record.run(parse(*words, "leader/joint_states"))
    with pytest.raises(EpisodeError, match=r"bag holds no leader/commands; found /cell/head_camera"):
        record.run(parse(*words, "leader/commands", "--instruction", "wave"))
    assert record.run(parse(*words, "leader/joint_states", "--instruction", "wave")) == 0
    frames = read_frames(folder)
    assert (frames.provenance.label, frames.provenance.instruction, len(frames)) == ("success", "wave", 30)
    np.testing.assert_allclose(frames.actions - frames.positions, 0.01)


ADOPTED = ("--instruction", "wave", "--action-topic", "leader/joint_states")


def test_adopted_bags_teach_what_was_corrected_alone(tmp_path: Path) -> None:
    policy = ("executor/event", {"trigger": "accepted", "state": 1, "source": 0})
    taken = ("executor/event", {"trigger": "take_over", "state": 4, "source": 255})
    human = ("executor/event", {"trigger": "accepted", "state": 4, "source": 3})
    back = ("executor/event", {"trigger": "release", "state": 2, "source": 255})
    folder = foreign_bag(tmp_path / "bag", ours=(policy, taken, taken, human, human, human, back, policy))
    assert record.run(parse("--label", "success", "--episode", str(folder), *ADOPTED)) == 0
    about = read_provenance(folder)
    assert (about.interventions, about.policy_ran) == (((300_000_000, 500_000_000),), True)
    (rows,) = lessons(read_frames(folder).stamps_ns, about.interventions)
    assert rows == slice(6, 11)


@pytest.mark.parametrize(
    ("topic", "says"), [("policy/action_chunk", {"source": 3}), ("executor/status", {"taken_over": ["left"]})]
)
def test_a_takeover_without_events_is_refused(tmp_path: Path, topic: str, says: dict[str, object]) -> None:
    folder = foreign_bag(tmp_path / "bag", ours=((topic, says),))
    text = f"a human took over, as /cell/{topic} says, but the bag holds no executor/event, .* record it too"
    with pytest.raises(EpisodeError, match=text):
        record.run(parse("--label", "success", "--episode", str(folder), *ADOPTED))


@pytest.mark.parametrize(("source", "ran"), [(0, True), (2, False)])
def test_a_policy_is_seen_by_its_chunks_where_there_are_no_events(tmp_path: Path, source: int, ran: bool) -> None:
    folder = foreign_bag(tmp_path / "bag", ours=(("executor/status", {}), ("policy/action_chunk", {"source": source})))
    assert record.run(parse("--label", "success", "--episode", str(folder), *ADOPTED)) == 0
    assert read_provenance(folder).unaided is ran


def test_two_robots_in_one_bag_are_not_guessed(tmp_path: Path) -> None:
    folder = foreign_bag(tmp_path / "bag", "/cell_2/joint_states")
    with pytest.raises(EpisodeError, match=r"holds /cell/joint_states, /cell_2/joint_states; which is joint_states\?"):
        record.run(parse("--label", "success", "--episode", str(folder), "--instruction", "wave"))


def test_labels_are_changed_afterwards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    about = Provenance("pair", "wave", ("waist",), (("head", "head"),), 50_000_000, 1.0)
    with EpisodeWriter(tmp_path / "episode_0", about) as writer:
        writer.joints(JointState(0, ("waist",), np.zeros(1), np.zeros(1)))
        writer.finish("failure")
    folder = str(tmp_path / "episode_0")
    assert record.run(parse("--label", "success", "--episode", folder, "--instruction", "wave twice")) == 0
    assert "success, 'wave twice'" in capsys.readouterr().out
    assert read_provenance(tmp_path / "episode_0").label == "success"
    with pytest.raises(ConfigError, match="say what to label failure: --episode FOLDER"):
        record.run(parse("--label", "failure"))
    with pytest.raises(EpisodeError, match=r"has no metadata\.yaml: its recording was cut off"):
        record.run(parse("--label", "failure", "--episode", str(tmp_path)))


@pytest.mark.parametrize("text", ["period_s", "period_s:=", ":=3", "a:=[1]"])
def test_parameters_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="expected name:=value, for example"):
        record.run(parse("--live", "--out", str(tmp_path), "--set", text))
