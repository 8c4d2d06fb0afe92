# SPDX-License-Identifier: Apache-2.0
"""Visual tokenizer of Ovis-U1: sizes within bounds, merge order, rotary positions, probabilities."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from imagewam_ros.model.ovis_vision import (
    CLIP_MEAN,
    CLIP_STD,
    INDICATORS,
    MERGE,
    VisionConfig,
    VisualTokenizer,
    merge_order,
    patchify,
    resized_size,
    rotary,
    rotate_halves,
)

CPU = torch.device("cpu")
SMALL = VisionConfig(
    vocab=20, hidden=16, inner=16, layers=2, heads=2, image_size=28, patch=7, min_pixels=784, max_pixels=3136
)
cheap = settings(max_examples=25, deadline=None)


@pytest.fixture(scope="module")
def tokenizer():
    torch.manual_seed(0)
    built = VisualTokenizer(SMALL).eval().requires_grad_(False)
    torch.nn.init.normal_(built.backbone.preprocessor.pos_embed)
    return built


def scan(features):
    """Tokens of (B, C, rows, columns) by plain loops: blocks of MERGE x MERGE, row by row, in and outside."""
    _, _, rows, columns = features.shape
    places = [
        (row + i, column + j)
        for row in range(0, rows, MERGE)
        for column in range(0, columns, MERGE)
        for i in range(MERGE)
        for j in range(MERGE)
    ]
    return torch.stack([features[:, :, row, column] for row, column in places], 1), places


@cheap
@given(st.integers(56, 4000), st.integers(56, 4000), st.sampled_from([14, 28]))
def test_resized_size_is_a_multiple_within_the_bounds(height, width, factor):
    least, most = 200704, 2408448
    rows, columns = resized_size(height, width, factor, least, most)
    assert rows % factor == 0 and columns % factor == 0
    assert least <= rows * columns <= most


@cheap
@given(st.integers(17, 55), st.integers(17, 55))
def test_size_within_the_bounds_is_kept_when_it_is_a_multiple(rows, columns):
    size = (28 * rows, 28 * columns)
    assert resized_size(*size, 28, 200704, 2408448) == size


@cheap
@given(st.integers(100, 3000), st.integers(100, 3000))
def test_transposed_image_gets_the_transposed_size(height, width):
    bounds = (28, 200704, 2408448)
    assert resized_size(height, width, *bounds) == resized_size(width, height, *bounds)[::-1]


@cheap
@given(st.integers(1, 2), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))
def test_merge_order_reads_block_by_block(samples, channels, rows, columns):
    shape = (samples, channels, MERGE * rows, MERGE * columns)
    features = torch.arange(math.prod(shape)).reshape(shape)
    assert torch.equal(merge_order(features), scan(features)[0])


def test_patches_hold_the_normalised_pixels_of_their_place():
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 28, 42, generator=generator) * 2 - 1
    patches, grid = patchify(image, SMALL)
    assert grid == (4, 6) and patches.shape == (1, 24, 3 * 7 * 7)
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (CLIP_MEAN, CLIP_STD))
    pixels = (image[0] / 2 + 0.5 - mean) / std
    _, places = scan(torch.zeros(1, 1, *grid))
    for patch, (row, column) in zip(patches[0], places, strict=True):
        own = pixels[:, 7 * row : 7 * row + 7, 7 * column : 7 * column + 7]
        assert torch.allclose(patch.view(3, 7, 7), own, atol=1e-5)


@pytest.mark.parametrize("level", [-1.0, 1.0])
def test_plain_image_stays_plain_through_the_resize(level):
    patches, _ = patchify(torch.full((1, 3, 300, 100), level), SMALL)
    expected = [((level + 1) / 2 - mean) / std for mean, std in zip(CLIP_MEAN, CLIP_STD, strict=True)]
    assert torch.allclose(patches[0].view(-1, 3, 49).mean((0, 2)), torch.tensor(expected), atol=1e-4)
    assert patches[0].view(-1, 3, 49).std((0, 2)).max() < 1e-4


def test_patches_keep_the_dtype_of_the_image():
    assert patchify(torch.zeros(1, 3, 28, 28, dtype=torch.bfloat16), SMALL)[0].dtype == torch.bfloat16


def test_rotary_angles_are_row_then_column():
    cos, sin = rotary((4, 6), 8, CPU)
    assert cos.shape == sin.shape == (24, 8)
    _, places = scan(torch.zeros(1, 1, 4, 6))
    for k, (row, column) in enumerate(places):
        angles = torch.tensor([row, row / 100, column, column / 100] * 2)
        assert torch.allclose(cos[k], angles.cos(), atol=1e-5)
        assert torch.allclose(sin[k], angles.sin(), atol=1e-5)


@cheap
@given(st.integers(0, 1000))
def test_rotation_keeps_lengths_and_relative_scores(seed):
    generator = torch.Generator().manual_seed(seed)
    cos, sin = rotary((4, 4), 8, CPU)
    query, key = (torch.randn(8, generator=generator).expand(1, 1, 16, 8) for _ in range(2))
    turned = rotate_halves(query, cos, sin)
    assert torch.allclose(turned.norm(dim=-1), query.norm(dim=-1), atol=1e-5)
    scores = (turned @ rotate_halves(key, cos, sin).mT)[0, 0]
    # Within a block and within the next one the places lie alike.
    assert torch.allclose(scores[0:4, 0:4], scores[4:8, 4:8], atol=1e-4)


@cheap
@given(st.integers(0, 1000))
def test_probabilities_sum_to_one_and_leave_the_indicators_out(tokenizer, seed):
    features = torch.randn(1, 3, MERGE**2 * SMALL.hidden, generator=torch.Generator().manual_seed(seed))
    found = tokenizer.probabilities(features)
    assert found.shape == (1, 3, SMALL.vocab)
    assert torch.equal(found[..., -INDICATORS:], torch.zeros(1, 3, INDICATORS))
    assert torch.allclose(found.sum(-1), torch.ones(1, 3), atol=1e-5) and (found >= 0).all()


def test_images_of_a_batch_do_not_see_each_other(tokenizer):
    images = torch.rand(3, 3, 28, 42, generator=torch.Generator().manual_seed(1)) * 2 - 1
    together = tokenizer(images)
    assert together.shape == (3, 6, SMALL.vocab)
    assert torch.allclose(together, torch.cat([tokenizer(x[None]) for x in images]), atol=1e-6)
    assert not torch.allclose(together[0], together[1], atol=1e-4)


def test_position_embedding_of_the_own_size_is_not_resized(tokenizer):
    own = tokenizer.backbone.preprocessor
    patches = torch.zeros(1, 16, 3 * 49)
    added = own(patches, (4, 4)) - own.patchifier(patches)
    square = own.pos_embed.unflatten(1, (4, 4)).permute(0, 3, 1, 2)
    assert torch.allclose(added, merge_order(square), atol=1e-5)
    larger = own(torch.zeros(1, 32, 3 * 49), (4, 8)) - own.patchifier(torch.zeros(1, 32, 3 * 49))
    resized = F.interpolate(square, (4, 8), mode="bicubic", align_corners=False)
    assert torch.allclose(larger, merge_order(resized), atol=1e-5)
