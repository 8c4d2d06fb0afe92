# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np
import pytest

from imagewam_ros.control.arbiter import Arbiter
from imagewam_ros.core.schema import ActionChunk, Source

BOTH = ("left", "right")
S = 10**9


def chunk(source: Source, stamp_ns: int, contract: str = "one") -> ActionChunk:
    return ActionChunk(stamp_ns, 50_000_000, ("a",), np.zeros((1, 1)), source=source, contract_hash=contract)


@pytest.fixture
def arbiter() -> Arbiter:
    return Arbiter("", 0.5, 0)


@pytest.mark.parametrize("first", list(Source)[:3])
@pytest.mark.parametrize("second", list(Source)[:3])
def test_priority_is_takeover_teleop_replay_policy(arbiter: Arbiter, first: Source, second: Source) -> None:
    arbiter.took(chunk(first, S), BOTH, S)
    refusal = arbiter.judge(chunk(second, S + 1), BOTH, S + 1)
    assert (refusal is None) == (second >= first)


def test_a_silent_commander_gives_way(arbiter: Arbiter) -> None:
    arbiter.took(chunk(Source.TELEOP, S), BOTH, S)
    assert arbiter.judge(chunk(Source.POLICY, S + 1), BOTH, S + S // 2) is not None
    assert arbiter.judge(chunk(Source.POLICY, S + 1), BOTH, S + S // 2 + 1) is None


def test_a_stopped_arm_has_no_commander(arbiter: Arbiter) -> None:
    arbiter.took(chunk(Source.TELEOP, S), ("left",), S)
    assert arbiter.commander == "teleop"
    arbiter.stopped("left")
    assert arbiter.commander == ""
    assert arbiter.judge(chunk(Source.POLICY, S + 1), BOTH, S + 1) is None


def test_each_leader_counts_its_own_chunks(arbiter: Arbiter) -> None:
    """Two leader arms send one arm each, with stamps of their own."""
    arbiter.took(chunk(Source.TELEOP, S + 5), ("left",), S + 5)
    assert arbiter.judge(chunk(Source.TELEOP, S), ("right",), S + 5) is None
    assert arbiter.judge(chunk(Source.TELEOP, S), ("left",), S + 5) is not None


def test_a_change_of_commander_drops_its_rows_only_once(arbiter: Arbiter) -> None:
    assert arbiter.took(chunk(Source.POLICY, S), BOTH, S) == {"left", "right"}
    assert arbiter.took(chunk(Source.POLICY, S + 1), BOTH, S + 1) == set()
    assert arbiter.took(chunk(Source.TAKEOVER, S + 2), ("left",), S + 2) == {"left"}
    assert arbiter.free(chunk(Source.POLICY, S + 3), BOTH) == ("right",)


def test_another_instruction_drops_the_rows_of_the_one_before(arbiter: Arbiter) -> None:
    assert arbiter.took(chunk(Source.POLICY, S), BOTH, S) == {"left", "right"}
    assert arbiter.took(replace(chunk(Source.POLICY, S + 1), instruction_id=2), BOTH, S + 1) == {"left", "right"}
    assert arbiter.took(replace(chunk(Source.POLICY, S + 2), instruction_id=2), BOTH, S + 2) == set()


def test_a_moved_clock_forgets_all_stamps(arbiter: Arbiter) -> None:
    arbiter.took(chunk(Source.POLICY, 5 * S), BOTH, 5 * S)
    assert arbiter.judge(chunk(Source.POLICY, S), BOTH, S) is not None
    arbiter.forget_times()
    assert arbiter.judge(chunk(Source.POLICY, S), BOTH, S) is None


def test_contracts_bind_policies_and_replays_only(arbiter: Arbiter) -> None:
    arbiter.took(chunk(Source.POLICY, S), BOTH, S)
    other = chunk(Source.REPLAY, S + 1, "two")
    refusal = arbiter.judge(other, BOTH, S + 1)
    assert refusal is not None
    assert refusal.reason == "chunk has contract 'two', expected 'one'; was the checkpoint changed?"
    assert arbiter.judge(replace(other, source=Source.TELEOP), BOTH, S + 1) is None
