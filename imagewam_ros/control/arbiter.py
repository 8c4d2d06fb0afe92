# SPDX-License-Identifier: Apache-2.0
"""Who commands which arm: one commander at a time, in the order takeover, teleop, replay, policy.

A human may take one arm while the policy keeps or releases the other. An arm that is taken over
obeys takeover chunks only, until it is released, however long the human is silent.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from imagewam_ros.control.acceptance import Verdict
from imagewam_ros.core.schema import ActionChunk, Source


class Commander(NamedTuple):
    """Who commands an arm, by which instruction, and when the last chunk of that source arrived."""

    source: Source
    instruction_id: int
    arrival_ns: int


@dataclass
class Arbiter:
    """Decide by source, order and contract. Chunks observed at or before not_before_ns are of no use."""

    contract_hash: str
    commander_timeout_s: float
    not_before_ns: int
    taken: set[str] = field(default_factory=set)
    keep_policy: bool = True
    last: ActionChunk | None = None
    _newest: dict[tuple[Source, tuple[str, ...]], ActionChunk] = field(default_factory=dict)
    _commanders: dict[str, Commander] = field(default_factory=dict)

    def free(self, chunk: ActionChunk, sides: tuple[str, ...]) -> tuple[str, ...]:
        """Those of `sides`, the arms that the chunk names, that it may move."""
        return tuple(side for side in sides if chunk.source is Source.TAKEOVER or side not in self.taken)

    def judge(self, chunk: ActionChunk, sides: tuple[str, ...], now_ns: int) -> "Verdict | None":
        """The refusal of a chunk for the arms `sides` that it names, None when nothing speaks against it."""
        return self._rank(chunk, self.free(chunk, sides), now_ns) or self._order(chunk, sides) or self._contract(chunk)

    def took(self, chunk: ActionChunk, sides: tuple[str, ...], now_ns: int) -> set[str]:
        """Note an accepted chunk. Returns the arms of which the commander or its instruction is another now."""
        if chunk.source < Source.TELEOP:
            self.contract_hash = chunk.contract_hash
        if chunk.source is Source.TAKEOVER:
            self.taken |= set(sides)
        self._newest[(chunk.source, sides)] = self.last = chunk
        replaced = set()
        for side in self.free(chunk, sides):
            other = self._commanders.get(side)
            if other is None or other[:2] != (chunk.source, chunk.instruction_id):
                replaced.add(side)
            self._commanders[side] = Commander(chunk.source, chunk.instruction_id, now_ns)
        return replaced

    def led(self, sides: tuple[str, ...]) -> bool:
        """True where a human's chunks have moved all of `sides` since they were stopped last."""
        return all(side in self._commanders and self._commanders[side].source is Source.TAKEOVER for side in sides)

    def give_back(self, now_ns: int) -> tuple[str, ...]:
        """The human lets go of the arms returned; policies move them again once they saw them after now_ns."""
        sides = tuple(sorted(self.taken))
        self.taken, self.keep_policy, self.not_before_ns = set(), True, now_ns
        return sides

    @property
    def waiting(self) -> str:
        """What the arms wait for."""
        return f"a human has the {' and '.join(sorted(self.taken))} arm" if self.taken else "waiting for a chunk"

    def stopped(self, side: str) -> None:
        """The arm `side` was stopped: nobody commands it."""
        self._commanders.pop(side, None)

    def forget_times(self) -> None:
        """The clock was moved: stamps from before can't be compared with those after."""
        self._newest.clear()
        self._commanders.clear()
        self.last, self.not_before_ns = None, 0

    @property
    def commander(self) -> str:
        """Name of the highest present commander, empty without one."""
        sources = [commander.source for commander in self._commanders.values()]
        return max(sources).name.lower() if sources else ""

    def _rank(self, chunk: ActionChunk, sides: tuple[str, ...], now_ns: int) -> "Verdict | None":
        name = chunk.source.name.lower()
        if chunk.source is not Source.TAKEOVER and self.taken and not (sides and self.keep_policy):
            return Verdict(False, f"{name} is refused: {self.waiting}; release it first", "priority")
        for side in sides:
            other = self._commanders.get(side)
            if other is None or chunk.source >= other.source:
                continue
            if now_ns - other.arrival_ns <= self.commander_timeout_s * 1e9:
                reason = f"{name} is refused: {other.source.name.lower()} commands the {side} arm and has priority"
                return Verdict(False, reason, "priority")
        return None

    def _order(self, chunk: ActionChunk, sides: tuple[str, ...]) -> "Verdict | None":
        if chunk.source < Source.TELEOP and chunk.stamp_ns <= self.not_before_ns:
            reason = "the observation is from before the arms were stopped or handed over; waiting for the next"
            return Verdict(False, reason, "order")
        last = self._newest.get((chunk.source, sides))
        if last is None or chunk.stamp_ns > last.stamp_ns:
            return None
        word = "the same observation as" if chunk.stamp_ns == last.stamp_ns else "an older observation than"
        return Verdict(False, f"chunk {chunk.sequence} has {word} chunk {last.sequence}", "order")

    def _contract(self, chunk: ActionChunk) -> "Verdict | None":
        if chunk.source >= Source.TELEOP or not self.contract_hash or chunk.contract_hash == self.contract_hash:
            return None
        found, expected = chunk.contract_hash, self.contract_hash
        reason = f"chunk has contract {found!r}, expected {expected!r}; was the checkpoint changed?"
        return Verdict(False, reason, "contract")
