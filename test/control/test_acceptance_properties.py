# SPDX-License-Identifier: Apache-2.0
"""The gate for any chunk: what is sane passes, one bad value is always found and named."""

import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagewam_ros.control.acceptance import AcceptanceConfig, Gate
from imagewam_ros.core.embodiment import load_embodiment
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.schema import ActionChunk, Source

ROBOT = load_embodiment("sim_cell")
LIMITS = ROBOT.limits
GATE = Gate(ROBOT, AcceptanceConfig())
NOW = 10**12
PERIOD = 50_000_000
SEEDS, ROWS, JOINTS = st.integers(0, 10_000), st.integers(2, 16), st.integers(0, 13)


def sane(seed, rows, **changes):
    """A slow walk well inside the bounds, observed 0.1 s ago."""
    rng = np.random.default_rng(seed)
    span = LIMITS.upper - LIMITS.lower
    start = LIMITS.lower + span * rng.uniform(0.3, 0.7, 14)
    step = np.minimum(LIMITS.velocity * PERIOD * 1e-9, 0.01 * span)
    positions = start + np.cumsum(rng.uniform(-1, 1, (rows, 14)) * step, axis=0)
    chunk = ActionChunk(NOW - 10**8, PERIOD, ROBOT.joint_names, positions, sequence=seed)
    return dataclasses.replace(chunk, **changes)


def judged(chunk):
    return GATE.judge(chunk, NOW, NOW - 10**9)


@given(SEEDS, ROWS)
def test_sane_chunks_pass(seed, rows):
    assert judged(sane(seed, rows)) == (True, "", "")


@given(SEEDS, ROWS, st.data())
def test_one_bad_number_is_found(seed, rows, data):
    row, joint = data.draw(st.integers(0, rows - 1)), data.draw(JOINTS)
    value = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    chunk = sane(seed, rows)
    positions = chunk.positions.copy()
    positions[row, joint] = value
    verdict = judged(dataclasses.replace(chunk, positions=positions))
    assert not verdict.accepted and verdict.kind == "nan"
    assert verdict.reason == f"row {row} of joint {ROBOT.joint_names[joint]!r} is {value}; 1 such values"


@given(SEEDS, ROWS, st.data())
def test_degrees_in_place_of_radians_are_found(seed, rows, data):
    joint = data.draw(JOINTS)
    chunk = sane(seed, rows)
    positions = chunk.positions.copy()
    positions[:, joint] = LIMITS.upper[joint] + (LIMITS.upper - LIMITS.lower)[joint] * 5
    verdict = judged(dataclasses.replace(chunk, positions=positions))
    assert verdict.kind == "bounds" and repr(ROBOT.joint_names[joint]) in verdict.reason
    assert "are units and order right?" in verdict.reason


@given(SEEDS, st.permutations(range(14)))
def test_any_other_order_of_joints_is_refused(seed, order):
    names = tuple(ROBOT.joint_names[i] for i in order)
    verdict = judged(sane(seed, 4, joint_names=names))
    assert verdict.accepted == (names == ROBOT.joint_names)
    assert verdict.kind == ("" if verdict.accepted else "joints")


@given(SEEDS, st.floats(0, 5))
def test_age_decides_alone(seed, age_s):
    stamp = NOW - round(age_s * 1e9)
    verdict = judged(sane(seed, 16, stamp_ns=stamp))
    assert verdict.accepted == (age_s <= 1.0 + 1e-9)
    if not verdict.accepted:
        assert verdict.kind == "stale" and "is inference too slow?" in verdict.reason


@given(SEEDS, st.floats(0.11, 50))
def test_the_future_is_refused(seed, ahead_s):
    verdict = judged(sane(seed, 4, stamp_ns=NOW + round(ahead_s * 1e9)))
    assert verdict.kind == "future" and "are the clocks in step?" in verdict.reason


@given(SEEDS, ROWS, st.integers(-(10**15), 10**15))
def test_only_differences_of_time_matter(seed, rows, shift):
    chunk = sane(seed, rows)
    moved = dataclasses.replace(chunk, stamp_ns=chunk.stamp_ns + shift)
    assert GATE.judge(moved, NOW + shift, NOW + shift - 10**9) == judged(chunk)


@pytest.mark.parametrize("side", ["left", "right"])
def test_one_arm_is_for_people(side):
    part = ROBOT.arm_slice(side)
    chunk = sane(1, 8)
    half = dataclasses.replace(chunk, joint_names=ROBOT.joint_names[part], positions=chunk.positions[:, part])
    verdict = judged(half)
    assert verdict.kind == "joints" and f"policy chunk moves only the {side} arm" in verdict.reason
    for source in (Source.TELEOP, Source.TAKEOVER):
        assert judged(dataclasses.replace(half, source=source)).accepted
    assert GATE.sides(half) == (side,)
    assert GATE.columns((side,)).tolist() == list(range(part.start, part.stop))


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        ({"schema": 0}, "schema", "chunk has schema 0, this executor reads 1 and newer"),
        ({"positions": np.zeros((0, 14))}, "shape", r"chunk has shape \(0, 14\), expected at least one row of 14"),
        ({"positions": np.zeros((4, 13))}, "shape", r"chunk has shape \(4, 13\)"),
        ({"period_ns": 0}, "shape", "chunk has period_ns 0, offset 1.0 periods; the period must be positive"),
        ({"first_row_offset_periods": float("nan")}, "shape", "offset nan periods"),
        ({"period_ns": 2 * 10**9}, "shape", r"chunk covers 16\.0 s \(limit 10\.0 s\)"),
    ],
)
def test_reasons(change, kind, text):
    verdict = judged(sane(2, 8, **change))
    assert verdict.kind == kind
    assert re.search(text, verdict.reason)


@pytest.mark.parametrize("name", ["stale_after_s", "absurd_speed", "absurd_jump_s", "longest_chunk_s"])
def test_bounds_must_be_positive(name):
    for value in (0.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match=f"{name} must be positive, found {value}"):
            AcceptanceConfig(**{name: value})


@pytest.mark.parametrize("name", ["future_tolerance_s", "absurd_overreach"])
def test_tolerances_must_not_be_negative(name):
    with pytest.raises(ConfigError, match=f"{name} must not be negative, found -0.1"):
        AcceptanceConfig(**{name: -0.1})
