# SPDX-License-Identifier: Apache-2.0
"""Normalisation of any data: affine, bounded, and undone exactly where nothing was clamped."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from imagewam_ros.core.schema import frozen
from imagewam_ros.core.stats import CLAMP, DEGENERATE_RANGE, MODES, Normaliser, Statistics, normaliser

ROWS = hnp.arrays(np.float64, st.tuples(st.integers(2, 30), st.integers(1, 5)), elements=st.floats(-50, 50, width=32))


@settings(max_examples=25)
@given(ROWS, st.sampled_from(MODES))
def test_forward_is_finite_and_clamped(rows, mode):
    scaled = normaliser(mode, Statistics.of(rows)).forward(rows)
    assert np.isfinite(scaled).all() and np.abs(scaled).max() <= CLAMP


@settings(max_examples=25)
@given(ROWS, st.sampled_from(MODES))
def test_inverse_undoes_forward_where_nothing_was_clamped(rows, mode):
    scale = normaliser(mode, Statistics.of(rows))
    scaled = scale.forward(rows)
    kept = np.abs(scaled) < CLAMP
    assert np.allclose(scale.inverse(scaled)[kept], rows[kept], atol=1e-6)


@settings(max_examples=25)
@given(ROWS)
def test_minmax_keeps_the_data_within_one(rows):
    scaled = normaliser("minmax", Statistics.of(rows)).forward(rows)
    assert np.abs(scaled).max() <= 1 + 1e-9
    wide = np.ptp(rows, axis=0) >= DEGENERATE_RANGE
    assert np.allclose(scaled.max(0)[wide], 1) and np.allclose(scaled.min(0)[wide], -1)


@settings(max_examples=25)
@given(ROWS)
def test_forward_keeps_the_order(rows):
    for mode in MODES:
        scaled = normaliser(mode, Statistics.of(rows)).forward(rows)
        for column in range(rows.shape[1]):
            order = np.argsort(rows[:, column], kind="stable")
            assert (np.diff(scaled[order, column]) >= -1e-12).all()


@settings(max_examples=25)
@given(ROWS)
def test_statistics_are_ordered_and_survive_json(rows):
    found = Statistics.of(rows)
    for low, high in (("minimum", "q01"), ("q01", "q99"), ("q99", "maximum")):
        assert (getattr(found, low) <= getattr(found, high) + 1e-9).all()
    assert (found.minimum <= found.mean + 1e-6).all() and (found.mean <= found.maximum + 1e-6).all()
    again = Statistics.from_dict(json.loads(json.dumps(found.to_dict())))
    for name in Statistics.__dataclass_fields__:
        assert np.array_equal(getattr(again, name), getattr(found, name))


@pytest.mark.parametrize("mode", MODES)
def test_any_leading_axes(mode):
    rows = np.random.default_rng(0).normal(size=(40, 3))
    scale = normaliser(mode, Statistics.of(rows))
    chunk = rows.reshape(5, 8, 3)
    assert np.allclose(scale.forward(chunk).reshape(40, 3), scale.forward(rows))
    assert np.allclose(scale.inverse(chunk[0, 0]), scale.inverse(rows)[0])


def test_zscore_has_no_mean_and_unit_deviation():
    rows = np.random.default_rng(1).normal(3.0, 2.0, (500, 2))
    scaled = normaliser("zscore", Statistics.of(rows)).forward(rows)
    assert np.allclose(scaled.mean(0), 0, atol=1e-9) and np.allclose(scaled.std(0), 1, atol=1e-6)


def test_quantiles_ignore_a_few_outliers():
    rows = np.linspace(-1, 1, 1001)[:, None].copy()
    plain = normaliser("quantile", Statistics.of(rows))
    rows[0], rows[-1] = -1000, 1000
    spoiled = normaliser("quantile", Statistics.of(rows))
    assert np.allclose(plain.divisor, spoiled.divisor, rtol=1e-2)
    assert normaliser("minmax", Statistics.of(rows)).divisor > 100 * plain.divisor


@pytest.mark.parametrize(("width", "degenerate"), [(0.5 * DEGENERATE_RANGE, True), (2 * DEGENERATE_RANGE, False)])
def test_narrow_ranges_have_no_scale(width, degenerate):
    rows = np.array([[1.0], [1.0 + width]])
    for mode in ("minmax", "quantile"):
        assert (normaliser(mode, Statistics.of(rows)).divisor[0] == 1.0) == degenerate


def test_nothing_is_clamped_on_the_way_back():
    scale = Normaliser(np.zeros(1), np.ones(1))
    assert scale.inverse(np.array([50.0]))[0] == 50.0


def test_values_are_read_only_copies():
    rows = np.arange(6.0).reshape(3, 2)
    found = Statistics.of(rows)
    rows[:] = 99
    assert found.maximum.tolist() == [4.0, 5.0]
    with pytest.raises(ValueError, match="read-only"):
        found.mean[0] = 1.0
    with pytest.raises(ValueError, match=r"expected 1 dimensions, found shape \(3, 2\)"):
        frozen(rows, 1)
