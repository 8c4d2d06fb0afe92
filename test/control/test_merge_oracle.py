# SPDX-License-Identifier: Apache-2.0
"""The merge rules against a plain book of rows: one dictionary entry per time, one time after another."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from imagewam_ros.control.timeline import KEPT_CHUNKS, RULES, MergeConfig, Rows, Timeline

P = 50_000_000


class Book:
    """What the module's text says, without arrays."""

    def __init__(self, config):
        self.config, self.rows, self.chunks = config, {}, []
        self.running = self.following = None

    def merge(self, chunk, horizon_end, now):
        start = now + round(self.config.latency_skip_s * 1e9)
        if self.config.execute_horizon:
            if self.running is not None and now >= self.running:
                self.running, self.following = self.following, None
            if self.running is None or now >= self.running:
                self.running, self.following = horizon_end, None
            else:
                start, self.following = max(start, self.running), horizon_end
        self.chunks = [*self.chunks, chunk][-KEPT_CHUNKS:]
        old, fresh = self.rows, [t for t in chunk if t > start]
        self.rows = {t: p for t, p in old.items() if t > now}
        self.rows |= {t: self.value(t, old, chunk, now) for t in fresh}

    def value(self, t, old, chunk, now):
        if self.config.rule == "latest":
            return chunk[t]
        if self.config.rule == "crossfade":
            share = min(1.0, max(0.0, (t - now) / 1e9 / self.config.crossfade_s)) if t in old else 1.0
            return chunk[t] if share == 1.0 else old[t] * (1 - share) + chunk[t] * share
        said = [one[t] for one in self.chunks if t in one]
        weights = [math.exp(-self.config.decay * i) for i in range(len(said))]
        return sum(w * p for w, p in zip(weights, said, strict=True)) / sum(weights)


@settings(max_examples=40)
@given(
    st.sampled_from(RULES),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2 * P), st.integers(8, 16)), min_size=1, max_size=14),
    st.integers(0, 6),
    st.sampled_from([0.0, 0.06, 0.1]),
    st.sampled_from([-1.0, 0.0, 0.01, 0.5]),
    st.sampled_from([0.01, 0.2, 0.4]),
)
def test_rows_are_those_of_the_book(rule, arrivals, horizon, skip_s, decay, crossfade_s):
    """Chunks of 8 to 16 rows on one grid, each 0 to 3 periods after the last, arriving up to two periods late."""
    config = MergeConfig(rule, decay, crossfade_s, horizon, skip_s)
    book, timeline, stamp, now = Book(config), Timeline.empty(1), 0, 0
    for number, (later, delay, length) in enumerate(arrivals):
        stamp += later * P
        now = max(now, stamp + delay)
        times = stamp + np.arange(1, length + 1) * P
        positions = np.sin(np.arange(length) + 3.0 * number)[:, None]
        end = int(times[horizon])
        timeline = timeline.merge(Rows(times, positions), config, end, now)
        book.merge(dict(zip(times.tolist(), positions[:, 0].tolist(), strict=True)), end, now)
        assert timeline.rows.times_ns.tolist() == sorted(book.rows)
        np.testing.assert_allclose(timeline.rows.positions[:, 0], [book.rows[t] for t in sorted(book.rows)], atol=1e-12)


@given(st.lists(st.integers(0, 30), unique=True, max_size=12).map(sorted), st.integers(-2, 32))
def test_after_and_until_part_the_rows(times, cut):
    rows = Rows(np.array(times, np.int64), np.array(times, float)[:, None])
    assert rows.until(cut).times_ns.tolist() == [t for t in times if t <= cut]
    assert rows.after(cut).positions[:, 0].tolist() == [t for t in times if t > cut]
    inside = bool(times) and times[0] <= cut <= times[-1]
    assert rows.covers(np.array([cut])).tolist() == [inside]
