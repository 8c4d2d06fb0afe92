# SPDX-License-Identifier: Apache-2.0
"""Normalisation inverts itself, and degenerate dimensions stay finite."""

import numpy as np
import pytest

from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.stats import CLAMP, MODES, Statistics, normaliser


@pytest.fixture
def samples() -> np.ndarray:
    values = np.random.default_rng(0).normal(2.0, [[1.0, 0.1, 5.0]], (400, 3))
    values[:, 1] = 0.3  # a joint that never moved
    return values


@pytest.mark.parametrize("mode", MODES)
def test_inverse_undoes_forward(mode: str, samples: np.ndarray) -> None:
    scale = normaliser(mode, Statistics.of(samples))
    inside = samples[np.abs(samples - samples.mean(0)).max(1) < 2]
    np.testing.assert_allclose(scale.inverse(scale.forward(inside)), inside, atol=1e-9)


@pytest.mark.parametrize("mode", MODES)
def test_a_constant_maps_to_zero_and_outliers_are_clamped(mode: str, samples: np.ndarray) -> None:
    scale = normaliser(mode, Statistics.of(samples))
    np.testing.assert_allclose(scale.forward(samples)[:, 1], 0.0, atol=1e-6)
    assert np.abs(scale.forward(samples * 1e6)).max() <= CLAMP


@pytest.mark.parametrize("mode", [*MODES, "-2.0/3.0"])
def test_modes_are_the_authors_scale_and_offset(mode: str, samples: np.ndarray) -> None:
    """x * scale + offset, cut at 5, written out from docs/model.md, section 5."""
    about = Statistics.of(samples)
    if mode == "zscore":
        scale, offset = 1 / (about.std + 1e-8), -about.mean / (about.std + 1e-8)
    else:
        known = {"minmax": (about.minimum, about.maximum), "quantile": (about.q01, about.q99)}
        low, high = known.get(mode, (np.full(3, -2.0), np.full(3, 3.0)))
        narrow = high - low < 1e-4
        scale = 2 / np.where(narrow, 2.0, high - low)
        offset = np.where(narrow, -low, -1 - scale * low)
    wide = samples * 3 - 1
    normalise = normaliser(mode, about)
    np.testing.assert_allclose(normalise.forward(wide), np.clip(wide * scale + offset, -5, 5), atol=1e-6)
    np.testing.assert_allclose(normalise.inverse(wide), (wide - offset) / scale, rtol=1e-6, atol=1e-6)


def test_minmax_spans_minus_one_to_one(samples: np.ndarray) -> None:
    scaled = normaliser("minmax", Statistics.of(samples)).forward(samples)[:, [0, 2]]
    np.testing.assert_allclose([scaled.min(0), scaled.max(0)], [[-1, -1], [1, 1]])


def test_file_round_trip_and_missing_fields(samples: np.ndarray) -> None:
    statistics = Statistics.of(samples)
    again = Statistics.from_dict(statistics.to_dict())
    np.testing.assert_array_equal(again.q99, statistics.q99)
    with pytest.raises(ConfigError, match="stats.json: missing minimum, maximum"):
        Statistics.from_dict({"mean": [], "std": [], "q01": [], "q99": []}, "stats.json")


def test_constant_range_is_the_same_for_every_dimension(samples: np.ndarray) -> None:
    scale = normaliser("-2.0/4.0", Statistics.of(samples))
    np.testing.assert_allclose(scale.forward(np.array([[-2.0, 1.0, 4.0]])), [[-1, 0, 1]])


@pytest.mark.parametrize("mode", ["tanh", "2/1", "1/1", "a/b"])
def test_range_that_is_none_is_an_unknown_mode(mode: str, samples: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="normalisation must be one of .*, found .*a range is low/high"):
        normaliser(mode, Statistics.of(samples))


def test_unknown_mode(samples: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="normalisation must be one of"):
        normaliser("tanh", Statistics.of(samples))
