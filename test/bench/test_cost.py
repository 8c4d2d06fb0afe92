# SPDX-License-Identifier: Apache-2.0
"""What a chunk of the 4B model costs: ours, and the authors' schedule, counted once for all tests of it."""

import pytest

from imagewam_ros import bench_cost
from imagewam_ros.bench_reference import costs


@pytest.fixture(scope="module")
def cost():
    return bench_cost.chunk_cost("flux2-4b", "compact_288x256")


def test_reference_costs_what_the_authors_schedule_costs(cost):
    """9.96 TFLOPs, 36.3 GB, and 16,586 operations outside the text encoder at 4B, RoboTwin layout."""
    assert costs.total(cost.reference).flops == pytest.approx(9.96e12, rel=0.01)
    assert costs.total(cost.reference).nbytes == pytest.approx(36.3e9, rel=0.01)
    assert costs.total(cost.reference, without=("text",)).operations == pytest.approx(16586, rel=0.05)


def test_sweeps_cost_at_most_their_share(cost):
    ours, theirs = costs.total(costs.engine_cost("4b", "robotwin", sweeps=4)), costs.total(cost.reference)
    without_text = costs.total(cost.reference, without=("text",))
    assert ours.operations <= 0.30 * without_text.operations, ours.operations / without_text.operations
    assert ours.nbytes <= 0.36 * theirs.nbytes, ours.nbytes / theirs.nbytes
    assert ours.flops <= 3.1e12


def test_sweeps_are_fewer_calls_and_more_work_than_steps():
    steps, sweeps = (costs.total(costs.engine_cost("tiny", "robotwin", sweeps)) for sweeps in (0, 4))
    assert sweeps.operations < 0.6 * steps.operations and sweeps.flops > steps.flops


def test_chunk_of_4b_costs_at_most_the_lean_count(cost):
    assert cost.tokens == 24 + 1 + 288
    assert cost.total.flops <= 2.45e12
    assert cost.total.nbytes <= 0.58 * 36.3e9
    assert cost.total.operations <= 0.60 * 16586
    assert list(cost.phases) == ["image", "editing forward", "action loop"]


def test_action_loop_reads_the_cache_once_per_step(cost):
    assert cost.phases["action loop"].cache_bytes == 10 * cost.cache_bytes
    assert cost.phases["editing forward"].cache_bytes == 0


def test_table_states_its_account(cost):
    text = bench_cost.table([cost])
    theirs = next(line for line in text.splitlines() if "in the order of the authors" in line).split()
    flops, nbytes, calls = (float(each) for each in theirs[-3:])
    assert (flops, nbytes) == pytest.approx((9.96, 36.3), rel=0.01) and calls > 16586, "which leaves the text out"
    assert "flux2-4b" in text and "63.65 TF" in text and "not the same account" in text
