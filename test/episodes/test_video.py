# SPDX-License-Identifier: Apache-2.0
"""Videos of cameras: frames come back in order from any place, parts join exactly, damage is named."""

import numpy as np
import pytest

from imagewam_ros.core.errors import ConfigError, EpisodeError
from imagewam_ros.data.lerobot_judge import ConvertConfig
from imagewam_ros.data.lerobot_layout import LeRobotFormat
from imagewam_ros.data.lerobot_video import VideoWriter, join, read_video, video_information

FPS = 20


def picture(level, size=(32, 48)):
    return np.full((*size, 3), 10 + 4 * level, np.uint8)


def write(path, levels, size=(32, 48), crf=18):
    with VideoWriter(path, FPS, crf) as video:
        for level in levels:
            video.add(picture(level, size))
    return path


def levels_of(images):
    return [round((float(image.mean()) - 10) / 4) for image in images]


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return write(tmp_path_factory.mktemp("film") / "a.mp4", range(40))


@pytest.mark.parametrize(("start", "count"), [(0, 40), (0, 1), (7, 5), (39, 1), (20, 20)])
def test_any_stretch_is_read_exactly(film, start, count):
    assert levels_of(read_video(film, start / FPS, count, FPS)) == list(range(start, start + count))


def test_more_frames_than_there_are(film):
    with pytest.raises(EpisodeError, match=r"a\.mp4 holds 5 of 6 frames from 1\.750 s on"):
        list(read_video(film, 35 / FPS, 6, FPS))


def test_parts_joined_are_one_video(tmp_path):
    parts = [(write(tmp_path / f"{i}.mp4", range(10 * i, 10 * i + count)), count) for i, count in enumerate((3, 7, 5))]
    join(parts, tmp_path / "whole.mp4", FPS)
    wanted = [10 * i + row for i, (_, count) in enumerate(parts) for row in range(count)]
    assert levels_of(read_video(tmp_path / "whole.mp4", 0.0, 15, FPS)) == wanted
    assert levels_of(read_video(tmp_path / "whole.mp4", 3 / FPS, 7, FPS)) == wanted[3:10]


def test_information_for_the_data_set(film):
    found = video_information(film)
    assert (found["video.height"], found["video.width"], found["video.fps"]) == (32, 48, FPS)
    assert found["video.channels"] == 3 and not found["has_audio"] and not found["video.is_depth_map"]


@pytest.mark.parametrize("size", [(31, 48), (32, 47)])
def test_odd_sizes_are_refused(tmp_path, size):
    with (
        pytest.raises(
            EpisodeError, match=f"images of {size[1]}x{size[0]} cannot become video: both sizes must be even"
        ),
        VideoWriter(tmp_path / "a.mp4", FPS, 18) as video,
    ):
        video.add(picture(0, size))


def test_a_size_that_changes_is_refused(tmp_path):
    with (
        pytest.raises(EpisodeError, match="images change from 48x32 to 32x48 within an episode"),
        VideoWriter(tmp_path / "a.mp4", FPS, 18) as video,
    ):
        video.add(picture(0))
        video.add(picture(0, (48, 32)))


@pytest.mark.parametrize("content", [b"", b"not a video", b"\x00" * 500])
def test_what_is_no_video_is_named(tmp_path, content):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(EpisodeError, match=r"a\.mp4 cannot be read: "):
        list(read_video(tmp_path / "a.mp4", 0.0, 1, FPS))


def test_a_video_cut_short_is_named(film, tmp_path):
    (tmp_path / "a.mp4").write_bytes(film.read_bytes()[:-200])
    with pytest.raises(EpisodeError, match=r"a\.mp4 (cannot be read|holds \d+ of 40 frames)"):
        list(read_video(tmp_path / "a.mp4", 0.0, 40, FPS))


def test_less_compression_is_closer(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    errors = []
    for crf in (0, 40):
        with VideoWriter(tmp_path / f"{crf}.mp4", FPS, crf) as video:
            video.add(noise)
        (back,) = read_video(tmp_path / f"{crf}.mp4", 0.0, 1, FPS)
        errors.append(np.abs(back.astype(int) - noise).mean())
    assert errors[0] < errors[1]


@pytest.mark.parametrize("change", [{"fps": 0}, {"data_file_mb": 0}, {"video_file_mb": -1}])
def test_impossible_layouts_are_refused(change):
    with pytest.raises(ConfigError, match="fps and the sizes of files must be positive"):
        LeRobotFormat(**{"fps": 20, "robot": "r", "joint_names": (), "cameras": (), **change})


@pytest.mark.parametrize("change", [{"crf": 52}, {"crf": -1}, {"horizon": 0}, {"idle_s": 0.0}, {"shortest_s": -1.0}])
def test_impossible_conversions_are_refused(change):
    with pytest.raises(ConfigError, match="crf is 0 to 51; horizon and idle_s are positive; idle_step and shortest_s"):
        ConvertConfig(**change)


def test_no_label_at_all_is_refused():
    with pytest.raises(ConfigError, match="labels are some of success, failure, .*found none|found none"):
        ConvertConfig(labels=())
