# SPDX-License-Identifier: Apache-2.0
"""Statistics against numpy on the values themselves, for any numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from imagewam_ros.core.stats import Statistics
from imagewam_ros.data.dataset import Dataset, Demonstration
from imagewam_ros.data.lerobot_stats import (
    PIXEL_STEP,
    QUANTILES,
    authors_statistics,
    histogram,
    image_statistics,
    own_statistics,
    vector_statistics,
    windows,
)

ROWS = hnp.arrays(np.float64, st.tuples(st.integers(1, 20), st.integers(1, 4)), elements=st.floats(-9, 9, width=32))


@given(ROWS)
def test_vectors(rows):
    found = vector_statistics(rows)
    assert found["count"] == [len(rows)]
    assert np.allclose(found["mean"], rows.mean(0)) and np.allclose(found["std"], rows.std(0))
    assert found["min"] == rows.min(0).tolist() and found["max"] == rows.max(0).tolist()
    for name, q in QUANTILES.items():
        assert np.allclose(found[name], np.quantile(rows, q, axis=0))


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=20))
def test_scalars_are_one_dim(values):
    assert vector_statistics(np.array(values))["mean"] == pytest.approx([np.mean(values)])


@given(st.integers(1, 4), st.integers(4, 17), st.integers(4, 17), st.integers(0, 99))
def test_images_equal_their_sampled_pixels(count, height, width, seed):
    images = list(np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8))
    pixels = np.concatenate([i[::PIXEL_STEP, ::PIXEL_STEP].reshape(-1, 3) for i in images]) / 255
    found = image_statistics(histogram(images), count)
    for name, wanted in (
        ("mean", pixels.mean(0)),
        ("std", pixels.std(0)),
        ("min", pixels.min(0)),
        ("max", pixels.max(0)),
    ):
        assert np.shape(found[name]) == (3, 1, 1)
        assert np.allclose(np.ravel(found[name]), wanted, atol=1e-9), name
    assert found["count"] == [count]
    for name, q in QUANTILES.items():
        wanted = np.quantile(pixels, q, axis=0, method="inverted_cdf")
        assert np.allclose(np.ravel(found[name]), wanted, atol=1e-9), name


@given(st.integers(2, 6), st.integers(1, 5), st.integers(0, 99))
def test_histograms_of_parts_add_up(count, at, seed):
    images = list(np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8))
    at = min(at, count - 1)
    assert np.array_equal(histogram(images), histogram(images[:at]) + histogram(images[at:]))


@given(ROWS, st.integers(1, 8))
def test_windows_hold_what_follows(rows, length):
    found = windows(rows, length)
    assert found.shape == (len(rows), length, rows.shape[1])
    for frame in range(len(rows)):
        for step in range(length):
            assert np.array_equal(found[frame, step], rows[min(frame + step, len(rows) - 1)])


@given(ROWS)
def test_one_episode_weighs_as_pooled(rows):
    """With a single episode and windows of one the authors' mean and extremes are the plain ones."""
    found = authors_statistics([rows], [rows], horizon=1)["state"]["default"]
    assert np.allclose(found["global_mean"], rows.mean(0))
    assert found["global_min"] == rows.min(0).tolist() and found["global_max"] == rows.max(0).tolist()
    assert np.allclose(found["global_std"], rows.std(0, ddof=min(1, len(rows) - 1)))
    assert np.allclose(found["global_q99"], np.quantile(rows, 0.99, axis=0))


def test_long_episodes_do_not_drown_short_ones():
    short, long = np.zeros((2, 1)), np.ones((1000, 1))
    found = authors_statistics([short, long], [short, long], horizon=1)
    assert found["state"]["default"]["global_mean"] == [0.5]
    assert found["num_episodes"] == 2 and found["num_transition"] == 1002
    pooled = own_statistics([short, long], [short, long])["state"]["mean"]
    assert pooled == pytest.approx([1000 / 1002])


@given(ROWS)
def test_our_layout_reads_back(rows):
    found = own_statistics([rows], [rows + 1])
    assert np.allclose(Statistics.from_dict(found["action"]).mean, rows.mean(0) + 1)
    assert set(found) == {"state", "action"}


@given(st.lists(st.integers(1, 7), min_size=1, max_size=4), st.integers(1, 6), st.booleans())
def test_chunks_of_a_data_set_are_windows_of_each_demonstration(lengths, horizon, relative):
    rng = np.random.default_rng(sum(lengths))
    parts = [
        Demonstration(str(i), "w", 0, rng.normal(size=(n, 2)), rng.normal(size=(n, 2))) for i, n in enumerate(lengths)
    ]
    dataset = Dataset(parts, horizon, (relative, False))
    chunks, past_end = dataset.chunks(np.arange(len(dataset)))
    wanted = np.concatenate([windows(part.actions, horizon) for part in parts])
    wanted = wanted - np.concatenate([part.positions for part in parts])[:, None] * [relative, False]
    assert np.allclose(chunks, wanted)
    left = np.concatenate([np.arange(n, 0, -1) for n in lengths])
    assert np.array_equal(past_end, np.arange(horizon)[None] >= left[:, None])
    assert [dataset.of([i]).size for i in range(len(parts))] == lengths
    assert (dataset.owner[dataset.future(np.arange(len(dataset)))] == dataset.owner).all()
