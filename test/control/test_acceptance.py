# SPDX-License-Identifier: Apache-2.0
"""Each refusal, by its text; a refused chunk moves neither arm."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from imagewam_ros.control.acceptance import AcceptanceConfig
from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.schema import ActionChunk, Source

Change = Callable[[ActionChunk], ActionChunk]


def spoilt(row: int, joint: int, value: float) -> Change:
    def change(chunk: ActionChunk) -> ActionChunk:
        positions = np.array(chunk.positions)
        positions[row, joint] = value
        return replace(chunk, positions=positions)

    return change


def swapped(chunk: ActionChunk) -> ActionChunk:
    names = list(chunk.joint_names)
    names[0], names[1] = names[1], names[0]
    return replace(chunk, joint_names=tuple(names))


def without_last(chunk: ActionChunk) -> ActionChunk:
    return replace(chunk, joint_names=chunk.joint_names[:-1], positions=chunk.positions[:, :-1])


def left_only(chunk: ActionChunk) -> ActionChunk:
    return replace(chunk, joint_names=chunk.joint_names[:7], positions=chunk.positions[:, :7])


def later(seconds: float) -> Change:
    return lambda chunk: replace(chunk, stamp_ns=chunk.stamp_ns + round(seconds * 1e9))


def fields(**changes: Any) -> Change:
    return lambda chunk: replace(chunk, **changes)


REFUSALS: list[tuple[str, Change, str]] = [
    ("nan", spoilt(3, 1, np.nan), r"row 3 of joint 'left_shoulder' is nan; 1 such values"),
    ("nan", spoilt(0, 8, -np.inf), r"row 0 of joint 'right_shoulder' is -inf"),
    ("joints", swapped, r"another order: \[0\] is 'left_shoulder', this robot has 'left_waist'"),
    ("joints", without_last, r"missing \['right_gripper'\], unknown \[\]; was the policy trained for another robot"),
    ("joints", fields(joint_names=("a",)), r"unknown \['a'\]"),
    ("joints", left_only, "policy chunk moves only the left arm; policies move both arms or neither"),
    ("shape", lambda c: replace(c, positions=c.positions[:, :-1]), r"shape \(16, 13\), expected .* of 14 joints"),
    ("shape", lambda c: replace(c, positions=c.positions[:0]), r"shape \(0, 14\), expected at least one row"),
    ("shape", fields(period_ns=0), "period_ns 0, offset 1.0 periods; the period must be positive"),
    ("shape", fields(first_row_offset_periods=float("nan")), "offset nan periods"),
    ("shape", fields(first_row_offset_periods=1e13), r"row 0 is 5e\+11 s from the observation \(limit 10.0 s\)"),
    ("shape", fields(first_row_offset_periods=1e6), r"row 0 is 5e\+04 s from the observation"),
    ("shape", fields(first_row_offset_periods=-1e300), r"row 0 is -5e\+298 s from the observation"),
    ("shape", fields(period_ns=10**9), r"chunk covers 16.0 s \(limit 10.0 s\)"),
    ("schema", fields(schema=0), "chunk has schema 0, this executor reads 1 and newer"),
    ("stale", later(-1.5), r"observation is 1.50 s old \(limit 1.0 s\); is inference too slow"),
    ("stale", later(-0.9), "all 16 rows are past; the chunk came 0.90 s after its observation"),
    ("future", later(0.4), r"observation is 0.40 s in the future \(limit 0.1 s\); are the clocks in step"),
    ("bounds", spoilt(2, 0, 9.0), r"row 2 of joint 'left_waist' is 9.000, outside -2.6 to 2.6; are units and order"),
    (
        "jump",
        spoilt(2, 0, 1.4),
        r"'left_waist' jumps by .* to row [23], \d+\.\d times its velocity limit \(limit 4.0\)",
    ),
]


@pytest.mark.parametrize(("kind", "change", "text"), REFUSALS, ids=[f"{k}-{i}" for i, (k, *_) in enumerate(REFUSALS)])
def test_refused_with_the_reason_and_nothing_moves(player: Any, kind: str, change: Change, text: str) -> None:
    chunk = change(player.towards(player.executor.reference().position))
    verdict = player.executor.accept(chunk, player.now_ns)
    assert not verdict.accepted
    assert verdict.kind == kind
    assert re.search(text, verdict.reason), verdict.reason
    player.run(0.3)
    assert all(np.array_equal(c.position, player.commands[0].position) for c in player.commands)
    assert player.executor.status.refused == {kind: 1}
    assert player.executor.status.last_refusal == verdict.reason


def test_a_far_target_is_refused_though_its_rows_are_smooth(player: Any, middle: Any) -> None:
    chunk = player.towards(middle)
    far = replace(chunk, positions=chunk.positions + np.where(np.arange(14) == 3, 2.0, 0.0))
    verdict = player.executor.accept(far, player.now_ns)
    assert "'left_forearm_roll' should be at 2.000 but is at 0.000, 0.67 s of full speed away" in verdict.reason
    assert "bring the two together first" in verdict.reason


def test_both_arms_take_a_chunk_or_neither(player: Any, middle: Any) -> None:
    """A fault in the right arm's last row keeps the left arm still as well."""
    target = middle + np.where(player.robot.gripper_mask, 0.0, 0.2)
    player.executor.accept(spoilt(15, 13, np.nan)(player.towards(target)), player.now_ns)
    player.run(0.5)
    assert np.array_equal(player.commands[-1].position, player.commands[0].position)


def test_duplicates_and_older_observations_are_refused(player: Any, middle: Any) -> None:
    executor, first = player.executor, player.towards(middle, sequence=7)
    assert executor.accept(first, player.now_ns).accepted
    again = executor.accept(first, player.now_ns)
    older = executor.accept(replace(first, sequence=8, stamp_ns=first.stamp_ns - 1), player.now_ns)
    assert (again.kind, older.kind) == ("order", "order")
    assert again.reason == "chunk 7 has the same observation as chunk 7"
    assert older.reason == "chunk 8 has an older observation than chunk 7"


def test_a_restarted_policy_counts_from_zero_and_is_accepted(player: Any, middle: Any) -> None:
    player.executor.accept(player.towards(middle, sequence=70), player.now_ns)
    player.run(0.1)
    assert player.executor.accept(player.towards(middle, sequence=0), player.now_ns).accepted


def test_another_contract_is_refused(player: Any, make_player: Any, middle: Any) -> None:
    player.executor.accept(player.towards(middle), player.now_ns)
    player.run(0.1)
    verdict = player.executor.accept(player.towards(middle, contract_hash="two"), player.now_ns)
    assert verdict.reason == "chunk has contract 'two', expected 'one'; was the checkpoint changed?"
    strict = make_player(contract_hash="two")
    assert strict.executor.accept(strict.towards(middle), strict.now_ns).kind == "contract"
    assert strict.executor.accept(strict.towards(middle, source=Source.TELEOP), strict.now_ns).accepted


def test_rows_a_little_outside_the_bounds_are_clamped(player: Any, middle: Any) -> None:
    upper = np.where(np.arange(14) == 6, 0.045, middle)
    chunk = player.towards(upper)
    assert player.executor.accept(chunk, player.now_ns).accepted
    player.run(1.2)
    assert player.executor.status.clamped == 1
    assert player.commands[-1].position[6] == pytest.approx(0.04, abs=1e-3)
    assert max(c.position[6] for c in player.commands) <= 0.04 + 1e-9


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"stale_after_s": 0.0}, "stale_after_s must be positive, found 0.0"),
        ({"absurd_overreach": -1.0}, "absurd_overreach must not be negative, found -1.0"),
    ],
)
def test_impossible_parameters_are_refused(change: dict[str, float], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        AcceptanceConfig(**change)
