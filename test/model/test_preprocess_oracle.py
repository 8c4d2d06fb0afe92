# SPDX-License-Identifier: Apache-2.0
"""Resizing against a triangle filter written out in numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from imagewam_ros.core.contract import Mosaic, Tile
from imagewam_ros.model.preprocess import mosaic_pixels, resized_in_floats
from imagewam_ros.model.preprocess import resized as resized_bytes


def weights(source, target):
    """(target, source) antialiased bilinear weights: a triangle as wide as one target pixel, at least one source."""
    scale = source / target
    support = max(scale, 1.0)
    table = np.zeros((target, source))
    for i in range(target):
        centre = (i + 0.5) * scale
        low, high = max(int(centre - support + 0.5), 0), min(int(centre + support + 0.5), source)
        for j in range(low, high):
            table[i, j] = max(0.0, 1 - abs(j + 0.5 - centre) / support)
    return table / table.sum(1, keepdims=True)


def resized(image, height, width):
    rows, columns = weights(image.shape[0], height), weights(image.shape[1], width)
    return np.einsum("hy,yxc,wx->hwc", rows, image.astype(float), columns)


def found_in(image, height=32, width=48):
    pixels = mosaic_pixels({"head": image}, Mosaic(height, width, (Tile("head", 0, 0, height, width),)))
    return ((pixels[0] + 1) * 127.5).permute(1, 2, 0).numpy()


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@settings(max_examples=20)
@given(st.integers(8, 120), st.integers(8, 120), st.integers(0, 100))
def test_any_size_is_within_a_grey_level_of_the_filter(height, width, seed):
    """The library rounds weights to integers and once between the axes: one level, seldom two."""
    image = noise(height, width, seed)
    difference = np.abs(found_in(image) - resized(image, 32, 48))
    assert difference.max() <= 2.0 and difference.mean() < 0.5


@pytest.mark.parametrize("level", [0, 1, 127, 254, 255])
def test_a_flat_image_stays_flat(level):
    found = found_in(np.full((77, 91, 3), level, np.uint8))
    assert np.allclose(found, level, atol=1e-3)


def test_the_right_size_is_not_touched():
    image = noise(32, 48)
    assert np.array_equal(found_in(image).round().astype(np.uint8), image)


def test_mirrored_images_give_mirrored_pixels():
    image = noise(64, 96)
    assert np.abs(found_in(image[:, ::-1].copy()) - found_in(image)[:, ::-1]).max() <= 1


def test_channels_do_not_mix():
    image = np.zeros((50, 70, 3), np.uint8)
    image[..., 1] = noise(50, 70)[..., 0]
    found = found_in(image)
    assert (found[..., [0, 2]] == 0).all() and found[..., 1].std() > 0


def test_uint8_ends_map_to_minus_one_and_one():
    image = np.zeros((32, 48, 3), np.uint8)
    image[0, 0] = 255
    pixels = mosaic_pixels({"head": image}, Mosaic(32, 48, (Tile("head", 0, 0, 32, 48),)))
    assert pixels.min() == -1 and pixels.max() == 1 and pixels.dtype == torch.float32


def test_what_comes_in_is_not_changed():
    image = noise(40, 40)
    before = image.copy()
    found_in(image)
    assert np.array_equal(image, before)


def test_a_view_of_a_larger_picture_is_read_right():
    whole = noise(80, 100)
    part = whole[10:70:2, 5:95:3]
    assert np.array_equal(found_in(part), found_in(part.copy()))


@settings(max_examples=20)
@given(st.integers(8, 120), st.integers(8, 120), st.integers(0, 100))
def test_floats_are_within_one_level_of_bytes(height, width, seed):
    """What a GPU computes, on the CPU."""
    pixels = torch.from_numpy(noise(height, width, seed)).permute(2, 0, 1)
    found, wanted = resized_in_floats(pixels, 32, 48), resized_bytes(pixels, 32, 48)
    assert found.dtype == torch.uint8
    assert (found.int() - wanted.int()).abs().max() <= 1
