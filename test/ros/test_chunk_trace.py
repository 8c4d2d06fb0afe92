# SPDX-License-Identifier: Apache-2.0
"""Stages of a chunk's way add up, and a chunk that its committed rows do not cover says so at both ends."""

import numpy as np
import pytest

from imagewam_ros.core.schema import ActionChunk
from imagewam_ros.nodes.chunk_trace import STAGES, ChunkTrace, DelayWatch
from imagewam_ros.nodes.diagnostics import Meter
from imagewam_ros.nodes.executor_report import ARRIVAL_STAGES, Arrivals

MS = 1_000_000
S = 1_000_000_000
PERIOD_NS = 50 * MS


def chunk(committed_rows: int = 0, sequence: int = 7, inference_s: float = 0.0) -> ActionChunk:
    """Sixteen rows, the first due one period after its observation at 10 s."""
    rows = np.zeros((16, 2))
    return ActionChunk(
        10 * S,
        PERIOD_NS,
        ("a", "b"),
        rows,
        sequence=sequence,
        committed_rows=committed_rows,
        inference_s=inference_s,
        ready_ns=10 * S + 100 * MS,
    )


def medians(meter: Meter) -> dict[str, float]:
    """The p50 of everything sampled, s."""
    return {k: float(v.split()[1]) for k, v in meter.report(1).items() if v.startswith("p50")}


def test_the_stages_leave_no_gap_from_the_stamp_to_the_published_chunk() -> None:
    meter = Meter()
    trace = ChunkTrace(
        newest_ns=10 * S, arrived_ns=10 * S + 3 * MS, paired_ns=10 * S + 5 * MS, converted_ns=10 * S + 6 * MS
    )
    ready_ns, published_ns = 10 * S + 57 * MS, 10 * S + 58 * MS
    trace.sample(meter, chunk(inference_s=0.050), 0.002, ready_ns, published_ns)
    found = medians(meter)
    assert [found[stage] for stage in STAGES] == pytest.approx([0.003, 0.002, 0.001, 0.001, 0.002, 0.048, 0.001])
    assert sum(found[stage] for stage in STAGES) == pytest.approx((published_ns - trace.newest_ns) / 1e9)
    assert found["overhead_s"] == pytest.approx(0.058 - 0.048)
    assert found["camera_to_chunk_s"] == pytest.approx(0.057)


def test_delays_count_to_the_executors_next_tick() -> None:
    watch = DelayWatch(1.0, tick_ns=5 * MS, meter=Meter())
    for delay_ms in (900, 800, 100, 120):  # the first two are the warm-up
        watch.judge(chunk(), 10 * S + delay_ms * MS, 0)
    assert watch.forecast_ns == 125 * MS


def test_a_chunk_slower_than_its_forecast_is_counted_and_says_so() -> None:
    meter = Meter()
    watch = DelayWatch(0.95, tick_ns=5 * MS, meter=meter)
    assert not watch.judge(chunk(committed_rows=3), 10 * S + 145 * MS, 150 * MS)
    assert not watch.judge(chunk(committed_rows=0), 10 * S + 400 * MS, 150 * MS), "nothing was committed"
    text = watch.judge(chunk(committed_rows=3), 10 * S + 225 * MS, 150 * MS)
    assert text == (
        "chunk 7 took 0.230 s, its 3 committed rows were forecast to cover 0.150 s; "
        "rows that are past when it comes are left out"
    )
    assert meter.report(1)["chunk later than forecast_total"] == "1"


@pytest.mark.parametrize(("arrival_ms", "past"), [(150, 0), (199, 0), (200, 1), (260, 2)])
def test_arrival_is_measured_and_rows_beyond_the_committed_ones_are_counted(arrival_ms: int, past: int) -> None:
    meter = Meter()
    text = Arrivals(meter).accepted(chunk(committed_rows=3), 10 * S + 101 * MS, 10 * S + arrival_ms * MS)
    assert medians(meter)["camera_to_acceptance_s"] == pytest.approx(arrival_ms / 1e3)
    wanted = (
        f"chunk 7 came {arrival_ms / 1e3:.3f} s after its observation: its 3 committed rows and {past} more are past "
        "and left out"
    )
    assert text == (wanted if past else "")
    assert meter.report(2).get("chunk past its committed rows_total") == ("1" if past else None)


def test_stages_after_the_chunk_leave_no_gap_and_the_first_command_counts() -> None:
    meter = Meter()
    arrivals = Arrivals(meter)
    arrivals.sent(10 * S)
    assert not medians(meter), "no chunk was accepted yet"
    arrivals.accepted(chunk(), 10 * S + 101 * MS, 10 * S + 104 * MS)
    arrivals.sent(10 * S + 106 * MS)
    arrivals.sent(10 * S + 111 * MS)
    found = medians(meter)
    assert [found[stage] for stage in ARRIVAL_STAGES] == pytest.approx([0.001, 0.003, 0.002])
    assert found["camera_to_command_s"] == pytest.approx(0.106)
