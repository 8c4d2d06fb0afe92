# SPDX-License-Identifier: Apache-2.0
"""The released models' mosaics: tiles inside, apart, and all covered but what is left black."""

from itertools import combinations

import numpy as np
import pytest

from imagewam_ros.core.errors import ConfigError
from imagewam_ros.model import layouts
from imagewam_ros.model.preprocess import mosaic_pixels

CAMERAS = ("head", "left_wrist", "right_wrist")


def made(layout):
    return layouts.mosaic(layout, CAMERAS[: len(layouts.LAYOUTS[layout][2])])


@pytest.mark.parametrize("layout", layouts.LAYOUTS)
def test_tiles_do_not_overlap_and_fill_the_mosaic(layout):
    mosaic = made(layout)
    covered = np.zeros((mosaic.height, mosaic.width), dtype=int)
    for tile in mosaic.tiles:
        covered[tile.row : tile.row + tile.height, tile.column : tile.column + tile.width] += 1
    assert (covered == 1).all()


@pytest.mark.parametrize("layout", layouts.LAYOUTS)
def test_the_name_says_the_size(layout):
    mosaic = made(layout)
    assert layout.endswith(f"_{mosaic.height}x{mosaic.width}")
    assert mosaic.height % 16 == mosaic.width % 16 == 0


@pytest.mark.parametrize("layout", layouts.LAYOUTS)
def test_each_camera_shows_in_its_own_tile_only(layout):
    mosaic = made(layout)
    black = {tile.camera: np.zeros((30, 40, 3), np.uint8) for tile in mosaic.tiles}
    for tile in mosaic.tiles:
        lit = mosaic_pixels({**black, tile.camera: np.full((30, 40, 3), 255, np.uint8)}, mosaic)[0, 0] > 0
        assert lit.sum() == tile.height * tile.width
        assert lit[tile.row : tile.row + tile.height, tile.column : tile.column + tile.width].all()


def test_wrists_of_the_dual_arm_layouts_are_equal_and_below_the_head():
    for layout in ("compact_288x256", "legacy_384x320"):
        head, left, right = made(layout).tiles
        assert (left.height, left.width) == (right.height, right.width)
        assert left.row == right.row == head.height and left.column < right.column


def test_cameras_keep_the_order_in_which_they_are_given():
    assert layouts.mosaic("libero_224x448", ("b", "a")).tiles[0].camera == "b"


def test_unknown_layout_names_the_nearest():
    with pytest.raises(ConfigError, match="unknown layout 'libero_224x44'; did you mean 'libero_224x448'"):
        layouts.mosaic("libero_224x44", CAMERAS)


@pytest.mark.parametrize(("layout", "count"), [("libero_224x448", 3), ("compact_288x256", 2)])
def test_other_number_of_cameras_is_refused(layout, count):
    tiles = len(layouts.LAYOUTS[layout][2])
    text = f"layout {layout} has {tiles} tiles, {count} cameras given: {', '.join(CAMERAS[:count])}"
    with pytest.raises(ConfigError, match=text):
        layouts.mosaic(layout, CAMERAS[:count])


def test_no_two_layouts_are_the_same():
    assert all(layouts.LAYOUTS[a] != layouts.LAYOUTS[b] for a, b in combinations(layouts.LAYOUTS, 2))
