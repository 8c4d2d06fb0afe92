# SPDX-License-Identifier: Apache-2.0
"""Recorded chunks to the running executor, at their recorded distances, as the commander `replay`.

The executor treats them as any other commander's: teleoperation and takeover outrank them, they
outrank the policy, and a chunk whose first row is far from the arms is refused with a reason. What
was refused when it was recorded, or only watched by a shadow, moved nothing and is not sent.
"""

import dataclasses
import sys
import time

from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.node import Node

from imagewam_ros.core.errors import ConfigError
from imagewam_ros.core.schema import ActionChunk, Source
from imagewam_ros.data.run_log import Heard, RunLog
from imagewam_ros.msg import ActionChunk as ActionChunkMsg
from imagewam_ros.msg import ExecutorEvent, ExecutorStatus
from imagewam_ros.nodes import messages, qos, topics
from imagewam_ros.nodes.spin import run

CHECK_S = 0.002
PATIENCE_S = 15.0
"""Longest wait for an executor that holds or runs, whether or not /clock does."""

LEAD_NS = 100_000_000
READY = (ExecutorStatus.HOLDING, ExecutorStatus.ACTIVE)


class ReplayNode(Node):
    """Sends every chunk that moved the arms of a recording; `finished` once the last row of the last one is due."""

    def __init__(self, log: RunLog) -> None:
        """Raises ConfigError when no chunk of `log` moved the arms."""
        super().__init__("replay")
        self.finished, self.exit_status = False, 0
        self._waiting = sorted(that_moved(log), key=lambda heard: heard.log_ns)
        self._sequences = {heard.chunk.sequence for heard in self._waiting}
        self._sent = self._accepted = self._refused = 0
        self._offset_ns: int | None = None
        self._end_ns, self._began_s = 0, time.monotonic()
        self._state = -1
        self._chunks = self.create_publisher(ActionChunkMsg, topics.CHUNK, qos.CHUNKS)
        # DDS tells of them in order: an executor whose status comes sends its verdicts here as well.
        self.create_subscription(ExecutorEvent, topics.EVENT, self._on_event, qos.COMMAND_LOG)
        self.create_subscription(ExecutorStatus, topics.STATUS, self._on_status, qos.STATUS)
        self.create_timer(CHECK_S, self._work, clock=Clock(clock_type=ClockType.STEADY_TIME))

    @property
    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    def _work(self) -> None:
        if self._offset_ns is None:
            self._begin()
            return
        while self._waiting and self._waiting[0].log_ns + self._offset_ns <= self._now_ns:
            self._send(self._waiting.pop(0).chunk, self._offset_ns)
        if not self._waiting and self._now_ns > self._end_ns:
            self._finish()

    def _begin(self) -> None:
        """Set the recorded times to now, once somebody listens who may move."""
        if self._state in READY and self._chunks.get_subscription_count() and self._now_ns:
            self._offset_ns = self._now_ns + LEAD_NS - self._waiting[0].log_ns
            return
        if time.monotonic() - self._began_s > PATIENCE_S:
            print(f"cannot replay: {self._found}; start the cell with `imagewam up` and activate it", file=sys.stderr)
            self.finished, self.exit_status = True, 2

    @property
    def _found(self) -> str:
        if self._state < 0:
            return "no executor tells its status"
        return f"the executor is in state {self._state}" if self._now_ns else "nothing comes on /clock"

    def _send(self, chunk: ActionChunk, by_ns: int) -> None:
        stamp_ns, ready_ns = chunk.stamp_ns + by_ns, chunk.ready_ns + by_ns if chunk.ready_ns else 0
        moved = dataclasses.replace(chunk, source=Source.REPLAY, stamp_ns=stamp_ns, ready_ns=ready_ns)
        self._chunks.publish(messages.from_chunk(moved))
        self._sent += 1
        self._end_ns = max(self._end_ns, moved.due_ns(moved.rows - 1))

    def _on_status(self, message: ExecutorStatus) -> None:
        self._state = message.state

    def _on_event(self, message: ExecutorEvent) -> None:
        if message.source != ActionChunkMsg.SOURCE_REPLAY or message.sequence not in self._sequences:
            return
        if message.trigger == "accepted":
            self._accepted += 1
        else:
            self._refused += 1
            print(f"chunk {message.sequence} was refused: {message.reason}", file=sys.stderr)

    def _finish(self) -> None:
        print(f"{self._sent} chunks sent, {self._accepted} accepted, {self._refused} refused")
        self.finished, self.exit_status = True, int(self._accepted < self._sent)


def that_moved(log: RunLog) -> list[Heard]:
    """Return the chunks that the recorded executor obeyed; where its events were not recorded, all that it could obey.

    A sequence number comes again when a policy starts again: a verdict is of the chunk whose stamp is nearest.
    Raises ConfigError when there are none.
    """
    if log.events:
        same: dict[tuple[Source, int] | None, list[int]] = {}
        for place, (_, chunk) in enumerate(log.chunks):
            same.setdefault((chunk.source, chunk.sequence), []).append(place)
        accepted = [event for event in log.events if event.trigger == "accepted" and event.chunk in same]
        places = {
            min(same[event.chunk], key=lambda n: abs(log.chunks[n].chunk.stamp_ns - event.time_ns))
            for event in accepted
        }
        moved = [log.chunks[place] for place in places]
    else:
        watched = log.parameters.get("shadow", False)
        moved = [heard for heard in log.chunks if not (watched and heard.chunk.source is Source.POLICY)]
    if not moved:
        raise ConfigError(f"{log.directory}: none of its chunks moved the arms, so there is nothing to replay")
    return moved


def replay_live(log: RunLog, namespace: str, simulated: bool) -> int:
    """Send the chunks of `log` to the cell in `namespace`; 1 when one was not accepted, 2 when nobody listens."""
    arguments = ["--ros-args", "-p", f"use_sim_time:={str(simulated).lower()}"]
    if namespace:
        arguments += ["-r", f"__ns:=/{namespace.strip('/')}"]
    return run(lambda: ReplayNode(log), arguments)
