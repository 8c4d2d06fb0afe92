# SPDX-License-Identifier: Apache-2.0
"""What the executor publishes about itself: every command, every event, its status and its parameters.

Together with the chunks this is all that `imagewam replay` needs to make the same commands again.
Called on the control thread while the executor ticks.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from std_msgs.msg import String

from imagewam_ros.control.executor import Executor, Step, Transition, Verdict
from imagewam_ros.core.schema import ActionChunk
from imagewam_ros.msg import ExecutorCommand, ExecutorEvent, ExecutorStatus
from imagewam_ros.nodes import messages, qos, topics
from imagewam_ros.nodes.lifecycle import ManagedNode

SAID_BY_VERDICT = "chunk"
"""Trigger of transitions that the event of the accepted chunk tells already."""


class ExecutorLog:
    """Publishers of one executor; `chunk` is what was accepted last, `agreement` rms in rad by arm."""

    def __init__(self, node: ManagedNode, executor: Executor, config: Any) -> None:
        """Publish on `node`; `config` is the dataclass of its parameters."""
        self._node, self._executor = node, executor
        self._commands = node.publisher(ExecutorCommand, topics.COMMAND, qos.COMMAND_LOG)
        self._events = node.publisher(ExecutorEvent, topics.EVENT, qos.COMMAND_LOG)
        self._status = node.publisher(ExecutorStatus, topics.STATUS, qos.STATUS)
        self._shadow = bool(config.shadow)
        self._told: Transition | None = None
        self.begin()
        parameters = node.publisher(String, topics.PARAMETERS, qos.STATUS)
        parameters.publish(String(data=json.dumps(dataclasses.asdict(config))))

    def begin(self) -> None:
        """Start anew with an activation."""
        self.chunk: ActionChunk | None = None
        self.agreement: Mapping[str, float] = {}
        self._tick = 0

    def sent(self, step: Step, now_ns: int) -> None:
        """Publish the command that was sent, after what happened before it."""
        self.changed(now_ns)
        self._tick = step.command.tick
        self._commands.publish(messages.from_command(step.command, now_ns))

    def judged(self, chunk: ActionChunk, verdict: Verdict, now_ns: int) -> None:
        """Publish what became of a chunk, after the transitions that it follows from."""
        self.changed(now_ns)
        trigger = "accepted" if verdict.accepted else "refused"
        event = messages.from_event(self._executor.state, self._tick, trigger, verdict.reason, now_ns)
        event.source, event.sequence = int(chunk.source), chunk.sequence
        self._events.publish(event)
        if verdict.accepted:
            self.chunk = chunk

    def changed(self, now_ns: int) -> None:
        """Publish the transitions since the last call."""
        fresh = list[Transition]()
        for transition in reversed(self._executor.transitions):
            if transition is self._told:
                break
            fresh.append(transition)
        for transition in reversed(fresh):
            self._told = transition
            if transition.trigger != SAID_BY_VERDICT:
                told = transition.trigger, transition.reason
                self._events.publish(messages.from_event(transition.after, self._tick, *told, now_ns))

    def status(self, now_ns: int) -> None:
        """Publish the status."""
        rate_hz = self._node.diagnostics.meter.rate("commands")
        status = messages.from_status(self._executor.status, self.chunk, rate_hz, now_ns)
        status.shadow = self._shadow
        status.agreement_rms = [self.agreement[side] for side in status.arms if side in self.agreement]
        self._status.publish(status)
