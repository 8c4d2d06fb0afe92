# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch

from imagewam_ros.core.contract import Mosaic, Tile
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.model.preprocess import mosaic_pixels

MOSAIC = Mosaic(32, 64, (Tile("head", 0, 0, 32, 32), Tile("left_wrist", 0, 32, 16, 32)))


def images(size=32):
    rng = np.random.default_rng(0)
    return {
        "head": rng.integers(0, 256, (size, size, 3), dtype=np.uint8),
        "left_wrist": np.full((size // 2, size, 3), 255, dtype=np.uint8),
    }


def test_tiles_land_where_the_mosaic_says():
    given = images()
    found = mosaic_pixels(given, MOSAIC)
    assert found.shape == (1, 3, 32, 64)
    back = ((found[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    assert np.array_equal(back[:, :32], given["head"])
    assert (back[:16, 32:] == 255).all()


def test_uncovered_pixels_are_black():
    assert (mosaic_pixels(images(), MOSAIC)[0, :, 16:, 32:] == -1).all()


def test_resizing_averages_instead_of_dropping_pixels():
    board = np.indices((64, 64)).sum(0) % 2 * 255
    given = {**images(64), "head": np.repeat(board[..., None], 3, 2).astype(np.uint8)}
    head = mosaic_pixels(given, MOSAIC)[0, :, 2:30, 2:30]
    assert head.abs().max() < 0.02  # grey, not stripes


def test_resizing_is_within_one_level_of_pillow():
    pil = pytest.importorskip("PIL.Image")
    given = images(96)
    found = ((mosaic_pixels(given, MOSAIC)[0, :, :, :32] + 1) * 127.5).round().permute(1, 2, 0).numpy()
    wanted = np.asarray(pil.fromarray(given["head"]).resize((32, 32), pil.Resampling.BILINEAR), dtype=float)
    assert np.abs(found - wanted).max() <= 1


def test_read_only_images_are_taken_without_a_warning(recwarn):
    given = images()
    given["head"].flags.writeable = False
    mosaic_pixels(given, MOSAIC)
    assert not recwarn.list


def test_missing_camera_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match="unknown camera 'head'; did you mean 'hed'"):
        mosaic_pixels({"hed": images()["head"], "left_wrist": images()["left_wrist"]}, MOSAIC)


@pytest.mark.parametrize("wrong", [np.zeros((32, 32), np.uint8), np.zeros((32, 32, 3), np.float32)])
def test_wrong_shape_or_type_is_refused(wrong):
    with pytest.raises(ConfigError, match=r"camera 'head': expected uint8 RGB \[H, W, 3\], found"):
        mosaic_pixels({**images(), "head": wrong}, MOSAIC)


def test_result_is_ready_for_the_network():
    assert mosaic_pixels(images(), MOSAIC).dtype == torch.float32
