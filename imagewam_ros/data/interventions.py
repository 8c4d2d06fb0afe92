# SPDX-License-Identifier: Apache-2.0
"""Which frames of an episode a human, or an expert, corrected while a policy ran.

An episode without interventions is a demonstration and counts as a whole. One with interventions counts by
its corrected frames alone: what the policy did before was not right, and what it did after is not shown by anyone.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Span = tuple[int, int]
"""First and last stamp in ns, both included."""

SHORTEST = 4
"""Corrections of fewer frames say nothing."""


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
