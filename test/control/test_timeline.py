# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from imagewam_ros.control.timeline import FINEST_NS, MergeConfig, Rows, Timeline, place
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.schema import ActionChunk

P = 50_000_000


def chunk(stamp: int, value: float, rows: int = 16, offset: float = 1.0, period: int = P) -> ActionChunk:
    positions = value + np.arange(rows, dtype=np.float64)[:, None] * 0.01
    return ActionChunk(stamp, period, ("a",), positions, first_row_offset_periods=offset)


def merged(timeline: Timeline, source: ActionChunk, now: int, config: MergeConfig) -> Timeline:
    horizon = source.due_ns(min(config.execute_horizon, source.rows - 1))
    return timeline.merge(place(source, source.positions), config, horizon, now)


def at(timeline: Timeline, time_ns: int) -> float:
    index = int(np.flatnonzero(timeline.rows.times_ns == time_ns)[0])
    return float(timeline.rows.positions[index, 0])


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_rows_are_placed_by_observation_time_and_offset(offset: float) -> None:
    rows = place(chunk(7 * P, 0.0, offset=offset), chunk(7 * P, 0.0).positions)
    assert rows.times_ns[0] == 7 * P + offset * P
    assert np.all(np.diff(rows.times_ns) == P)


def test_elapsed_rows_are_skipped_never_replayed() -> None:
    timeline = merged(Timeline.empty(1), chunk(0, 0.0), 4 * P + 1, MergeConfig(rule="latest"))
    assert timeline.rows.times_ns[0] == 5 * P
    assert at(timeline, 5 * P) == pytest.approx(0.04)


def test_latency_skip_passes_over_further_rows() -> None:
    config = MergeConfig(rule="latest", latency_skip_s=0.12)
    timeline = merged(Timeline.empty(1), chunk(0, 0.0), 4 * P, config)
    assert timeline.rows.times_ns[0] == 7 * P


def test_latest_wins_where_chunks_overlap_and_older_rows_stay_elsewhere() -> None:
    config = MergeConfig(rule="latest")
    timeline = merged(Timeline.empty(1), chunk(0, 0.0), 0, config)
    timeline = merged(timeline, chunk(4 * P, 1.0, rows=8), 4 * P, config)
    assert at(timeline, 5 * P) == 1.0
    assert at(timeline, 12 * P) == 1.07
    assert at(timeline, 13 * P) == pytest.approx(0.12)


def test_ensemble_weighs_by_age_of_the_chunk() -> None:
    config = MergeConfig(rule="ensemble", decay=0.5)
    timeline = Timeline.empty(1)
    for k, value in enumerate((0.0, 1.0, 2.0)):
        timeline = merged(timeline, chunk(4 * k * P, value), 4 * k * P, config)
    weights = np.exp([0.0, -0.5, -1.0])
    values = [0.09, 1.05, 2.01]
    assert at(timeline, 10 * P) == pytest.approx(np.dot(weights, values) / weights.sum())
    assert at(timeline, 20 * P) == pytest.approx((1.15 + 2.11 * np.exp(-0.5)) / (1 + np.exp(-0.5)))
    assert at(timeline, 24 * P) == pytest.approx(2.15)


def test_crossfade_goes_linearly_from_the_running_rows_to_the_new() -> None:
    config = MergeConfig(rule="crossfade", crossfade_s=0.2)
    timeline = merged(Timeline.empty(1), chunk(0, 0.0), 0, config)
    timeline = merged(timeline, chunk(4 * P, 1.0), 4 * P, config)
    for i in range(1, 5):
        old, new = (4 + i - 1) * 0.01, 1.0 + (i - 1) * 0.01
        assert at(timeline, (4 + i) * P) == pytest.approx(old + (new - old) * i / 4)
    assert at(timeline, 10 * P) == pytest.approx(1.05)


def test_execute_horizon_protects_the_running_chunk() -> None:
    config = MergeConfig(rule="latest", execute_horizon=8)
    timeline = merged(Timeline.empty(1), chunk(0, 0.0), 0, config)
    timeline = merged(timeline, chunk(4 * P, 1.0), 4 * P, config)
    assert at(timeline, 9 * P) == pytest.approx(0.08)
    assert at(timeline, 10 * P) == pytest.approx(1.05)
    timeline = merged(timeline, chunk(10 * P, 2.0), 10 * P, config)
    assert at(timeline, 12 * P) == pytest.approx(1.07)
    assert at(timeline, 14 * P) == pytest.approx(2.03)


def test_chunks_on_another_phase_agree_where_they_are_slices_of_one_motion() -> None:
    def wave(times_ns: np.ndarray) -> np.ndarray:
        return 0.3 * np.sin(3.0 * times_ns[:, None] * 1e-9)

    config, timeline = MergeConfig(decay=0.0), Timeline.empty(1)
    for stamp in (0, 4 * P + 17_000_000, 9 * P + 3_000_000):
        times = stamp + np.arange(1, 17) * P
        timeline = merged(timeline, ActionChunk(stamp, P, ("a",), wave(times)), stamp, config)
    assert np.abs(timeline.rows.positions - wave(timeline.rows.times_ns)).max() < 3e-5


def test_short_chunks_are_extended_and_fine_ones_thinned() -> None:
    single = place(chunk(0, 0.5, rows=1), chunk(0, 0.5, rows=1).positions)
    assert single.times_ns[-1] - single.times_ns[0] >= 300_000_000
    assert (single.positions == 0.5).all()
    fine = chunk(0, 0.0, rows=500, period=1_000_000)
    thinned = place(fine, fine.positions)
    assert np.diff(thinned.times_ns).min() >= FINEST_NS
    assert thinned.positions[-1, 0] == fine.positions[-1, 0]


def test_a_chunk_without_useful_rows_leaves_the_rest_of_the_plan() -> None:
    config = MergeConfig(rule="latest", latency_skip_s=2.0)
    timeline = merged(Timeline.empty(1), chunk(0, 0.0), 0, MergeConfig(rule="latest"))
    assert merged(timeline, chunk(P, 1.0), P, config).rows.times_ns.size == 15


def test_rows_at_interpolate_by_a_cubic() -> None:
    times = np.arange(6) * P
    cubic = (np.arange(6) ** 3)[:, None] * 1.0
    found = Rows(times, cubic).at(np.array([P // 2, 5 * P // 2, 9 * P // 2]))
    assert np.allclose(found[:, 0], [0.125, 2.5**3, 4.5**3])


def test_unknown_rule_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown merge rule 'ensembel'; did you mean 'ensemble'"):
        MergeConfig(rule="ensembel")


def test_negative_parameters_are_refused() -> None:
    with pytest.raises(ConfigError, match="crossfade_s must be positive, execute_horizon and latency_skip_s not neg"):
        MergeConfig(execute_horizon=-1)
