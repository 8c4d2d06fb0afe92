# SPDX-License-Identifier: Apache-2.0
"""Track and reference: no jump in position, velocity or acceleration, whatever happens to the rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagewam_ros.control.braking import Motion
from imagewam_ros.control.reference import Reference
from imagewam_ros.control.timeline import RULES, MergeConfig
from imagewam_ros.control.track import WINDOW, Track
from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.schema import ActionChunk, Source

MS = 1_000_000
P = 50 * MS
SEEDS = st.integers(0, 10_000)
ACCELERATION, JERK = np.array([4.0, 8.0]), np.array([60.0, 90.0])
ROBOT = load_embodiment("sim_cell")


def track(rule="ensemble", smoothing_hz=4.0, **config):
    return Track(ACCELERATION, JERK, MergeConfig(rule=rule, **config), smoothing_hz)


def chunk(stamp_ns, positions, source=Source.POLICY, period_ns=P):
    names = tuple(f"j{i}" for i in range(positions.shape[1]))
    return ActionChunk(stamp_ns, period_ns, names, positions, source=source)


def take(made, one, now_ns, fresh=False):
    rows = made.merge(one, one.positions, now_ns, fresh)
    made.fit(now_ns, made.ahead(now_ns))
    return rows


def assert_same(found, wanted, tolerance=1e-7):
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=tolerance, rtol=tolerance)


def assert_smooth(curve):
    """Both sides of every knot agree to what the jerk can do in one nanosecond."""
    for knot in curve.knots_ns[1:]:
        before, after = curve.at(knot - 1), curve.at(knot)
        for one, other, tolerance in zip(before, after, (1e-7, 1e-6, 1e-4), strict=True):
            np.testing.assert_allclose(one, other, atol=tolerance)


@settings(max_examples=25)
@given(SEEDS, st.sampled_from(RULES), st.integers(0, 4))
def test_merges_never_jump(seed, rule, horizon):
    rng = np.random.default_rng(seed)
    made, now = track(rule, execute_horizon=horizon), 10**9
    made.rest(rng.uniform(-1, 1, 2), now)
    for _ in range(4):
        before = made.curve.at(now)
        take(made, chunk(now - int(rng.integers(20, 200)) * MS, rng.uniform(-1, 1, (10, 2))), now)
        assert_same(made.curve.at(now), before)
        assert_smooth(made.curve)
        now += int(rng.integers(30, 300)) * MS


@settings(max_examples=25)
@given(SEEDS, st.integers(0, 900))
def test_a_stop_begins_in_the_present_state_brakes_within_bounds_and_ends_at_rest(seed, after_ms):
    rng = np.random.default_rng(seed)
    made, now = track(), after_ms * MS
    take(made, chunk(0, rng.uniform(-0.5, 0.5, (12, 2))), 0)
    before = made.curve.at(now)
    made.stop(now)
    assert_same(made.curve.at(now), before)
    assert not made.ahead(0).times_ns.size and not made.wants_refit(2**62)
    assert made.last_row_ns == now
    times = np.linspace(now, made.curve.rest_ns, 60).astype(int)
    sampled = np.stack([made.curve.at(int(t)).acceleration for t in times])
    assert (np.abs(sampled) <= np.maximum(ACCELERATION, np.abs(before.acceleration)) + 1e-6).all()
    end = made.curve.at(made.curve.rest_ns)
    assert not end.velocity.any() and not end.acceleration.any()
    assert_same(made.curve.at(max(made.curve.rest_ns - 1, now)), end, 1e-5)
    assert_same(made.curve.at(made.curve.rest_ns + 10**12), end, 0)


@given(SEEDS)
def test_rest_is_where_it_was_asked_for_from_then_on(seed):
    position = np.random.default_rng(seed).uniform(-3, 3, 2)
    made = track()
    take(made, chunk(0, np.ones((12, 2))), 0)
    made.rest(position, 7 * P)
    position_then = position.copy()
    position += 1.0
    for time_ns in (7 * P, 8 * P, 10**15):
        motion = made.curve.at(time_ns)
        assert_same(motion, (position_then, np.zeros(2), np.zeros(2)), 0)


@settings(max_examples=25)
@given(SEEDS, st.integers(-(10**15), 10**15))
def test_a_shift_moves_the_curve_and_nothing_else(seed, by_ns):
    made = track()
    take(made, chunk(0, np.random.default_rng(seed).uniform(-1, 1, (12, 2))), 0)
    times = np.linspace(0, made.curve.rest_ns + P, 12).astype(int).tolist()
    before = [made.curve.at(t) for t in times]
    made.shift(by_ns)
    for t, wanted in zip(times, before, strict=True):
        assert_same(made.curve.at(t + by_ns), wanted, 0)


def test_a_long_chunk_is_played_to_its_end_window_by_window():
    def wave(times_ns):
        return 0.4 * np.sin(np.asarray(times_ns)[..., None] * 1e-9 * np.array([1.0, 2.0]))

    made, rows, refits = track("latest"), 3 * WINDOW, 0
    made.stop_from(Motion(wave(0), 0.4 * np.array([1.0, 2.0]), np.zeros(2)), 0)
    take(made, chunk(0, wave(np.arange(1, rows + 1) * P)), 0)
    assert made.last_row_ns == rows * P and made.ahead(0).times_ns.size == WINDOW
    assert made.curve.last_row_ns == WINDOW * P, "the curve runs through one window"
    assert not made.wants_refit((WINDOW // 2) * P), "half of it is not done"
    for now in range(0, rows * P, P // 2):
        if made.wants_refit(now):
            before, refits = made.curve.at(now), refits + 1
            made.fit(now, made.ahead(now))
            assert_same(made.curve.at(now), before)
        np.testing.assert_allclose(made.curve.at(now).position, wave(now), atol=2e-3)
    assert refits >= 3 and made.curve.last_row_ns == rows * P
    assert not made.wants_refit(2**62)


@pytest.mark.parametrize("source", [Source.TELEOP, Source.TAKEOVER])
def test_a_human_is_never_averaged_nor_kept_waiting(source):
    made = track("ensemble", decay=0.0, execute_horizon=8, latency_skip_s=0.2)
    take(made, chunk(0, np.zeros((12, 2)), source), 0)
    take(made, chunk(0, np.ones((12, 2)), source), 0)
    assert made.ahead(0).times_ns[0] == P and (made.ahead(0).positions == 1.0).all()


def test_another_spacing_or_commander_drops_the_older_rows():
    made = track("latest")
    take(made, chunk(0, np.zeros((20, 2))), 0)
    take(made, chunk(0, np.ones((4, 2)), period_ns=2 * P), 0)
    assert made.last_row_ns == 8 * P and (made.ahead(0).positions == 1.0).all()
    take(made, chunk(0, np.full((6, 2), 2.0), period_ns=2 * P), 0, fresh=False)
    rows = take(made, chunk(0, np.full((5, 2), 3.0), period_ns=2 * P), 0, fresh=True)
    assert np.array_equal(made.ahead(0).times_ns, rows.times_ns)


def reference():
    made = Reference(ROBOT, MergeConfig(), 4.0, 0.7, None)
    made.rest(np.arange(14) / 10, 0)
    return made


@settings(max_examples=15)
@given(SEEDS, st.sampled_from(["left", "right"]), st.booleans())
def test_one_arm_moves_and_the_other_rests_to_the_bit(seed, side, names_both):
    made, part = reference(), ROBOT.arm_slice(side)
    positions = np.random.default_rng(seed).uniform(-0.3, 0.3, (12, 14)) + np.arange(14) / 10
    positions = positions if names_both else positions[:, part]
    rows = made.merge(chunk(0, positions), positions, [side], set(), 0)
    made.fit(0)
    assert set(rows) == {side}
    np.testing.assert_array_equal(rows[side].positions, positions[:, part] if names_both else positions)
    other = np.ones(14, bool)
    other[part] = False
    motion = made.at(6 * P)
    np.testing.assert_array_equal(motion.position[other], (np.arange(14) / 10)[other])
    assert not motion.velocity[other].any() and np.abs(motion.velocity[part]).min() > 0


def test_arms_stop_one_by_one_and_both_go_on_from_a_given_state():
    made, both = reference(), np.linspace(0, 1, 12)[:, None] + np.arange(14) / 10
    made.merge(chunk(0, both), both, made.sides, set(made.sides), 0)
    made.fit(0)
    now, left, right = 5 * P, ROBOT.arm_slice("left"), ROBOT.arm_slice("right")
    before, later = made.at(now), made.at(now + P)
    made.stop(["left"], now)
    assert_same(made.at(now), before)
    np.testing.assert_array_equal(made.at(now + P).position[right], later.position[right])
    assert (made.at(now + P).velocity[left] < later.velocity[left]).all()
    assert made.last_row_ns == 12 * P, "the right arm's"
    made.stop_from(later, now + P)
    assert_same(made.at(now + P), later)
    assert made.last_row_ns == now + P and not made.at(10**12).velocity.any()
    moved = made.at(now + 2 * P)
    made.shift(-P)
    assert_same(made.at(now + P), moved, 0)
