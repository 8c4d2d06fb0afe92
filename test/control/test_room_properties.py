# SPDX-License-Identifier: Apache-2.0
"""Grid, watchdog and ledger for any sequence of calls."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagewam_ros.control.grid import Grid
from imagewam_ros.control.ledger import Ledger, Travel
from imagewam_ros.control.timeline import Rows
from imagewam_ros.control.travel import FIRST_HALF, ROWS, profile, replan_from_row_zero
from imagewam_ros.control.watchdog import Response, Watchdog, WatchdogConfig
from imagewam_ros.core.errors import ConfigError

PERIOD = 5_000_000
MS = 1_000_000


@given(st.lists(st.integers(-PERIOD // 5, 8 * PERIOD), min_size=1, max_size=40))
def test_ticks_follow_the_clock_and_never_turn_back(delays):
    """Calls that come a little early, on time or some periods late: the tick is the one that is due."""
    grid, now = Grid(10**9, PERIOD, 0.1, 0.01), 10**9
    for delay in delays:
        now = max(now, 10**9 + (now - 10**9) // PERIOD * PERIOD + PERIOD + delay)
        before = grid.tick
        advance = grid.due(now)
        grid.move(advance, now)
        assert 0 <= advance.periods <= 2 and grid.tick == before + advance.periods
        assert advance.jump_ns == 0
        assert -PERIOD // 4 <= now - grid.nominal_ns < PERIOD


@given(st.integers(25, 10**6))
def test_a_long_pause_lays_the_grid_anew(periods):
    grid = Grid(0, PERIOD, 0.1, 0.01)
    now = periods * PERIOD + 17
    advance = grid.due(now)
    grid.move(advance, now)
    assert advance.periods == 1 and grid.tick == 1
    assert grid.nominal_ns == now, "one period after the last tick, wherever the clock went"


@given(st.integers(2, 10**6))
def test_a_clock_that_goes_back_lays_the_grid_anew(periods):
    grid = Grid(10**15, PERIOD, 0.1, 0.01)
    now = 10**15 - periods * PERIOD
    grid.move(grid.due(now), now)
    assert grid.tick == 1 and grid.nominal_ns == now


@given(st.integers(0, 2))
def test_asking_moves_nothing(late):
    grid = Grid(0, PERIOD, 0.1, 0.01)
    assert grid.due(late * PERIOD) == grid.due(late * PERIOD) == (late, 0, 0)
    assert grid.tick == 0


WATCHED = np.array([True, True, False])
NAMES = ("a", "b", "gripper")


@given(st.floats(0.01, 2), st.floats(0, 3), st.sampled_from(["joint_state", "controller"]))
def test_silence_is_noticed_exactly_beyond_its_limit(limit_s, silent_s, kind):
    config = WatchdogConfig(joint_state_timeout_s=limit_s, controller_timeout_s=limit_s)
    watchdog = Watchdog(config, WATCHED)
    watchdog.note(kind, "left", 10**9)
    alarm = watchdog.check(10**9 + round(silent_s * 1e9))
    if abs(silent_s - limit_s) < 1e-6:
        return
    assert (alarm is not None) == (silent_s > limit_s)
    if alarm:
        assert alarm.response is (Response.FAULT if kind == "joint_state" else Response.HOLD)
        assert alarm.reason.startswith("left arm's ") and f"(limit {limit_s} s)" in alarm.reason


def test_what_was_never_heard_or_is_turned_off_is_not_missed():
    assert Watchdog(WatchdogConfig(), WATCHED).check(10**15) is None
    quiet = Watchdog(WatchdogConfig(joint_state_timeout_s=0.0), WATCHED)
    quiet.note("joint_state", "left", 0)
    assert quiet.check(10**15) is None


@given(st.floats(0.01, 1.0), st.floats(0, 1.5), st.integers(0, 2))
def test_tracking_compares_with_what_was_sent_before(limit, error, joint):
    """What was sent 50 ms earlier counts, newer commands do not; fingers are not watched."""
    watchdog = Watchdog(WatchdogConfig(tracking_error=limit), WATCHED)
    for i in range(21):
        watchdog.sent(i * 5 * MS, np.full(3, float(i)))
    measured = np.full(3, 10.0)
    measured[joint] += error
    alarm = watchdog.track(100 * MS, measured, NAMES)
    if abs(error - limit) > 1e-9:
        assert (alarm is not None) == (error > limit and joint < 2)
    if alarm:
        assert alarm.response is Response.FAULT and f"joint {NAMES[joint]!r} is {error:.3f}" in alarm.reason


def test_nothing_is_compared_before_anything_was_sent_or_after_forgetting():
    watchdog = Watchdog(WatchdogConfig(), WATCHED)
    assert watchdog.track(0, np.full(3, 99.0), NAMES) is None
    watchdog.sent(0, np.zeros(3))
    assert watchdog.track(60 * MS, np.full(3, 99.0), NAMES) is not None
    watchdog.forget()
    assert watchdog.track(60 * MS, np.full(3, 99.0), NAMES) is None


@pytest.mark.parametrize(
    "name", ["joint_state_timeout_s", "controller_timeout_s", "tracking_error", "tracking_delay_s"]
)
def test_negative_limits_are_refused(name):
    with pytest.raises(ConfigError, match=f"{name} must not be negative, found -1.0; 0 turns it off"):
        WatchdogConfig(**{name: -1.0})


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(2, 30))
def test_executed_travel_is_the_sum_of_all_motion(seed, count):
    path = np.random.default_rng(seed).normal(size=(count, 3))
    ledger = Ledger(0.04)
    for position in path:
        ledger.sent(position)
    assert ledger.travel.executed == pytest.approx(np.abs(np.diff(path[:, :2], axis=0)).sum())
    assert ledger.travel.predicted == 0 and ledger.travel.ratio == 1.0 and ledger.travel.lost == 0.0


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(4, 20))
def test_one_chunk_predicts_its_own_travel(seed, count):
    rows = Rows(np.arange(count, dtype=np.int64) * 50 * MS, np.random.default_rng(seed).normal(size=(count, 3)))
    ledger = Ledger(0.04)
    ledger.chunk(rows, 0)
    assert ledger.travel.predicted == pytest.approx(np.abs(np.diff(rows.positions[:, :2], axis=0)).sum())


@settings(max_examples=25)
@given(st.integers(2, 8), st.integers(4, 20))
def test_chunks_that_repeat_one_motion_promise_it_once(chunks, overlap):
    """A steady speed predicted again and again: what is promised is the speed times the time covered."""
    ledger, speed, count = Ledger(0.04), 0.5, 20
    for i in range(chunks):
        times = (np.arange(count, dtype=np.int64) + i * (count - overlap)) * 50 * MS
        positions = np.zeros((count, 3))
        positions[:, 0] = speed * times / 1e9
        if overlap < count or i == 0:
            ledger.chunk(Rows(times, positions), int(times[0]))
    covered_s = ((chunks - 1) * (count - overlap) + count - 1) * 0.05
    assert ledger.travel.predicted == pytest.approx(speed * covered_s)


def test_a_grasp_that_is_replaced_before_it_is_due_is_lost():
    times = np.arange(10, dtype=np.int64) * 50 * MS
    closing, open_hand = np.zeros((10, 3)), np.zeros((10, 3))
    closing[:, 2] = np.where(np.arange(10) < 5, 0.04, 0.0)
    open_hand[:, 2] = 0.04
    ledger = Ledger(0.02)
    ledger.chunk(Rows(times, closing), 0)
    assert (ledger.travel.gripper_predicted, ledger.travel.gripper_lost) == (1, 0)
    ledger.chunk(Rows(times + 50 * MS, open_hand), 50 * MS)
    assert (ledger.travel.gripper_predicted, ledger.travel.gripper_lost) == (1, 1)


@given(st.floats(0, 10), st.floats(0, 10))
def test_lost_is_never_negative(predicted, executed):
    travel = Travel(predicted, executed)
    assert travel.lost >= 0 and (travel.lost == 0) == (executed >= predicted)


@given(st.floats(0.05, 0.95))
def test_the_profile_puts_its_share_into_the_first_half(first_half):
    reached = profile(first_half)
    assert reached[0] == 0 and reached[-1] == pytest.approx(1) and len(reached) == ROWS
    assert reached[7] == pytest.approx(first_half)
    assert (np.diff(reached) > 0).all()


def test_the_loop_of_the_report_loses_what_the_report_says():
    """Rows 0 to 7 of 16 played, then asked again: about half of the travel (3.2 of 5.6 rad) is made."""
    case = replan_from_row_zero(FIRST_HALF)
    assert 0.4 < case.ratio < 0.7
    assert replan_from_row_zero(0.9).ratio > case.ratio
