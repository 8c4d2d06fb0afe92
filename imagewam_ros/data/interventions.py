# SPDX-License-Identifier: Apache-2.0
"""Which frames of an episode a human, or an expert, corrected while a policy ran.

An episode without interventions is a demonstration and counts as a whole. One with interventions counts by
its corrected frames alone: what the policy did before was not right, and what it did after is not shown by anyone.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagewam_ros.core.schema import Source
from imagewam_ros.data.bag_types import typestore
from imagewam_ros.data.chunk_message import stamp_ns

EVENT = "imagewam_ros/msg/ExecutorEvent"
TAKEOVER = 4
"""ExecutorEvent's state while a human has an arm; see ExecutorStatus."""

Span = tuple[int, int]
"""First and last stamp in ns, both included."""

SHORTEST = 4
"""Corrections of fewer frames say nothing."""

PAUSE_NS = 500_000_000
"""A human who sends nothing for longer shows nothing meanwhile: the executor's own commander_timeout_s by default."""


class SpanKeeper:
    """Collects spans from a state that is told now and then."""

    def __init__(self) -> None:
        self._spans: list[Span] = []
        self._open: Span | None = None

    def tell(self, stamp_ns: int, corrected: bool) -> None:
        """Say whether somebody corrects at `stamp_ns`; stamps ascend."""
        if corrected:
            self._open = (stamp_ns if self._open is None else self._open[0], stamp_ns)
        elif self._open is not None:
            self._spans.append(self._open)
            self._open = None

    @property
    def spans(self) -> tuple[Span, ...]:
        """All spans, the one that goes on included."""
        return (*self._spans, *([self._open] if self._open else ()))


class Corrections:
    """Who moved the arms, from the executor's events (ExecutorEvent) in the order of their arrival, live or recorded.

    A correction begins with the first chunk of a human that is accepted after a takeover: an arm that waits for its
    leader to match shows nothing. It ends with the last such chunk before the human hands the arms back, takes over
    anew, something else stops the arms, or the human pauses for PAUSE_NS. One arm is enough.
    """

    def __init__(self) -> None:
        self.policy_ran = False
        """Whether a chunk was accepted that no human made; one that a shadow compares is not."""
        self._keeper, self._shown_ns = SpanKeeper(), 0

    @classmethod
    def recorded(cls, events: Iterable[bytes]) -> "Corrections":
        """What serialised events say."""
        found = cls()
        for data in events:
            found.hear(typestore().deserialize_cdr(data, EVENT))
        return found

    def hear(self, event: Any) -> None:
        """Take an event, whether rclpy or a reader of bags made the message."""
        now_ns, accepted = stamp_ns(event.header.stamp), event.trigger == "accepted"
        self.policy_ran |= accepted and event.source < Source.TELEOP
        if event.state != TAKEOVER or event.source not in tuple(Source):
            self._keeper.tell(now_ns, False)  # events without a chunk stop the arms or hand them over
        elif accepted and event.source >= Source.TELEOP:
            if not 0 <= now_ns - self._shown_ns <= PAUSE_NS:
                self._keeper.tell(now_ns, False)
            self._keeper.tell(now_ns, True)
            self._shown_ns = now_ns

    @property
    def spans(self) -> tuple[Span, ...]:
        """All corrections, the one that goes on included."""
        return self._keeper.spans


def event_topic(kinds: Mapping[str, str], beside: str) -> str:
    """Topic of the executor's events among a bag's topics and their types, empty where there is none.

    Of several cells' that of the namespace of the topic `beside`.
    """
    cell = f"{beside.rpartition('/')[0]}/"
    names = sorted(topic for topic, kind in kinds.items() if kind == EVENT)
    return min(names, key=lambda name: (not name.startswith(cell), len(name)), default="")


def corrected(stamps_ns: NDArray[np.int64], spans: Sequence[Span]) -> NDArray[np.bool_]:
    """Label of each frame (frames,): whether it lies in a span."""
    label = np.zeros(len(stamps_ns), dtype=bool)
    for first, last in spans:
        label |= (stamps_ns >= first) & (stamps_ns <= last)
    return label


def spans_of(stamps_ns: Sequence[int], label: NDArray[np.bool_]) -> tuple[Span, ...]:
    """Spans that `corrected` would label so; one for each unbroken run of frames (frames,)."""
    return tuple((stamps_ns[first], stamps_ns[end - 1]) for first, end in runs(label))


def runs(label: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Ranges [start, end) of frames whose label (frames,) is true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], label.astype(int), [0]]))).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def lessons(stamps_ns: NDArray[np.int64], spans: Sequence[Span]) -> list[slice]:
    """Rows to learn from, in unbroken runs: all without interventions, else the corrected ones."""
    if not spans:
        return [slice(0, len(stamps_ns))]
    return [slice(a, b) for a, b in runs(corrected(stamps_ns, spans)) if b - a >= SHORTEST]
