# SPDX-License-Identifier: Apache-2.0
"""Masks of the task's objects are where the images show them."""

import numpy as np
import pytest

from imagewam_ros.core.errors import ConfigError
from imagewam_ros.sim.cell import Cell
from imagewam_ros.sim.gl import BACKEND

pytestmark = pytest.mark.skipif(BACKEND == "disable", reason="no EGL or OSMesa library for off-screen rendering")


@pytest.fixture
def blocks():
    cell = Cell(task="block_lift", randomise=False)
    cell.reset(0)
    yield cell
    cell.close()


def test_masks_lie_on_the_pixels_of_their_colour(blocks):
    image = blocks.render("head").astype(int)
    masks = blocks.segment("head")
    assert set(masks) == {"red_block", "blue_block"}
    for name, channel in (("red_block", 0), ("blue_block", 2)):
        mask = masks[name]
        assert mask.shape == image.shape[:2] and mask.sum() > 5
        others = np.delete(image, channel, 2).max(2)
        coloured = image[..., channel] > 1.3 * others
        assert coloured[mask].mean() > 0.8
        assert not (mask & masks["blue_block" if name == "red_block" else "red_block"]).any()


def test_masks_follow_the_object_and_leave_out_what_is_not_seen(blocks):
    before = blocks.snapshot()
    blocks.world.place("red_block", (0.35, 0.0, 0.03), 0.0)
    blocks.world.refresh()
    moved, there = blocks.segment("head")["red_block"], blocks.segment("head", before)["red_block"]
    assert moved.any() and not np.array_equal(moved, there)
    blocks.world.place("red_block", (0.3, 0.0, -0.5), 0.0)
    blocks.world.refresh()
    assert not blocks.segment("head")["red_block"].any(), "the table hides it"


def test_segmenting_changes_no_image(blocks):
    first = blocks.render("left_wrist")
    blocks.segment("left_wrist")
    assert np.array_equal(blocks.render("left_wrist"), first)
    with pytest.raises(ConfigError, match="unknown camera 'hed'; did you mean 'head'"):
        blocks.segment("hed")
