# SPDX-License-Identifier: Apache-2.0
"""Staged episodes come back whole, and what does not fit together is refused by name."""

import numpy as np
import pytest

from imagewam_ros.core.errors import EpisodeError
from imagewam_ros.data.bag_streams import Plan, frame_images, plan_frames, read_streams
from imagewam_ros.data.episode import Provenance
from imagewam_ros.data.lerobot_export import assemble
from imagewam_ros.data.lerobot_layout import LeRobotFormat
from imagewam_ros.data.lerobot_stage import is_staged, load_staged, stage

LAYOUT = LeRobotFormat(20, "pair", ("a", "b"), ("head",))


def staged(folder, frames=6, images=None, size=(16, 16), cameras=("head",), task="wave"):
    """An episode whose images get lighter and whose joints count up."""
    counted = np.arange(2.0 * frames).reshape(frames, 2)
    pictures = [{name: np.full((*size, 3), 10 * i, np.uint8) for name in cameras} for i in range(images or frames)]
    columns = {"stamps_ns": np.arange(frames) * 50_000_000, "states": counted, "actions": counted + 1}
    columns["corrected"] = np.arange(frames) > 3
    source = recorded(folder.parent / "in" / folder.name)
    about = Provenance("pair", task, ("a", "b"), (), 50_000_000, 1.0, label="failure", seed=7)
    stage(folder, source, about, columns, pictures, 20, 18, [[0, frames]])
    return load_staged(folder)


def recorded(source, text="label: failure"):
    """What staging looks at of an episode, besides what it is given."""
    source.mkdir(parents=True, exist_ok=True)
    (source / "metadata.yaml").write_text(text)
    return source


def test_what_was_staged_is_loaded(tmp_path):
    episode = staged(tmp_path / "a")
    assert (episode.source, episode.task) == ("a", "wave")
    assert (episode.carried["label"], episode.carried["seed"]) == ("failure", 7)
    assert len(episode) == 6 and episode.shapes == {"head": (16, 16, 3)}
    assert np.array_equal(episode.actions, episode.states + 1)
    assert episode.corrected.tolist() == [False] * 4 + [True] * 2
    assert episode.nonidle == [[0, 6]] and episode.video("head").is_file()
    assert episode.histograms["head"].sum() == 3 * 16 * episode.sampled
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("images", [5, 7])
def test_a_wrong_number_of_images_is_refused_and_leaves_nothing(tmp_path, images):
    with pytest.raises(EpisodeError, match=f"a gave {images} images per camera for 6 frames"):
        staged(tmp_path / "a", images=images)
    assert not (tmp_path / "a").exists(), "a folder with its final name is whole"


def test_a_second_attempt_begins_anew(tmp_path):
    with pytest.raises(EpisodeError):
        staged(tmp_path / "a", images=5)
    assert len(staged(tmp_path / "a")) == 6


def test_what_is_staged_is_known_by_its_metadata(tmp_path):
    staged(tmp_path / "a", task="wave")
    assert is_staged(tmp_path / "a", tmp_path / "in" / "a")
    assert not is_staged(tmp_path / "b", tmp_path / "in" / "a"), "not begun"
    assert not is_staged(tmp_path / "a", recorded(tmp_path / "other" / "a", "label: success"))
    assert staged(tmp_path / "a", task="lift").task == "lift", "staging again replaces what is there"


def test_episodes_of_other_sizes_are_refused(tmp_path):
    episodes = [staged(tmp_path / "a"), staged(tmp_path / "b", size=(16, 32))]
    text = r"b has images of \{'head': \(16, 32, 3\)\}, a of .*\(16, 16, 3\).*; convert them to separate data sets"
    with pytest.raises(EpisodeError, match=text):
        assemble(episodes, tmp_path / "out", LAYOUT)
    assert not (tmp_path / "out").exists()


def test_episodes_with_other_cameras_are_refused(tmp_path):
    episode = staged(tmp_path / "a", cameras=("head", "left_wrist"))
    with pytest.raises(EpisodeError, match=r"a has cameras \['head', 'left_wrist'\], expected \('head',\)"):
        assemble([episode], tmp_path / "out", LAYOUT)


def test_no_episode_at_all(tmp_path):
    with pytest.raises(EpisodeError, match="every episode was rejected; the report says why"):
        assemble([], tmp_path / "out", LAYOUT)


def test_images_of_a_plan_in_the_plans_order(rig):
    directory = rig.record(frames=6)
    plan = plan_frames(read_streams(directory))
    every = list(frame_images(directory, plan))
    part = list(frame_images(directory, plan.part(slice(1, None, 2))))
    assert len(every) == len(plan)
    for found, wanted in zip(part, every[1::2], strict=True):
        assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


def test_a_plan_of_more_images_than_there_are(rig):
    directory = rig.record(frames=4)
    plan = plan_frames(read_streams(directory))
    late = Plan(plan.stamps_ns, {name: places + 2 for name, places in plan.image_index.items()}, *plan_values(plan))
    with pytest.raises(EpisodeError, match=r"gave images for \d of \d frames; did it change meanwhile\?"):
        list(frame_images(directory, late))


def plan_values(plan):
    return plan.positions, plan.actions


def test_parts_of_a_plan_stay_together(rig):
    plan = plan_frames(read_streams(rig.record(frames=6)))
    part = plan.part(np.array([2, 0]))
    assert part.stamps_ns.tolist() == plan.stamps_ns[[2, 0]].tolist()
    assert np.array_equal(part.positions, plan.positions[[2, 0]])
    assert all(np.array_equal(part.image_index[name], places[[2, 0]]) for name, places in plan.image_index.items())
