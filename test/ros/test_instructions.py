# SPDX-License-Identifier: Apache-2.0
"""A change of instruction: one encode, nothing waits for it, and only then the change."""

from concurrent.futures import Future

import pytest

from imagewam_ros.core.errors import ConfigError, GraphError
from imagewam_ros.nodes.instructions import Instructions


class Desk:
    """Instructions whose encodes end when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Future[None]]] = []
        self.changes = 0
        self.instructions = Instructions(self._encode, self._changed)

    def _encode(self, text: str) -> "Future[None]":
        self.asked.append((text, Future()))
        return self.asked[-1][1]

    def _changed(self) -> None:
        self.changes += 1

    def set(self, text: str, seed: int = 0):
        """Begin a change as the executor would; the coroutine waits at its encode."""
        coroutine = self.instructions.set(text, seed)
        assert coroutine.send(None) is None
        return coroutine


def result(coroutine) -> int:
    with pytest.raises(StopIteration) as end:
        coroutine.send(None)
    return end.value.value


def test_the_present_instruction_goes_on_until_the_next_is_encoded() -> None:
    desk = Desk()
    change = desk.set("  lift   the tray ", seed=40)
    now = desk.instructions
    assert [text for text, _ in desk.asked] == ["lift the tray"]
    assert (now.text, now.number, now.changing, desk.changes) == ("", 0, True, 0)
    now.settle()
    assert now.changing, "the encode is not over"
    desk.asked[0][1].set_result(None)
    now.settle()
    assert (now.text, now.number, now.changing, desk.changes) == ("lift the tray", 1, False, 1)
    assert result(change) == 1
    assert [now.next_seed() for _ in range(3)] == [40, 41, 42]
    assert len(desk.asked) == 1, "one encode"


def test_two_changes_at_once_happen_in_order() -> None:
    desk = Desk()
    first, second = desk.set("one"), desk.set("two")
    for _, encoded in desk.asked:
        encoded.set_result(None)
    desk.instructions.settle()
    assert (result(first), result(second), desk.instructions.text) == (1, 2, "two")


def test_a_stop_wins_over_a_change_that_is_under_way() -> None:
    desk = Desk()
    change = desk.set("lift")
    with pytest.raises(StopIteration):
        desk.instructions.set("", 0).send(None)
    with pytest.raises(GraphError, match="the instruction was cleared before 'lift' was encoded; set it again"):
        change.send(None)
    desk.asked[0][1].set_result(None)
    desk.instructions.settle()
    assert desk.instructions.text == "" and not desk.instructions.changing


def test_no_instruction_needs_no_encode() -> None:
    desk = Desk()
    with pytest.raises(StopIteration) as end:
        desk.instructions.set("  ", 0).send(None)
    assert end.value.value == 1 and not desk.asked and desk.changes == 1


def test_an_encode_that_fails_is_told_and_changes_nothing() -> None:
    desk = Desk()
    change = desk.set("lift")
    desk.asked[0][1].set_exception(ConfigError("no such tokenizer"))
    desk.instructions.settle()
    with pytest.raises(ConfigError, match="no such tokenizer"):
        change.send(None)
    assert (desk.instructions.text, desk.changes) == ("", 0)


def test_an_encode_that_breaks_down_is_told_as_well() -> None:
    desk = Desk()
    change = desk.set("lift")
    desk.asked[0][1].set_exception(MemoryError("none left"))
    desk.instructions.settle()
    with pytest.raises(GraphError, match="'lift' could not be encoded: MemoryError: none left"):
        change.send(None)


def test_only_the_owner_of_an_instruction_ends_it() -> None:
    desk = Desk()
    for text in ("one", "two"):
        change = desk.set(text)
        desk.asked[-1][1].set_result(None)
        desk.instructions.settle()
        result(change)
    desk.instructions.rest(1)
    assert desk.instructions.text == "two"
    desk.instructions.rest(2)
    assert desk.instructions.text == ""


def test_an_instruction_of_megabytes_is_refused() -> None:
    desk = Desk()
    with pytest.raises(ConfigError, match="an instruction of 2001 characters is too long; say it in at most 2000"):
        desk.instructions.begin("x" * 2001, 0)
    with pytest.raises(ConfigError, match="too long"):
        desk.set("x" * 2001)
    assert not desk.asked and desk.instructions.text == ""
