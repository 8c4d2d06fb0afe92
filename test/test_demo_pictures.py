# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
from PIL import Image as Picture

from imagewam_ros.demo_pictures import CAPTION, FRONT_WIDTH, HEIGHT, Video, plot, tiles
from imagewam_ros.demo_record import EpisodeRecord

RED, GREEN, BLUE = np.eye(3, dtype=np.uint8) * 255


def flat(colour: np.ndarray, height: int = 128, width: int = 128) -> np.ndarray:
    return np.broadcast_to(colour, (height, width, 3)).copy()


def test_tiles_show_the_front_and_every_camera_in_a_column() -> None:
    image = tiles(flat(RED, 240, 320), {"head": flat(GREEN), "left_wrist": flat(BLUE)}, "episode 1")
    side = HEIGHT // 2
    assert image.shape == (HEIGHT + CAPTION, FRONT_WIDTH + side, 3)
    np.testing.assert_array_equal(image[HEIGHT // 2, FRONT_WIDTH // 2], RED)
    np.testing.assert_array_equal(image[side // 2, FRONT_WIDTH + side // 2], GREEN)
    np.testing.assert_array_equal(image[side + side // 2, FRONT_WIDTH + side // 2], BLUE)
    assert image[HEIGHT:].any(), "caption"


def test_a_video_has_the_frames_that_were_added(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    video = Video(path, 10.0)
    for level in (0, 120, 240):
        video.add(np.full((64, 96, 3), level, dtype=np.uint8))
    video.close()
    with av.open(str(path)) as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
        assert file.streams.video[0].average_rate == 10
    assert [frame.shape for frame in frames] == [(64, 96, 3)] * 3
    np.testing.assert_allclose([frame.mean() for frame in frames], [0, 120, 240], atol=4)


def test_a_video_without_frames_can_be_closed(tmp_path: Path) -> None:
    Video(tmp_path / "v.mp4", 10.0).close()


def test_the_plot_is_a_picture(tmp_path: Path, make_record: Callable[[], EpisodeRecord]) -> None:
    plot(make_record(), tmp_path / "p.png")
    with Picture.open(tmp_path / "p.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    for colour in ((0x1F, 0x77, 0xB4), (0xFF, 0x7F, 0x0E)):
        assert (pixels == colour).all(axis=-1).any()
