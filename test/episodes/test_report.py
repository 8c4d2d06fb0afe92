# SPDX-License-Identifier: Apache-2.0
"""Figures of streams, holes and idle stretches, for any stamps; counts of a recording."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagewam_ros.data.bag_counts import Counts
from imagewam_ros.data.report import (
    GAP,
    EpisodeReport,
    StreamReport,
    nonidle_ranges,
    segments,
    stream_report,
    summary,
    table,
)

PERIOD = 50_000_000
STAMPS = st.lists(st.integers(1, 10), min_size=0, max_size=30).map(
    lambda steps: np.concatenate([[0], np.cumsum(steps)]).astype(np.int64) * PERIOD
)


@given(STAMPS)
def test_segments_cover_all_frames_once_and_hold_no_hole(stamps):
    found = segments(stamps, PERIOD)
    assert [row for start, end in found for row in range(start, end)] == list(range(len(stamps)))
    for start, end in found:
        assert (np.diff(stamps[start:end]) <= GAP * PERIOD).all()
    for (_, end), (start, _) in pairwise(found):
        assert end == start and stamps[start] - stamps[end - 1] > GAP * PERIOD


@given(st.integers(2, 50), st.integers(1, 200))
def test_a_steady_stream_has_its_rate_and_nothing_else(count, period_ms):
    found = stream_report(np.arange(count, dtype=np.int64) * period_ms * 1_000_000)
    assert found.rate_hz == pytest.approx(1000 / period_ms, abs=1e-3)
    assert (found.messages, found.jitter_ms, found.gaps) == (count, 0.0, 0)
    assert found.longest_gap_ms == period_ms


@given(st.integers(5, 50), st.data())
def test_every_lost_message_of_a_steady_stream_is_a_gap(count, data):
    lost = data.draw(st.integers(2, count - 2))
    stamps = np.delete(np.arange(count + 4, dtype=np.int64) * PERIOD, lost)
    found = stream_report(stamps)
    assert found.gaps == 1 and found.longest_gap_ms == pytest.approx(100)


@given(STAMPS, st.integers(0, 2 * 10**18))
def test_only_differences_of_time_matter(stamps, shift):
    assert stream_report(stamps) == stream_report(stamps + shift)
    assert segments(stamps, PERIOD) == segments(stamps + shift, PERIOD)


MOVES = st.lists(st.sampled_from([0.0, 0.0, 0.0, 0.05, 0.2]), min_size=1, max_size=40)


@given(MOVES, st.integers(1, 6))
def test_what_is_dropped_is_idle_and_long_and_not_the_end(moves, shortest):
    path = np.cumsum(moves)[:, None] * [1.0, -0.5]
    kept = nonidle_ranges(path, path, 1e-3, shortest)
    rows = {row for start, end in kept for row in range(start, end)}
    dropped = sorted(set(range(len(path))) - rows)
    steps = np.append(np.abs(np.diff(path, axis=0)).max(1, initial=0), 1.0)
    assert all(steps[row] <= 1e-3 for row in dropped)
    assert len(path) - 1 in rows, "the last frame always stays"
    runs = np.split(np.array(dropped), np.flatnonzero(np.diff(dropped) > 1) + 1) if dropped else []
    assert all(len(run) >= shortest for run in runs)
    assert all(start < end for start, end in kept) and all(a[1] < b[0] for a, b in pairwise(kept))


@given(MOVES)
def test_a_gripper_that_closes_is_not_idle(moves):
    """The target moves while the joints stand: both count."""
    actions = np.cumsum(moves)[:, None]
    still = np.zeros_like(actions)
    moving = nonidle_ranges(still, actions, 1e-3, 2)
    assert moving == nonidle_ranges(actions, actions, 1e-3, 2) == nonidle_ranges(actions, still, 1e-3, 2)


def report(name, reason="", frames=10, **streams):
    return EpisodeReport(name, reason=reason, frames=frames, streams=streams)


def test_summary_counts_what_was_accepted():
    found = summary([report("a"), report("b", "no instruction", 7), report("c", frames=5)])
    assert (found["episodes"], found["accepted"], found["rejected"], found["frames"]) == (3, 2, 1, 15)
    assert [detail["accepted"] for detail in found["details"]] == [True, False, True]
    assert found["details"][1]["reason"] == "no instruction"


def test_table_shows_the_slowest_stream_the_worst_jitter_and_the_verdict():
    streams = {"head": StreamReport(30, 20.0, 1.5, 1, 100.0), "joints": StreamReport(300, 200.0, 0.2, 2, 40.0)}
    lines = table([report("good", **streams), report("bad", "frames are 33.3 ms apart")]).splitlines()
    assert len(lines) == 3 and lines[0].endswith("verdict")
    assert lines[1].split() == ["good", "10", "20.0", "1.5", "3", "100ms", "0", "accepted"]
    assert lines[2].endswith("frames are 33.3 ms apart") and lines[2].split()[2] == "0.0"


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=30))
def test_counts_of_arrivals(steps):
    counts, times = Counts(), np.cumsum(steps).tolist()
    for number, log_ns in enumerate(times, start=1):
        counts.arrive(log_ns, number)
    assert (counts.received, counts.lost) == (len(steps), 0)
    assert counts.longest_gap_ns == max(steps[1:], default=0)
    if len(steps) > 1:
        rate = (len(steps) - 1) / ((times[-1] - times[0]) / 1e9)
        assert counts.to_dict()["rate_hz"] == pytest.approx(rate, rel=1e-3, abs=1e-3)


@given(st.sets(st.integers(1, 60), min_size=1))
def test_lost_messages_are_the_missing_numbers(numbers):
    """Between the first and the last that came; what was lost before the first is not known."""
    counts = Counts()
    for number in sorted(numbers):
        counts.arrive(number, number)
    assert counts.lost == max(numbers) - min(numbers) + 1 - len(numbers)


def test_publishers_that_do_not_count_lose_nothing_as_far_as_is_known():
    counts = Counts()
    for log_ns in (1, 2, 50):
        counts.arrive(log_ns, 0)
    assert counts.lost == 0 and counts.to_dict()["lost"] == 0


def test_a_publisher_that_starts_anew_is_no_loss():
    counts = Counts()
    for number in (5, 6, 1, 2):
        counts.arrive(number, number)
    assert counts.lost == 0


def test_a_single_message_has_no_rate():
    counts = Counts()
    counts.arrive(7, 1)
    assert counts.to_dict()["rate_hz"] == 0.0 and counts.to_dict()["longest_gap_s"] == 0.0
