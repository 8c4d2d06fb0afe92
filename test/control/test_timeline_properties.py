# SPDX-License-Identifier: Apache-2.0
"""Merging for any chunks: bounded, ordered, indifferent to when time began, exact where chunks agree."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagewam_ros.control.timeline import FINEST_NS, RULES, SHORTEST_NS, MergeConfig, Rows, Timeline, place
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.schema import ActionChunk

MS = 1_000_000
PERIOD = 50 * MS
SEEDS = st.integers(0, 10_000)


def chunk(stamp_ns, positions, period_ns=PERIOD, offset=1.0):
    return ActionChunk(stamp_ns, period_ns, ("a", "b"), positions, first_row_offset_periods=offset)


def stream(seed, count=5):
    """Chunks of eight rows with their arrival times, observations 100 to 250 ms apart."""
    rng = np.random.default_rng(seed)
    stamp, found = 10**9, []
    for _ in range(count):
        made = chunk(stamp, rng.uniform(-1, 1, (8, 2)))
        found.append((stamp + int(rng.integers(20, 200)) * MS, place(made, made.positions)))
        stamp += int(rng.integers(100, 250)) * MS
    return found


def play(chunks, config, shift_ns=0):
    timeline = Timeline.empty(2)
    for now_ns, rows in chunks:
        moved = Rows(rows.times_ns + shift_ns, rows.positions)
        end = int(moved.times_ns[min(config.execute_horizon, len(moved.times_ns) - 1)])
        timeline = timeline.merge(moved, config, end, now_ns + shift_ns)
    return timeline


@settings(max_examples=25)
@given(SEEDS, st.sampled_from(RULES), st.integers(0, 4))
def test_rows_are_in_order_and_inside_what_the_chunks_span(seed, rule, horizon):
    chunks = stream(seed)
    rows = play(chunks, MergeConfig(rule=rule, execute_horizon=horizon)).rows
    assert (np.diff(rows.times_ns) > 0).all()
    assert np.isfinite(rows.positions).all()
    most = max(np.abs(part.positions).max() for _, part in chunks)
    slack = 1.0 if rule == "latest" else 1.5  # the cubic between rows may pass them a little
    assert np.abs(rows.positions).max() <= slack * most + 1e-9


@settings(max_examples=25)
@given(SEEDS, st.sampled_from(RULES))
def test_nothing_of_the_past_comes_back(seed, rule):
    chunks = stream(seed)
    timeline = play(chunks, MergeConfig(rule=rule))
    assert timeline.rows.times_ns.min(initial=2**62) > chunks[-1][0]


@settings(max_examples=25)
@given(SEEDS, st.sampled_from(RULES), st.integers(0, 10**18))
def test_only_differences_of_time_matter(seed, rule, shift_ns):
    config, chunks = MergeConfig(rule=rule), stream(seed)
    here, there = play(chunks, config), play(chunks, config, shift_ns)
    assert np.array_equal(here.rows.times_ns + shift_ns, there.rows.times_ns)
    assert np.allclose(here.rows.positions, there.rows.positions, atol=1e-9)


@settings(max_examples=25)
@given(SEEDS, st.sampled_from(RULES), st.floats(-2, 2))
def test_chunks_that_agree_are_played_as_they_are(seed, rule, decay):
    """Rows sampled from one line: whatever the rule and the weights, the line comes out."""
    rng = np.random.default_rng(seed)
    slope, chunks = rng.uniform(-1, 1, 2), []
    for i in range(4):
        stamp = 10**9 + i * 3 * PERIOD
        due = (np.arange(8) + 1) * PERIOD + stamp
        made = chunk(stamp, due[:, None] / 1e9 * slope)
        chunks.append((stamp + 60 * MS, place(made, made.positions)))
    rows = play(chunks, MergeConfig(rule=rule, decay=decay)).rows
    assert np.allclose(rows.positions, rows.times_ns[:, None] / 1e9 * slope, atol=1e-6)


@settings(max_examples=25)
@given(SEEDS)
def test_latest_is_the_newest_chunk(seed):
    chunks = stream(seed)
    now_ns, newest = chunks[-1]
    rows, wanted = play(chunks, MergeConfig(rule="latest")).rows, newest.after(now_ns)
    index = np.searchsorted(rows.times_ns, wanted.times_ns)
    assert np.array_equal(rows.positions[index], wanted.positions)


@settings(max_examples=25)
@given(SEEDS, st.sampled_from(RULES))
def test_a_first_chunk_is_played_as_it_is(seed, rule):
    ((now_ns, rows),) = stream(seed, count=1)
    merged, wanted = play([(now_ns, rows)], MergeConfig(rule=rule)).rows, rows.after(now_ns)
    assert np.array_equal(merged.times_ns, wanted.times_ns)
    assert np.allclose(merged.positions, wanted.positions)


@settings(max_examples=25)
@given(st.integers(1, 30), st.integers(1, 120), st.floats(0, 2))
def test_placed_rows_are_long_enough_and_no_finer_than_needed(count, period_ms, offset):
    positions = np.arange(2.0 * count).reshape(count, 2)
    made = chunk(10**9, positions, period_ms * MS, offset)
    rows = place(made, positions)
    assert rows.times_ns[-1] - rows.times_ns[0] >= min(SHORTEST_NS, rows.times_ns[-1] - rows.times_ns[0])
    assert (np.diff(rows.times_ns) >= FINEST_NS).all()
    assert np.array_equal(rows.positions[-1], positions[-1]), "the last row is never thinned away"
    for time_ns, position in zip(rows.times_ns, rows.positions, strict=True):
        if time_ns <= made.due_ns(count - 1):
            row = round((time_ns - made.due_ns(0)) / made.period_ns)
            assert np.array_equal(position, positions[row])


@settings(max_examples=25)
@given(SEEDS)
def test_cubic_between_rows_is_exact_for_cubics(seed):
    rng = np.random.default_rng(seed)
    polynomials = [np.polynomial.Polynomial(rng.uniform(-1, 1, 4)) for _ in range(2)]
    times = np.arange(10, dtype=np.int64) * PERIOD

    def at(times_ns):
        return np.stack([p(times_ns * 1e-9) for p in polynomials], axis=1)

    between = np.sort(rng.integers(0, 9 * PERIOD, 20))
    assert np.allclose(Rows(times, at(times)).at(between), at(between), atol=1e-9)


def test_outside_the_rows_the_ends_are_held():
    rows = Rows(np.arange(5, dtype=np.int64) * PERIOD, np.arange(10.0).reshape(5, 2))
    assert np.array_equal(rows.at(np.array([-PERIOD, 99 * PERIOD])), rows.positions[[0, -1]])
    assert rows.covers(np.array([-1, 0, 4 * PERIOD, 4 * PERIOD + 1])).tolist() == [False, True, True, False]
    assert not Rows(times_ns=np.zeros(0, np.int64), positions=np.zeros((0, 2))).covers(np.array([0])).any()


@settings(max_examples=25)
@given(SEEDS, st.integers(0, 10 * 10**9))
def test_after_and_until_part_the_rows(seed, at_ns):
    rows = stream(seed, count=1)[0][1]
    earlier, later = rows.until(at_ns), rows.after(at_ns)
    assert np.array_equal(np.concatenate([earlier.times_ns, later.times_ns]), rows.times_ns)
    assert (earlier.times_ns <= at_ns).all() and (later.times_ns > at_ns).all()


@pytest.mark.parametrize("change", [{"crossfade_s": 0.0}, {"execute_horizon": -1}, {"latency_skip_s": -0.1}])
def test_impossible_numbers_are_refused(change):
    with pytest.raises(ConfigError, match="crossfade_s must be positive, execute_horizon and latency_skip_s not neg"):
        MergeConfig(**change)
