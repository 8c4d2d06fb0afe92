# SPDX-License-Identifier: Apache-2.0
"""Shadow mode: how well a policy that moves nothing agrees with the human who moves the arms.

A chunk is compared with the commands that were sent at the times its rows were due, once all of
them lie in the past. Agreement says nothing about success: a policy may be right in another way.
"""

from collections import deque
from typing import NamedTuple

import numpy as np

from imagewam_ros.core.embodiment import Embodiment
from imagewam_ros.core.errors import EmbodimentMismatch
from imagewam_ros.core.schema import ActionChunk, Command, Floats

WAITING = 64
"""Chunks that may wait for their rows' times; older ones are dropped."""


class Agreement(NamedTuple):
    """One arm over one chunk: rows compared, rms and largest difference of its joints in rad.

    gripper_rows counts the rows at which both had the gripper on the same side of half open.
    """

    rows: int
    rms: float
    largest: float
    gripper_rows: int


class Shadow:
    """Collects chunks and sent commands and compares them."""

    def __init__(self, robot: Embodiment, memory_s: float = 15.0) -> None:
        """`memory_s` is how long sent commands are kept; chunks that reach further are cut."""
        self._robot = robot
        self._chunks: deque[ActionChunk] = deque(maxlen=WAITING)
        self._sent: deque[tuple[int, Floats]] = deque(maxlen=round(memory_s * robot.control_rate_hz))
        middle = {arm.side: (arm.gripper.lower + arm.gripper.upper) / 2 for arm in robot.arms}
        self._arms = {side: (robot.arm_slice(side), half_open) for side, half_open in middle.items()}

    def chunk(self, chunk: ActionChunk) -> None:
        """Remember what the policy would have done. Raises EmbodimentMismatch for other joints or NaN."""
        if chunk.joint_names != self._robot.joint_names or not np.isfinite(chunk.positions).all():
            raise EmbodimentMismatch(
                f"chunk {chunk.sequence} cannot be compared: it needs finite values for the joints of "
                f"robot {self._robot.name!r}"
            )
        self._chunks.append(chunk)

    def sent(self, command: Command) -> "dict[str, Agreement] | None":
        """Remember a command; returns the agreement by arm of a chunk whose last row is past now."""
        if self._sent and command.nominal_ns <= self._sent[-1][0]:
            self._sent.clear()  # time was set back: nothing from before can be compared
            self._chunks.clear()
        self._sent.append((command.nominal_ns, command.position))
        if not self._chunks:
            return None
        chunk = self._chunks[0]
        if chunk.due_ns(chunk.rows - 1) > command.nominal_ns:
            return None
        self._chunks.popleft()
        return self._compare(chunk)

    def _compare(self, chunk: ActionChunk) -> "dict[str, Agreement] | None":
        times = np.array([time for time, _ in self._sent])
        due = np.array([chunk.due_ns(row) for row in range(chunk.rows)])
        known = (due >= times[0]) & (due <= times[-1])
        if not known.any():
            return None
        sent = np.array([position for _, position in self._sent])
        # Relative times: nanoseconds since 1970 do not fit a double.
        at = (due[known] - times[0]).astype(np.float64)
        since = (times - times[0]).astype(np.float64)
        executed = np.stack([np.interp(at, since, column) for column in sent.T], axis=1)
        return {side: self._agree(chunk.positions[known], executed, side) for side in self._arms}

    def _agree(self, wanted: Floats, executed: Floats, side: str) -> Agreement:
        part, half_open = self._arms[side]
        difference = (wanted - executed)[:, part][:, :-1]
        same = (wanted[:, part][:, -1] > half_open) == (executed[:, part][:, -1] > half_open)
        rms = float(np.sqrt(np.mean(difference**2)))
        return Agreement(len(wanted), rms, float(np.abs(difference).max()), int(same.sum()))
