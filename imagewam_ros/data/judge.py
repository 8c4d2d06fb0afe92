# SPDX-License-Identifier: Apache-2.0
"""What an episode must be for anyone to learn from it: one clock per stream, and frames at the policy's rate."""

import numpy as np

from imagewam_ros.core.errors import EpisodeError
from imagewam_ros.data.bag_streams import Plan, Streams

MOST_LATE = 0.02
"""Share of a stream's messages that may be older than the one before."""
RATE_TOLERANCE = 0.1
"""The frames' median spacing may differ from the policy's period by this part of it."""
IDLE_STEP, IDLE_S = 1e-3, 0.5
"""Idle means that no joint moves by more than this (rad or m per frame) for so many seconds."""


def check_clock(streams: Streams) -> None:
    """Raise EpisodeError when the stamps of a topic jump back more often than now and then."""
    for topic, late in streams.late.items():
        if late > MOST_LATE * len(streams.received_ns[topic]):
            raise EpisodeError(
                f"{late} of {len(streams.received_ns[topic])} stamps of {topic} are not newer than the one before; "
                "did the clock jump, or do two drivers publish there?"
            )


def at_rate(plan: Plan, period_ns: int) -> Plan:
    """Return one frame per period: all of them, or every n-th of faster cameras. Raises EpisodeError otherwise."""
    spacing_ns = float(np.median(np.diff(plan.stamps_ns))) if len(plan) > 1 else float(period_ns)
    every = round(period_ns / spacing_ns)
    if every < 1 or abs(every * spacing_ns - period_ns) > RATE_TOLERANCE * period_ns:
        raise EpisodeError(
            f"frames are {spacing_ns / 1e6:.1f} ms apart, the period is {period_ns / 1e6:.1f} ms: mixed rates? "
            "set the recorder's period_s to the cameras' period, or to a multiple of it"
        )
    if every == 1:
        return plan
    kept = [0]
    for row, stamp in enumerate(plan.stamps_ns.tolist()):
        if stamp - plan.stamps_ns[kept[-1]] > (every - 0.5) * spacing_ns:
            kept.append(row)
    return plan.part(np.array(kept))
